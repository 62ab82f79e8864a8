"""Records <-> the columns of their tables."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Any

from android_harness.history.records import Gap, Moment, Point, StoredSession, as_json, digest
from android_harness.history.tables import SessionRow

FIELDS = tuple(one.name for one in fields(StoredSession))


def content(session: StoredSession) -> str:
    """A hash that is equal exactly where everything that was measured is."""
    return digest("content", as_json(replace(session, regressed=False, accepted=False)))


def columns(session: StoredSession) -> dict[str, Any]:
    """What a row of `sessions` holds; its number comes from the database."""
    values = {name: getattr(session, name) for name in FIELDS}
    return values | {
        "runner": dict(session.runner),
        "toolchain": dict(session.toolchain),
        "before": asdict(session.before),
        "after": asdict(session.after),
        "clocks": dict(session.clocks),
        "flags": list(session.flags),
        "content": content(session),
        "line": session.series_key.id,
        "footing": session.comparability_key,
        "device": session.device,
        "stable": session.stable,
    }


COLUMNS = tuple(getattr(SessionRow, name) for name in FIELDS)
"""What `session` needs, in the order of `FIELDS`."""
POINT = tuple(getattr(SessionRow, "line" if one.name == "series_id" else one.name) for one in fields(Point))
"""What a `Point` is made of, in its order."""


def session(row: Any) -> StoredSession:
    """Of a row of `COLUMNS`."""
    values = dict(zip(FIELDS, row, strict=True))
    return StoredSession(
        **values
        | {
            "before": _moment(values["before"]),
            "after": _moment(values["after"]),
            "flags": tuple(values["flags"]),
        }
    )


def _moment(values: dict[str, Any]) -> Moment:
    return Moment(
        **values
        | {"scaling_max_khz": tuple(values["scaling_max_khz"]), "governors": tuple(values["governors"])}
    )


def gap(row: Any) -> Gap:
    """Of a row of `gaps`."""
    return Gap(**{one.name: getattr(row, one.name) for one in fields(Gap)})
