"""Delete old sessions or samples by policy, but never a session that others are still compared with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, func, or_, select

from android_harness.history.records import BASELINE_SESSIONS, history_record_time
from android_harness.history.store import History
from android_harness.history.tables import SAMPLES, SESSIONS

BATCH = 500
"""Rows deleted by one statement; databases limit the number of parameters."""


@dataclass(frozen=True)
class PruningPolicy:
    """What to keep: every session that at least one rule keeps. At least one rule is required."""

    days: int | None = None
    """Keep sessions younger than this."""
    newest: int | None = None
    """Keep this many of the last sessions of every series."""
    samples_only: bool = False
    """Delete only the raw samples, which take most of the space, and keep the figures."""

    def __post_init__(self) -> None:
        if self.days is None and self.newest is None:
            raise ValueError("a policy needs days or newest")


@dataclass(frozen=True)
class Pruned:
    """What a policy would delete, or has deleted."""

    sessions: int
    """Number of sessions that are deleted, or that lose their samples."""
    total: int
    protected: int
    """Number of sessions that no rule keeps, but that are still part of a baseline."""
    oldest: datetime | None
    newest: datetime | None
    packed_bytes: int
    """Size of the deleted raw samples."""


def plan_pruning(history: History, policy: PruningPolicy, at: datetime | None = None) -> Pruned:
    """Return what a policy would delete; nothing is changed.

    Args:
        history: The history to examine.
        policy: What to keep.
        at: The current time; None for now.
    """
    with history.database.reading() as connection:
        return _counted_for_pruning(connection, policy, at or history_record_time())[0]


def prune_history(history: History, policy: PruningPolicy, at: datetime | None = None) -> Pruned:
    """Delete what a policy does not keep, in one transaction, and free the space.

    Returns:
        What was deleted. It is computed again, so sessions added since `plan_pruning` count.
    """
    with history.database.writing() as connection:
        pruned, numbers = _counted_for_pruning(connection, policy, at or history_record_time())
        for start in range(0, len(numbers), BATCH):
            batch = numbers[start : start + BATCH]
            connection.execute(delete(SAMPLES).where(SAMPLES.c.session.in_(batch)))
            if not policy.samples_only:
                connection.execute(delete(SESSIONS).where(SESSIONS.c.number.in_(batch)))
    if numbers:
        history.database.compact()
    return pruned


def _counted_for_pruning(
    connection: Connection, policy: PruningPolicy, at: datetime
) -> tuple[Pruned, list[int]]:
    ranked = _ranked_for_pruning().subquery()
    unwanted = _unwanted_in_pruning(ranked.c, policy, at)
    protected = _protected_from_pruning(ranked.c)
    if policy.samples_only:
        # The figures stay, so nothing needs protection; only sessions that have samples count.
        protected = ranked.c.packed.is_(None)
    rows = connection.execute(
        select(ranked.c.number, ranked.c.started_at, ranked.c.packed).where(unwanted, ~protected)
    ).all()
    count = select(func.count()).select_from(ranked).where(unwanted, protected)
    protected_count = connection.scalar(count) or 0
    times = [row.started_at for row in rows]
    pruned = Pruned(
        sessions=len(rows),
        total=connection.scalar(select(func.count()).select_from(SESSIONS)) or 0,
        protected=0 if policy.samples_only else protected_count,
        oldest=min(times, default=None),
        newest=max(times, default=None),
        packed_bytes=sum(row.packed or 0 for row in rows),
    )
    return pruned, [row.number for row in rows]


def _ranked_for_pruning() -> Select[Any]:
    """Select every session with its rank, from the newest, in its series and among comparable sessions."""
    newest = (SESSIONS.c.started_at.desc(), SESSIONS.c.number.desc())
    eligible = and_(SESSIONS.c.stable.is_(True), SESSIONS.c.regressed.is_(False))
    of_baseline = (SESSIONS.c.line, SESSIONS.c.footing, eligible)
    return select(
        SESSIONS.c.number,
        SESSIONS.c.started_at,
        SESSIONS.c.accepted,
        eligible.label("eligible"),
        func.length(SAMPLES.c.packed).label("packed"),
        func.row_number().over(partition_by=SESSIONS.c.line, order_by=newest).label("rank_in_series"),
        func.row_number().over(partition_by=of_baseline, order_by=newest).label("rank_in_baseline"),
    ).outerjoin(SAMPLES)


def _unwanted_in_pruning(ranked: Any, policy: PruningPolicy, at: datetime) -> ColumnElement[bool]:
    conditions = []
    if policy.days is not None:
        conditions.append(ranked.started_at < at - timedelta(days=policy.days))
    if policy.newest is not None:
        conditions.append(ranked.rank_in_series > policy.newest)
    return and_(*conditions)


def _protected_from_pruning(ranked: Any) -> ColumnElement[bool]:
    """Match what `History.baseline` or `History.earlier` may return for the next session."""
    return or_(
        and_(ranked.eligible, ranked.rank_in_baseline <= BASELINE_SESSIONS),
        ranked.rank_in_series <= BASELINE_SESSIONS,
        ranked.accepted,
    )
