"""Convert records to rows of their tables, and back."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Any

from android_harness.history.records import (
    Gap,
    Point,
    StoredSession,
    history_record_as_json,
    history_record_digest,
)
from android_harness.history.tables import SESSIONS
from android_harness.records import Moment

FIELDS = tuple(entry.name for entry in fields(StoredSession))
COLUMNS = tuple(SESSIONS.c[name] for name in FIELDS)
"""The columns that `session_from_table_row` needs, in the order of `FIELDS`."""
POINT = tuple(SESSIONS.c["line" if entry.name == "series_id" else entry.name] for entry in fields(Point))
"""The columns of a `Point`, in the order of its fields."""


def table_row_content_hash(session: StoredSession) -> str:
    """Return a hash that is equal exactly if everything measured is equal."""
    return history_record_digest(
        "content", history_record_as_json(replace(session, regressed=False, accepted=False))
    )


def table_row_columns(session: StoredSession) -> dict[str, Any]:
    """Return the values of a session's row, without the number that the database assigns."""
    values = {name: getattr(session, name) for name in FIELDS}
    return values | {
        "before": asdict(session.before),
        "after": asdict(session.after),
        "content": table_row_content_hash(session),
        "line": session.series_key.id,
        "footing": session.comparability_key,
        "device": session.device,
        "stable": session.stable,
    }


def session_from_table_row(row: Any) -> StoredSession:
    """Make a session from a row of `COLUMNS`."""
    values = dict(zip(FIELDS, row, strict=True))
    values["before"], values["after"] = (
        _moment_from_table_row(values["before"]),
        _moment_from_table_row(values["after"]),
    )
    return StoredSession(**values | {"flags": tuple(values["flags"])})


def _moment_from_table_row(values: dict[str, Any]) -> Moment:
    lists = ("scaling_max_khz", "governors")
    return Moment(**values | {name: tuple(values[name]) for name in lists})


def gap_from_table_row(row: Any) -> Gap:
    """Make a gap from a row of `gaps`."""
    return Gap(**{entry.name: getattr(row, entry.name) for entry in fields(Gap)})
