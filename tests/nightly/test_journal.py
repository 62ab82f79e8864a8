"""`exporter.nightly.journal`: one night at a time, and which one it is."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from exporter.errors import OutputError
from exporter.nightly import journal, night_measuring

NOW = datetime(2026, 3, 4, 2, 0, tzinfo=UTC)
HOURS = 18.0


def night(out: Path, hours_ago: float, *, ended: bool = False) -> str:
    """Make a night that began before `NOW`."""
    begun = journal.begin_journal(out, HOURS, fresh=True, now=NOW - timedelta(hours=hours_ago))
    if ended:
        journal.end_journal(begun, {})
    return begun.id


def test_the_lock_names_its_process(tmp_path: Path) -> None:
    """The lock holds the number of the current process, not of an earlier one."""
    (tmp_path / ".lock").write_text("99999999")
    with journal.lock_journal(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_the_last_of_several_that_were_cut_off_goes_on(tmp_path: Path) -> None:
    """The last interrupted night is resumed; older ones are abandoned, finished ones are not."""
    abandoned, _, last = night(tmp_path, 6), night(tmp_path, 5, ended=True), night(tmp_path, 4)
    begun = journal.begin_journal(tmp_path, HOURS, fresh=False, now=NOW)
    assert (begun.id, begun.resumed, begun.abandoned) == (last, True, (abandoned,))


@pytest.mark.parametrize(("hours_ago", "fresh"), [(17.9, True), (18.1, False)])
def test_a_new_one_abandons_all_that_were_cut_off(tmp_path: Path, hours_ago: float, fresh: bool) -> None:
    """A new night, requested or due, abandons all interrupted ones."""
    old = [night(tmp_path, hours) for hours in (40, hours_ago)]
    begun = journal.begin_journal(tmp_path, HOURS, fresh=fresh, now=NOW)
    assert (begun.id, begun.resumed, begun.abandoned) == ("2026-03-04T02-00-00Z", False, tuple(old))


def test_two_nights_of_one_second_have_two_names(tmp_path: Path) -> None:
    """Two nights that begin in one second do not overwrite each other."""
    assert night(tmp_path, 0) != night(tmp_path, 0)


def test_only_nights_are_nights(tmp_path: Path) -> None:
    """Nights are listed oldest first; other files are ignored, and survive forgetting."""
    old, new = night(tmp_path, 2, ended=True), night(tmp_path, 1)
    (tmp_path / journal.NIGHTS / "notes").mkdir()
    (tmp_path / journal.NIGHTS / "2026-01-01T00-00-00Z").touch()
    assert [folder.name for folder in journal.nights_in_journal(tmp_path)] == [old, new]
    assert [folder.name for folder in journal.ended_nights_in_journal(tmp_path)] == [old]
    assert journal.forget_journaled_nights(tmp_path, 1) == (old,)
    assert sorted(path.name for path in (tmp_path / journal.NIGHTS).iterdir()) == [
        "2026-01-01T00-00-00Z",
        new,
        "notes",
    ]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    """An unwritable folder gives one message before anything is measured."""
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match="cannot be written"),
        journal.lock_journal(tmp_path / "file" / "out"),
    ):
        pass
    (tmp_path / journal.NIGHTS).touch()
    with pytest.raises(OutputError, match="cannot be created"):
        night(tmp_path, 0)


def test_a_night_keeps_the_name_of_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart under another hostname, what the night has measured still belongs to it."""
    monkeypatch.setattr("platform.node", lambda: "lab-1")
    first = journal.begin_journal(tmp_path, HOURS, fresh=False, now=NOW)
    monkeypatch.setattr("platform.node", lambda: "localhost")
    second = journal.begin_journal(tmp_path, HOURS, fresh=False, now=NOW)
    assert second.resumed
    cell = ("net", "snapdragon865", "onnx-fp32", "R58N")
    assert first.host == second.host == "lab-1"
    assert night_measuring.session_key_of_night_measuring(
        first, cell, 0
    ) == night_measuring.session_key_of_night_measuring(second, cell, 0)
