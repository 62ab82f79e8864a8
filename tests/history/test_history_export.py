"""`android_harness.history.history_export`: CSV and Parquet contain the same rows."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from android_harness.errors import HistoryError, SetupError
from android_harness.history.history_export import SESSION_TYPES, export_history
from android_harness.history.records import Filter, history_record_as_json
from android_harness.history.store import History
from tests.history.stored import night, samples


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        return rows
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def filled(memory: History) -> History:
    memory.add(night(0), samples())
    memory.add(night(1, model='a, "b"\n=c', accuracy=None))
    return memory


def test_parquet_holds_the_sessions(filled: History, tmp_path: Path) -> None:
    """Columns have their types, and nested values are JSON."""
    path = tmp_path / "all.parquet"
    assert export_history(filled, path) == 2
    second, first = read(path)
    known = json.loads(json.dumps(history_record_as_json(night(0))))
    for name, kind in SESSION_TYPES.items():
        assert (json.loads(first[name]) if kind is dict else first[name]) == known[name], name
    assert second["model"] == 'a, "b"\n=c'
    assert second["accuracy"] is None


def test_csv_holds_the_same(filled: History, tmp_path: Path) -> None:
    """Values are text, and an unknown figure is empty."""
    export_history(filled, tmp_path / "all.csv")
    export_history(filled, tmp_path / "all.parquet")
    for text, typed in zip(read(tmp_path / "all.csv"), read(tmp_path / "all.parquet"), strict=True):
        assert text == {name: "" if value is None else str(value) for name, value in typed.items()}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_samples_are_a_row_each(filled: History, tmp_path: Path, suffix: str) -> None:
    """The rows of sessions with samples are in order."""
    path = tmp_path / f"samples{suffix}"
    launches = samples().launches
    assert export_history(filled, path, samples=True) == sum(len(launch.durations_ns) for launch in launches)
    rows = read(path)
    assert [int(row["duration_ns"]) for row in rows[:300]] == list(launches[0].durations_ns)
    assert [int(row["offset_ns"]) for row in rows[:300]] == list(launches[0].offsets_ns)
    assert {row["key"] for row in rows} == {"key-0"}


def test_a_filter_holds(filled: History, tmp_path: Path) -> None:
    """The filter selects the same sessions as in a list."""
    assert export_history(filled, tmp_path / "one.csv", Filter(model="mobilenet_v2")) == 1


def test_another_suffix_is_refused(filled: History, tmp_path: Path) -> None:
    """The error names the known suffixes."""
    with pytest.raises(HistoryError, match=r"neither \.csv nor \.parquet"):
        export_history(filled, tmp_path / "all.xlsx")


def test_a_file_that_fails_leaves_the_old_one(filled: History, tmp_path: Path) -> None:
    """No temporary file remains."""
    path = tmp_path / "all.csv"
    path.write_text("old")
    filled.database.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("android_harness.history.history_export.history_export_row", lambda session: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export_history(filled, path)
    assert [path.name for path in tmp_path.iterdir() if "all.csv" in path.name] == ["all.csv"]
    assert path.read_text() == "old"


def test_a_file_of_the_users_beside_it_stays(filled: History, tmp_path: Path) -> None:
    """The temporary file has a name that nobody else uses."""
    beside = tmp_path / "all.csv.new"
    beside.write_text("mine")
    export_history(filled, tmp_path / "all.csv")
    assert beside.read_text() == "mine"


def test_a_missing_pyarrow_names_the_extra(
    filled: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CSV export still works."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SetupError, match=r"export-mobile\[parquet\]"):
        export_history(filled, tmp_path / "all.parquet")
    assert export_history(filled, tmp_path / "all.csv") == 2


def test_a_folder_that_is_not_there_is_an_error(filled: History, tmp_path: Path) -> None:
    """The error has the path and no traceback."""
    with pytest.raises(HistoryError, match=r"nowhere/all\.csv cannot be written"):
        export_history(filled, tmp_path / "nowhere" / "all.csv")
