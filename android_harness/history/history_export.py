"""Export sessions or raw samples as CSV or Parquet. A file is written completely or not at all."""

from __future__ import annotations

import csv
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from android_harness.errors import HistoryError, SetupError
from android_harness.history.records import Filter, StoredSession, history_record_as_json

if TYPE_CHECKING:
    from android_harness.history.store import History

SUFFIXES = (".csv", ".parquet")
BATCH = 5000
"""Number of rows written at once."""
PARQUET_EXTRA = "pip install 'export-mobile[parquet]'"
Row = dict[str, Any]
FIRST_COLUMNS = ("key", "run", "host", "started_at")
SIMPLE_TYPES: dict[str, type] = {"str": str, "datetime": str, "int": int, "float": float, "bool": bool}


def export_history(
    history: History, path: Path, wanted: Filter | None = None, *, samples: bool = False
) -> int:
    """Write the sessions that a filter selects, newest first.

    Args:
        history: The history to export from.
        path: A ".csv" or ".parquet" file.
        wanted: The sessions to export.
        samples: Whether to write a row for every timed call instead of one for every session.

    Returns:
        The number of rows written.

    Raises:
        HistoryError: The suffix is unknown, or the file cannot be written.
        SetupError: Parquet needs pyarrow, which is not installed.
    """
    write = {".csv": _history_export_csv, ".parquet": _history_export_parquet}.get(path.suffix.lower())
    if write is None:
        raise HistoryError(
            f"{path.name} ends in neither {' nor '.join(SUFFIXES)}.", "The suffix selects the format."
        )
    sessions = history.iterate(wanted)
    rows = _history_export_calls(history, sessions) if samples else map(history_export_row, sessions)
    with _aside_for_history_export(path) as aside:
        return write(aside, rows, CALL_TYPES if samples else SESSION_TYPES)


@contextmanager
def _aside_for_history_export(path: Path) -> Iterator[Path]:
    aside = path.with_name(f".{path.name}.partial-{os.getpid()}")  # a name that no file of the user has
    try:
        yield aside
        aside.replace(path)
    except OSError as error:
        raise HistoryError(
            f"{path} cannot be written: {error.strerror}.", "Check folder and space."
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def history_export_row(session: StoredSession) -> Row:
    """Return the row of a session, one value for each column; nested values are JSON."""
    values = history_record_as_json(session)
    return {
        name: json.dumps(values[name], sort_keys=True) if SESSION_TYPES[name] is dict else values[name]
        for name in SESSION_TYPES
    }


def _history_export_column_types() -> dict[str, type]:
    """Return the type of each column, from the record's own annotations; the key and the time come first."""
    types: dict[str, type] = dict.fromkeys(FIRST_COLUMNS, str)
    for field in fields(StoredSession):
        annotation = str(field.type).removesuffix(" | None")
        types[field.name] = SIMPLE_TYPES.get(annotation, dict)
    texts: dict[str, type] = dict.fromkeys(("evidence", "verdict", "device", "line"), str)
    return types | texts | {"stable": bool}


SESSION_TYPES = _history_export_column_types()
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


def _history_export_calls(history: History, sessions: Iterable[StoredSession]) -> Iterator[Row]:
    for session in sessions:
        values = history_record_as_json(session)
        common = {
            name: values[name] for name in ("key", "started_at", "model", "artifact", "device", "evidence")
        }
        samples = history.samples(session.key)
        for launch in samples.launches if samples else ():
            pairs = zip(launch.durations_ns, launch.offsets_ns, strict=True)
            for call, (taken, start) in enumerate(pairs):
                times = {"launch": launch.index, "call": call, "duration_ns": taken, "offset_ns": start}
                yield common | times


def _history_export_csv(path: Path, rows: Iterable[Row], types: dict[str, type]) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, types)
        writer.writeheader()
        for values in rows:
            writer.writerow(values)
            count += 1
    return count


def _history_export_parquet(path: Path, rows: Iterable[Row], types: dict[str, type]) -> int:
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
    remaining = iter(rows)
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(itertools.islice(remaining, BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count
