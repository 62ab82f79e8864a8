"""Tests of what a database that is away costs: time, and no session."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc, text

from android_harness import history
from android_harness.errors import HistoryError
from android_harness.history import database
from android_harness.history.make_stored import make_stored_samples, make_stored_session
from android_harness.history.records import Origin, StoredSession
from android_harness.history.spool import Spool
from android_harness.history.store import History
from android_harness.latency_stats import latency_stats
from android_harness.provenance import ProvenanceCheck, latency_with_provenance
from tests.harness import sessions

ORIGIN = Origin(
    model="net", target="snapdragon865", artifact="onnx-fp32", format="onnx", backend="onnxruntime",
    precision="fp32", source_sha256="0" * 64, size_bytes=10,
)  # fmt: skip
SESSION = sessions.session()


def row(key: str) -> StoredSession:
    made = latency_with_provenance(SESSION, latency_stats(SESSION), ProvenanceCheck(1e-6, ""), 15.0)
    return make_stored_session(SESSION, made, ORIGIN, run="r", host="h", budget_ms=15.0, key=key)


def test_a_session_comes_out_as_it_went_in(tmp_path: Path) -> None:
    """Every field of a session survives its file."""
    spool = Spool(tmp_path / "spool")
    spool.put(row("a"), make_stored_samples(SESSION))
    assert spool.get("a") == row("a")
    assert spool.get("b") is None


def test_what_the_history_has_leaves_the_spool(tmp_path: Path) -> None:
    """A session is in the spool only while the history lacks it."""
    spool = Spool(tmp_path / "spool")
    with history.open_history(tmp_path / "history.sqlite") as memory:
        spool.add(memory, row("a"), make_stored_samples(SESSION))
        assert memory.get("a") == row("a")
        assert memory.samples("a") == make_stored_samples(SESSION)
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_database_that_is_away_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring goes on; the sessions reach the history once it is back, each once."""
    spool = Spool(tmp_path / "spool")
    with history.open_history(tmp_path / "history.sqlite") as memory:
        spool.put(row("late"), make_stored_samples(SESSION))

        def away(*_: object) -> bool:
            raise HistoryError("The server does not answer.")

        with monkeypatch.context() as down:
            down.setattr(History, "add", away)
            for key in ("a", "b"):
                spool.add(memory, row(key), make_stored_samples(SESSION))
            assert spool.get("a") == row("a")
            with pytest.raises(HistoryError, match="does not answer"):
                spool.flush(memory)
        assert spool.flush(memory) == 3
        assert spool.flush(memory) == 0
        assert {session.key for session in memory.sessions()} == {"a", "b", "late"}


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """Nothing is thrown away: the message says which file to look at."""
    spool = Spool(tmp_path)
    spool.put(row("a"), make_stored_samples(SESSION))
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(HistoryError, match=r"a\.json is no session"):
        spool.get("a")


def test_another_session_with_the_same_key_stays_here(tmp_path: Path) -> None:
    """A contradiction is told, and neither session is lost."""
    spool = Spool(tmp_path / "spool")
    with history.open_history(tmp_path / "history.sqlite") as memory:
        memory.add(row("a"))
        spool.add(memory, replace(row("a"), p50_ms=1.0), make_stored_samples(SESSION))
        with pytest.raises(HistoryError, match="Two different sessions"):
            spool.flush(memory)
    assert spool.get("a") == replace(row("a"), p50_ms=1.0)


def test_a_restart_of_the_server_ends_no_night(location: str, request: Any) -> None:
    """A pooled connection that the restart has cut is replaced before it is used."""
    if not location.startswith("postgresql"):
        pytest.skip("SQLite has no server")
    with history.open_history(location) as memory:
        memory.add(row("a"))
        with memory.database.writing() as connection:
            mine = connection.scalar(text("SELECT pg_backend_pid()"))
        with history.open_history(location) as other, other.database.writing() as connection:
            connection.execute(text(f"SELECT pg_terminate_backend({mine})"))
        memory.add(row("b"))
        assert len(memory.sessions()) == 2


@pytest.mark.parametrize(("failures", "answers"), [(3, True), (99, False)])
def test_a_server_that_is_away_is_waited_for(
    failures: int, answers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connecting is tried again with growing pauses, until a restart should be over."""
    opened = database.Database(str(tmp_path / "x.sqlite"))
    opened.url = opened.url.set(drivername="postgresql+psycopg")
    connect, now = opened._engine.connect, [0.0]
    pauses: list[float] = []

    def flaky() -> Any:
        if len(pauses) < failures:
            raise exc.OperationalError("", None, Exception("the database system is shutting down"))
        return connect()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(opened._engine, "connect", flaky)
    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    if answers:
        with opened.reading() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
        assert pauses == [0.5, 1.0, 2.0]
    else:
        with pytest.raises(HistoryError, match="shutting down"), opened.reading():
            pass
        assert 60 < sum(pauses) <= database.RESTART_S
