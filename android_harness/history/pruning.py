"""Forgetting by policy, and never what others are still held against."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, func, or_, select

from android_harness.history.records import BASELINE_SESSIONS, now
from android_harness.history.store import History
from android_harness.history.tables import SamplesRow, SessionRow

BATCH = 500
"""Rows deleted by one statement: databases limit their parameters."""


@dataclass(frozen=True)
class Policy:
    """What is kept: whatever any rule keeps. At least one rule must be given."""

    days: int | None = None
    """Younger than so many."""
    newest: int | None = None
    """The last so many of every line."""
    samples_only: bool = False
    """Forget the raw samples, which take most of the space, and keep the figures."""

    def __post_init__(self) -> None:
        if self.days is None and self.newest is None:
            raise ValueError("a policy needs days or newest")


@dataclass(frozen=True)
class Pruned:
    """What a policy takes, or took."""

    sessions: int
    """That lose themselves, or their samples."""
    total: int
    protected: int
    """That no rule keeps, but that others are still held against."""
    oldest: datetime | None
    newest: datetime | None
    packed_bytes: int
    """Of raw samples."""


def plan(history: History, policy: Policy, at: datetime | None = None) -> Pruned:
    """What a policy would take; nothing is changed.

    Args:
        history: Of which.
        policy: What is kept.
        at: Now, when None.
    """
    with history.database.reading() as connection:
        return _counted(connection, policy, at or now())[0]


def prune(history: History, policy: Policy, at: datetime | None = None) -> Pruned:
    """Forget what a policy does not keep, in one transaction, and give the space back.

    Returns:
        What is gone: computed anew, so what came in since `plan` counts.
    """
    with history.database.writing() as connection:
        found, numbers = _counted(connection, policy, at or now())
        for start in range(0, len(numbers), BATCH):
            some = numbers[start : start + BATCH]
            connection.execute(delete(SamplesRow).where(SamplesRow.session.in_(some)))
            if not policy.samples_only:
                connection.execute(delete(SessionRow).where(SessionRow.number.in_(some)))
    if numbers:
        history.database.compact()
    return found


def _counted(connection: Connection, policy: Policy, at: datetime) -> tuple[Pruned, list[int]]:
    places = _places().subquery()
    unwanted = _unwanted(places.c, policy, at)
    held = _held(places.c)
    if policy.samples_only:  # figures stay, so nothing has to be protected, and only what has samples counts
        held = places.c.packed.is_(None)
    rows = connection.execute(
        select(places.c.number, places.c.started_at, places.c.packed).where(unwanted, ~held)
    ).all()
    protected = connection.scalar(select(func.count()).select_from(places).where(unwanted, held)) or 0
    times = [row.started_at for row in rows]
    pruned = Pruned(
        sessions=len(rows),
        total=connection.scalar(select(func.count()).select_from(SessionRow)) or 0,
        protected=0 if policy.samples_only else protected,
        oldest=min(times, default=None),
        newest=max(times, default=None),
        packed_bytes=sum(row.packed or 0 for row in rows),
    )
    return pruned, [row.number for row in rows]


def _places() -> Select[Any]:
    """Every session with its place, from the newest, in its line and among its baselines."""
    newest = (SessionRow.started_at.desc(), SessionRow.number.desc())
    eligible = and_(SessionRow.stable.is_(True), SessionRow.regressed.is_(False))
    of_baseline = (SessionRow.line, SessionRow.footing, eligible)
    return select(
        SessionRow.number,
        SessionRow.started_at,
        SessionRow.accepted,
        eligible.label("eligible"),
        func.length(SamplesRow.packed).label("packed"),
        func.row_number().over(partition_by=SessionRow.line, order_by=newest).label("in_line"),
        func.row_number().over(partition_by=of_baseline, order_by=newest).label("in_baseline"),
    ).outerjoin(SamplesRow)


def _unwanted(places: Any, policy: Policy, at: datetime) -> ColumnElement[bool]:
    conditions = []
    if policy.days is not None:
        conditions.append(places.started_at < at - timedelta(days=policy.days))
    if policy.newest is not None:
        conditions.append(places.in_line > policy.newest)
    return and_(*conditions)


def _held(places: Any) -> ColumnElement[bool]:
    """What `History.baseline` or `History.earlier` may still give for the next session."""
    return or_(
        and_(places.eligible, places.in_baseline <= BASELINE_SESSIONS),
        places.in_line <= BASELINE_SESSIONS,
        places.accepted,
    )
