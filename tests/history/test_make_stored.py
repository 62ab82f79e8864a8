"""`android_harness.history.make_stored`: what the history stores of a session."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC
from typing import Any

import pytest

from android_harness import latency_stats, provenance
from android_harness.history import make_stored
from android_harness.history.records import StoredSession, history_record_as_json
from tests.harness import sessions
from tests.history.stored import ORIGIN, made


def test_the_figures_are_those_of_the_harness() -> None:
    """The history does not compute figures in another way."""
    measured = sessions.session()
    figures, session = latency_stats.latency_stats(measured), made(measured)
    assert (session.p50_ms, session.p90_ms, session.max_ms) == (
        figures.p50_ms,
        figures.p90_ms,
        figures.max_ms,
    )
    assert (session.p90_low_ms, session.p90_high_ms) == figures.p90_ci_ms
    assert session.started_at.isoformat() == "2026-01-01T00:00:00+00:00"
    assert session.started_at.tzinfo is UTC


def test_the_kind_of_evidence_is_the_harness_word() -> None:
    """A device that did not prove to be a phone stays simulated."""
    assert made().evidence == "measured"
    assert (
        made(sessions.session(identity=sessions.identity(doubts=("It is an emulator.",)))).evidence
        == "simulated"
    )


def test_a_session_has_one_key() -> None:
    """The same evidence gives the same key; another artifact gives another key."""
    assert made() == made()
    assert made().key != made(artifact="ort-fp32").key


def test_flags_make_it_unstable() -> None:
    """The flags are stored with their details."""
    hot = made(sessions.session(after=sessions.state(thermal_status=2)))
    assert not hot.stable
    assert hot.flags[0].startswith("thermal: status 2")
    assert made().stable


def test_wrong_outputs_make_no_baseline() -> None:
    """Wrong outputs make a session unusable, however steady its times are."""
    measured = sessions.session()
    latency = provenance.latency_with_provenance(
        measured,
        latency_stats.latency_stats(measured),
        provenance.ProvenanceCheck(0.5, "NaN in logits"),
        15.0,
    )
    session = make_stored.make_stored_session(measured, latency, ORIGIN, run="n", host="h", budget_ms=15.0)
    assert not session.stable
    assert (session.problem, session.verdict) == ("NaN in logits", "fail")


def test_clocks_and_heat_are_kept() -> None:
    """The worst launch is stored, because it may explain a slow night."""
    slow = sessions.launch(1, clocks=sessions.clocks(cap_khz=2457600, millidegrees=70000))
    session = made(sessions.session(launches=(sessions.launch(0), slow)))
    assert session.clocks["policy7 lowest limit khz"] == 2457600
    assert session.clocks["hottest celsius"] == 70.0
    assert session.clocks["policy7 mean khz"] == pytest.approx(2841600)


def test_infinite_and_nan_figures_are_unknown() -> None:
    """JSON has no NaN."""
    session = made(sqnr_db=math.inf, accuracy=math.nan)
    assert (session.sqnr_db, session.accuracy) == (None, None)


def test_a_device_cannot_smuggle_nul() -> None:
    """PostgreSQL would refuse the whole session."""
    assert made(sessions.session(identity=sessions.identity(model="Mi\0 10"))).device_model == "Mi 10"


def test_a_session_is_json() -> None:
    """The JSON has every field, and the derived values."""
    values = json.loads(json.dumps(history_record_as_json(made())))
    assert set(StoredSession.__dataclass_fields__) <= set(values)
    assert values["line"] == made().series_key.id
    assert values["started_at"] == "2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    "field", ["model", "target", "artifact", "serial", "evidence", "threads", "affinity", "context"]
)
def test_each_part_of_a_series_key_makes_another_series(field: str) -> None:
    """Sessions that differ in one part belong to different series."""
    other: Any = {"threads": 1, "evidence": "host"}.get(field, "other")
    assert replace(made(), **{field: other}).series_key.id != made().series_key.id
