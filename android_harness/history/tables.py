"""The tables, derived from the records: a field is a column of the type that its annotation implies.

A changed field needs a migration in `migrations/versions`; a test compares both. Samples have a table of
their own, so that no listing reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from types import NoneType
from typing import Any, get_args, get_type_hints

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import DateTime, TypeDecorator, TypeEngine

from android_harness.history.records import Gap, StoredSession

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcColumn(TypeDecorator[datetime]):
    """A time that is aware in Python and UTC in the database; SQLite stores no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


NUMBER = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite numbers rows automatically only in a column of type INTEGER."""
HASH = String(32)
TYPES: dict[Any, TypeEngine[Any]] = {
    str: Text(),
    int: Integer(),
    float: Double(),
    bool: Boolean(),
    datetime: UtcColumn(),
}
"""Annotation -> column type; any other annotation becomes JSON."""
TYPES_BY_NAME: dict[str, TypeEngine[Any]] = {
    "key": String(64),
    "device": HASH,
    "artifact_sha256": String(64),
    "source_sha256": String(64),
    "evidence": String(16),
    "verdict": String(16),
    "affinity": String(16),
    "context": String(16),
    "clock_state": String(32),
    "samples": BigInteger(),
    "peak_bytes": BigInteger(),
    "size_bytes": BigInteger(),
}
"""Columns whose annotation does not imply their type or length."""


def _table_columns(record: type) -> Iterator[Column[Any]]:
    """Yield a column for each field of a record."""
    for name, annotation in get_type_hints(record).items():
        options = get_args(annotation)
        nullable = NoneType in options
        kind = TYPES_BY_NAME.get(name) or TYPES.get(options[0] if nullable else annotation) or JSON()
        yield Column(name, kind, nullable=nullable, unique=name == "key" or None)


SESSIONS = Table(
    "sessions",
    METADATA,
    Column("number", NUMBER, primary_key=True),
    Column("content", HASH, nullable=False),  # distinguishes a session added twice from two with one key
    Column("line", HASH, nullable=False),  # StoredSession.series_key
    Column("footing", HASH, nullable=False),  # StoredSession.comparability_key
    Column("device", HASH, nullable=False),
    Column("stable", Boolean(), nullable=False),
    *_table_columns(StoredSession),
)
INDEXES = {
    "ix_sessions_line_started_at": ("line", "started_at", "number"),
    "ix_sessions_line_footing_stable_started_at": ("line", "footing", "stable", "started_at", "number"),
    "ix_sessions_line_accepted_started_at": ("line", "accepted", "started_at"),
    "ix_sessions_started_at": ("started_at", "number"),
    "ix_sessions_model_started_at": ("model", "started_at", "number"),
    "ix_sessions_device_started_at": ("device", "started_at", "number"),
    "ix_sessions_artifact_started_at": ("artifact", "started_at", "number"),
    "ix_sessions_run": ("run",),
}
"""Indexes for series, baselines and listings; `benchmarks/history_growth.py` measures what they gain."""
for _name, _indexed in INDEXES.items():
    Index(_name, *(SESSIONS.c[column] for column in _indexed))

SAMPLES = Table(
    "samples",
    METADATA,
    Column("session", NUMBER, ForeignKey(SESSIONS.c.number, ondelete="CASCADE"), primary_key=True),
    Column("packed", LargeBinary(), nullable=False),
)
GAPS = Table("gaps", METADATA, Column("number", NUMBER, primary_key=True), *_table_columns(Gap))
Index("ix_gaps_at", GAPS.c.at)
