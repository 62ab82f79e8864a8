"""Tests of `export-mobile history`: list, show, export, prune and accept, as a user types them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from android_harness import history
from android_harness.errors import HistoryError
from android_harness.history.records import Gap
from exporter.cli.app import app
from exporter.errors import UsageError
from tests.history.stored import FIRST_NIGHT, night, samples

NIGHTS = 30
CHANGED = 24


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Store a phone that became a tenth slower with a runtime update after 24 nights, and some noise."""
    path = tmp_path / "history.sqlite"
    monkeypatch.setenv("EXPORT_MOBILE_HISTORY", str(path))
    monkeypatch.setenv("COLUMNS", "100")
    new = {"p50_ms": 8.8, "p90_ms": 8.9, "runtime": "onnxruntime 1.33.0"}
    with history.open_history(path) as memory:
        for number in range(NIGHTS):
            memory.add(night(number, **(new if number >= CHANGED else {})), samples())
        memory.add(night(40, serial="127.0.0.1:5555", evidence="simulated", flags=("trend: up",)))
        at = FIRST_NIGHT + timedelta(days=35)
        memory.add_gap(Gap("gap-1", "night-35", "farm-a", at, "No device is ready."))
    return path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["history", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def parsed(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


@pytest.mark.parametrize("command", [(), ("list",)])
def test_it_lists_newest_first(place: Path, command: tuple[str, ...]) -> None:
    """Sessions and gaps are one table with their problems, also without a subcommand."""
    lines = run(*command).splitlines()
    assert "SIMULATED, trend" in lines[2]
    assert "No device is ready" in "".join(lines[3:5])
    assert "key-29" in "".join(lines[4:6])


class TestToldApart:
    """Some rows of a list are distinguished only by a serial or a target."""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EXPORT_MOBILE_HISTORY", str(tmp_path / "history.sqlite"))
        monkeypatch.setenv("COLUMNS", "200")

    def listed(self, *changes: dict[str, str]) -> str:
        with history.open_history() as memory:
            for number, change in enumerate(changes):
                memory.add(night(number, **change))
        return run()

    def test_two_phones_of_one_model(self) -> None:
        """The rows of two alike phones show serials; another phone's row does not."""
        output = self.listed({"serial": "one"}, {"serial": "two"}, {"serial": "three", "device_model": "X"})
        assert "Mi 10T Pro one" in output
        assert "Mi 10T Pro two" in output
        assert "three" not in output

    def test_two_targets(self) -> None:
        """Rows show the target when there are several."""
        output = self.listed({"target": "pixel8"}, {})
        assert "mobilenet_v2 for pixel8" in output
        assert "mobilenet_v2 for snapdragon865" in output

    def test_what_would_be_the_same_in_every_row(self) -> None:
        """A value that all rows share is not shown."""
        output = self.listed({}, {})
        assert "R5CR30ABCDE" not in output
        assert "snapdragon865" not in output


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (("--model", "mobilenet_v2"), NIGHTS + 1),
        (("--model", "other"), 0),
        (("--target", "other"), 0),
        (("--artifact", "ort-fp32"), 0),
        (("--device", "127.0.0.1:5555"), 1),
        (("--evidence", "measured"), NIGHTS),
        (("--run", "night-3"), 1),
        (("--since", "2026-01-20"), 12),
        (("--until", "2026-01-20"), 19),
        (("--since", "1h"), 0),
        (("--stable",), NIGHTS),
        (("--unstable",), 1),
        (("--newest", "3"), 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_every_filter_filters(place: Path, arguments: tuple[str, ...], count: int) -> None:
    """Every filter does what its help says."""
    extra = () if "--newest" in arguments else ("--newest", "1000")
    assert len(parsed(*arguments, *extra)["sessions"]) == count


def test_nothing_that_fits_is_said(place: Path) -> None:
    """An empty result is a sentence instead of an empty table."""
    assert run("--model", "other", "--until", "2026-01-01") == "The history has nothing that fits.\n"


def test_show_tells_what_changed(place: Path) -> None:
    """`show` prints facts, the judgement, and the step with its cause."""
    output = " ".join(run("show", "key-27").split())
    assert "R5CR30ABCDE, Mi 10T Pro" in output
    assert "no baseline: 3 stable sessions" in output
    assert "2026-01-25: 9.4% slower, from 8.04 to 8.80 ms." in output
    assert "The runtime went from onnxruntime 1.22.0 to onnxruntime 1.33.0." in output


def test_show_has_everything_for_machines(place: Path) -> None:
    """The JSON has raw samples, judgement, change-points and their causes."""
    shown = parsed("show", "key-27")
    assert shown["judgement"]["status"] == "no_baseline"
    assert shown["changes"][0]["causes"][0]["kind"] == "tool"
    assert shown["changes"][0]["started_at"] == "2026-01-25T03:00:00+00:00"
    assert shown["durations_ns"] == [list(launch.durations_ns) for launch in samples().launches]


def test_prune_first_only_says(place: Path) -> None:
    """`prune` only reports without --yes."""
    output = run("prune", "--keep-newest", "5")
    assert "Would delete 14 of 31 sessions, 2026-01-01 to 2026-01-14" in output
    assert "11 as old stay" in output
    assert len(parsed("list", "--newest", "99")["sessions"]) == 31
    assert "Deleted 14 of 31 sessions" in run("prune", "--keep-newest", "5", "--yes")
    assert len(parsed("list", "--newest", "99")["sessions"]) == 17
    assert parsed("prune", "--keep-days", "0")["sessions"] == 0


def test_prune_needs_a_rule(place: Path) -> None:
    """`prune` refuses to run without a rule."""
    with pytest.raises(UsageError, match="No rule says what to keep"):
        run("prune", "--yes")


def test_samples_alone_are_forgotten(place: Path) -> None:
    """Sessions whose samples were deleted are still listed."""
    assert "Would delete the raw samples of 29 of 31" in run("prune", "--keep-newest", "1", "--samples-only")


@pytest.mark.parametrize("name", ["all.csv", "all.parquet"])
def test_sessions_are_exported(place: Path, tmp_path: Path, name: str) -> None:
    """The export takes the filters of the list."""
    assert run("export", str(tmp_path / name), "--evidence", "simulated") == f"1 rows in {tmp_path / name}.\n"
    assert (tmp_path / name).stat().st_size > 0
    assert parsed("export", str(tmp_path / name), "--samples")["rows"] == NIGHTS * 1500


def test_a_level_is_accepted(place: Path) -> None:
    """A key may be shortened while it is unique."""
    output = run("accept", "key-25")
    assert "onnx-fp32 on R5CR30ABCDE: the baseline starts at the 8.8 ms of 2026-01-26 03:00 UTC" in output
    assert parsed("show", "key-25")["accepted"]


def test_a_mistyped_place_is_an_error(tmp_path: Path) -> None:
    """A mistyped place creates no empty history."""
    with pytest.raises(HistoryError, match="There is no history"):
        run("--history", str(tmp_path / "typo.sqlite"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [("--evidence", "real"), ("--since", "yesterday"), ("--until", "2026-13-01")]
)
def test_a_mistyped_filter_is_an_error(place: Path, arguments: tuple[str, ...]) -> None:
    """The message says what was expected."""
    with pytest.raises(UsageError, match="expected"):
        run(*arguments)
