"""Sessions or raw samples as CSV or Parquet, for whatever people analyse them with; whole or not at all."""

from __future__ import annotations

import csv
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from android_harness.errors import HistoryError, SetupError
from android_harness.history.records import Filter, StoredSession, as_json

if TYPE_CHECKING:
    from android_harness.history.store import History

SUFFIXES = (".csv", ".parquet")
BATCH = 5000
"""Rows written at once."""
PARQUET_EXTRA = "pip install 'export-mobile[parquet]'"
Row = dict[str, Any]


def export(history: History, path: Path, wanted: Filter | None = None, *, samples: bool = False) -> int:
    """Write what a filter lets through, newest first; the file appears whole.

    Args:
        history: Of which.
        path: A ".csv" or ".parquet".
        wanted: Which sessions.
        samples: A row for every timed call instead of one for every session.

    Returns:
        Rows written.

    Raises:
        HistoryError: The suffix is another, or the file cannot be written.
        SetupError: Parquet without pyarrow.
    """
    write = {".csv": _write_csv, ".parquet": _write_parquet}.get(path.suffix.lower())
    if write is None:
        raise HistoryError(
            f"{path.name} ends in neither {' nor '.join(SUFFIXES)}.", "Its suffix says the format."
        )
    sessions = history.iterate(wanted)
    rows = _calls(history, sessions) if samples else map(row, sessions)
    with _aside(path) as aside:
        return write(aside, rows, CALL_TYPES if samples else SESSION_TYPES)


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    aside = path.with_name(f".{path.name}.partial-{os.getpid()}")  # no name that a file of the user's has
    try:
        yield aside
        aside.replace(path)
    except OSError as error:
        raise HistoryError(
            f"{path} cannot be written: {error.strerror}.", "Check folder and space."
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def row(session: StoredSession) -> Row:
    """One value a column; what is nested is JSON."""
    found = as_json(session)
    return {
        name: json.dumps(found[name], sort_keys=True) if SESSION_TYPES[name] is dict else found[name]
        for name in SESSION_TYPES
    }


def _types() -> dict[str, type]:
    """Column -> what it holds, from the record's own annotations."""
    found: dict[str, type] = {}
    for name, words in StoredSession.__annotations__.items():
        plain = str(words).removesuffix(" | None")
        found[name] = {"str": str, "datetime": str, "int": int, "float": float, "bool": bool}.get(plain, dict)
    texts: dict[str, type] = dict.fromkeys(("evidence", "verdict", "device", "line"), str)
    return found | texts | {"stable": bool}


SESSION_TYPES = _types()
CALL_TYPES: dict[str, type] = {
    "key": str,
    "started_at": str,
    "model": str,
    "artifact": str,
    "device": str,
    "evidence": str,
    "launch": int,
    "call": int,
    "duration_ns": int,
    "offset_ns": int,
}


def _calls(history: History, sessions: Iterable[StoredSession]) -> Iterator[Row]:
    for session in sessions:
        found = as_json(session)
        common = {
            name: found[name] for name in ("key", "started_at", "model", "artifact", "device", "evidence")
        }
        samples = history.samples(session.key)
        for launch in samples.launches if samples else ():
            pairs = zip(launch.durations_ns, launch.offsets_ns, strict=True)
            for call, (taken, start) in enumerate(pairs):
                times = {"launch": launch.index, "call": call, "duration_ns": taken, "offset_ns": start}
                yield common | times


def _write_csv(path: Path, rows: Iterable[Row], types: dict[str, type]) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, types)
        writer.writeheader()
        for one in rows:
            writer.writerow(one)
            count += 1
    return count


def _write_parquet(path: Path, rows: Iterable[Row], types: dict[str, type]) -> int:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise SetupError(
            "Parquet needs the package pyarrow.", f"Run `{PARQUET_EXTRA}`, or write a .csv."
        ) from error
    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), dict: pa.string()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in types.items()])
    count = 0
    every = iter(rows)
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while some := list(itertools.islice(every, BATCH)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))
            count += len(some)
    return count
