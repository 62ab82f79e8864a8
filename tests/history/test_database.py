"""`android_harness.history.database`: locations, and a clear message if one cannot be used."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from android_harness import history
from android_harness.errors import HistoryError, SetupError
from android_harness.history import database
from android_harness.history.store import History
from tests.history.stored import night


def test_a_path_is_a_file(tmp_path: Path) -> None:
    """The path's folders are created, and characters that are special in a URL are not special."""
    path = tmp_path / "new folder" / "a?b#c%20.sqlite"
    history.open_history(path).close()
    assert path.is_file()


def test_the_default_is_in_the_users_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The location follows XDG, or `EXPORT_MOBILE_HISTORY`."""
    monkeypatch.delenv("EXPORT_MOBILE_HISTORY", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert history.default_history_location() == str(tmp_path / "export-mobile" / "history.sqlite")
    monkeypatch.setenv("EXPORT_MOBILE_HISTORY", "postgresql://lab/history")
    assert history.default_history_location() == "postgresql://lab/history"


@pytest.mark.parametrize("name", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_needs_no_drivers_name(name: str) -> None:
    """The package installs one driver."""
    assert database.parse_database_url(f"{name}://a@b/c").drivername == "postgresql+psycopg"


@pytest.mark.parametrize("location", ["mysql://a@b/c", "sqlite://", "sqlite:///:memory:", "://"])
def test_other_locations_are_refused(location: str) -> None:
    """This includes a history in memory, which would be lost."""
    with pytest.raises(HistoryError):
        history.open_history(location)


def test_a_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages end up in logs that others read."""
    monkeypatch.setattr(database, "RESTART_S", 0.0)  # nothing restarts here
    with pytest.raises(HistoryError) as caught:
        history.open_history("postgresql://me:secret@127.0.0.1:1/nothing?connect_timeout=1")
    assert "secret" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code says that something is not installed."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SetupError, match=r"export-mobile\[postgresql\]"):
        history.open_history("postgresql://a@b/c")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who only exports has no SQLAlchemy."""
    code = (
        "import sys\nsys.modules['sqlalchemy'] = None\nfrom android_harness import errors, history\n"
        "try:\n    history.open_history('x')\nexcept errors.SetupError as error:\n    print(error)\n"
    )
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs the package sqlalchemy. Run `pip install 'export-mobile[history]'`" in completed.stdout


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """A log file, for example, is not changed."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database " * 100)
    with pytest.raises(HistoryError, match=r"notes\.txt cannot be used: file is not a database"):
        history.open_history(path)
    assert path.read_text().startswith("not a database")


def test_a_missing_file_may_be_an_error(tmp_path: Path) -> None:
    """A command that only reads must not create an empty history at a mistyped location."""
    with pytest.raises(HistoryError, match="There is no history at"):
        History(str(tmp_path / "typo.sqlite"), must_exist=True)
    assert list(tmp_path.iterdir()) == []


def test_damaged_samples_are_an_error(tmp_path: Path) -> None:
    """Damaged samples are not read as numbers."""
    path = tmp_path / "history.sqlite"
    with history.open_history(path) as memory:
        memory.add(night(0), None)
        with sqlite3.connect(path) as raw:
            raw.execute("INSERT INTO samples VALUES (1, ?)", (b"EMS1nonsense",))
        raw.close()
        with pytest.raises(HistoryError, match=r"samples of session key-0 .* are damaged"):
            memory.samples("key-0")
