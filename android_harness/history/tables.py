"""The tables, typed. Changing one needs a migration beside those in `migrations/versions`; a test compares.

Samples lie in a table of their own, so that no listing ever reads them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import DateTime, TypeDecorator

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Utc(TypeDecorator[datetime]):
    """Aware on the way in and out, UTC in between; SQLite keeps no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Number = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite numbers rows by itself in a column of type INTEGER only."""
Key = String(64)
Hash = String(32)


class Table(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map: ClassVar[dict[Any, Any]] = {float: Double()}


class SessionRow(Table):
    """A `records.StoredSession`, column by column."""

    __tablename__ = "sessions"

    number: Mapped[int] = mapped_column(Number, primary_key=True)
    key: Mapped[str] = mapped_column(Key, unique=True)
    content: Mapped[str] = mapped_column(Hash)
    """Hash of the whole record: tells the same session added twice from two with one key."""
    line: Mapped[str] = mapped_column(Hash)
    footing: Mapped[str] = mapped_column(Hash)
    device: Mapped[str] = mapped_column(Hash)
    stable: Mapped[bool]
    regressed: Mapped[bool]
    accepted: Mapped[bool]
    run: Mapped[str] = mapped_column(Text)
    host: Mapped[str] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(Utc)
    model: Mapped[str] = mapped_column(Text)
    target: Mapped[str] = mapped_column(Text)
    artifact: Mapped[str] = mapped_column(Text)
    format: Mapped[str] = mapped_column(Text)
    runtime: Mapped[str] = mapped_column(Text)
    backend: Mapped[str] = mapped_column(Text)
    precision: Mapped[str] = mapped_column(Text)
    artifact_sha256: Mapped[str] = mapped_column(String(64))
    source_sha256: Mapped[str] = mapped_column(String(64))
    serial: Mapped[str] = mapped_column(Text)
    device_model: Mapped[str] = mapped_column(Text)
    soc: Mapped[str] = mapped_column(Text)
    chip: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(Text)
    evidence: Mapped[str] = mapped_column(String(16))
    threads: Mapped[int]
    affinity: Mapped[str] = mapped_column(String(16))
    context: Mapped[str] = mapped_column(String(16))
    clock_state: Mapped[str] = mapped_column(String(32))
    runner: Mapped[dict[str, str]] = mapped_column(JSON)
    toolchain: Mapped[dict[str, str]] = mapped_column(JSON)
    before: Mapped[dict[str, Any]] = mapped_column(JSON)
    after: Mapped[dict[str, Any]] = mapped_column(JSON)
    clocks: Mapped[dict[str, float]] = mapped_column(JSON)
    p50_ms: Mapped[float]
    p90_ms: Mapped[float]
    p90_low_ms: Mapped[float]
    p90_high_ms: Mapped[float]
    p95_ms: Mapped[float]
    p99_ms: Mapped[float | None]
    max_ms: Mapped[float]
    mad_ms: Mapped[float]
    first_ms: Mapped[float]
    load_ms: Mapped[float]
    launches: Mapped[int]
    samples: Mapped[int] = mapped_column(BigInteger)
    flags: Mapped[list[str]] = mapped_column(JSON)
    verdict: Mapped[str] = mapped_column(String(16))
    budget_ms: Mapped[float]
    problem: Mapped[str] = mapped_column(Text)
    peak_bytes: Mapped[int | None] = mapped_column(BigInteger)
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    max_error: Mapped[float | None]
    sqnr_db: Mapped[float | None]
    top1_agreement: Mapped[float | None]
    accuracy: Mapped[float | None]


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
"""For what the judge asks (a line, its baseline) and what people list; `benchmarks/history_growth.py`."""
for _name, _columns in INDEXES.items():
    Index(_name, *(SessionRow.__table__.c[column] for column in _columns))


class SamplesRow(Table):
    """`records.Samples`, packed."""

    __tablename__ = "samples"

    session: Mapped[int] = mapped_column(
        Number, ForeignKey("sessions.number", ondelete="CASCADE"), primary_key=True
    )
    packed: Mapped[bytes] = mapped_column(LargeBinary)


class GapRow(Table):
    """A `records.Gap`."""

    __tablename__ = "gaps"

    number: Mapped[int] = mapped_column(Number, primary_key=True)
    key: Mapped[str] = mapped_column(Key, unique=True)
    run: Mapped[str] = mapped_column(Text)
    host: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(Utc, index=True)
    reason: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text)
    target: Mapped[str] = mapped_column(Text)
    artifact: Mapped[str] = mapped_column(Text)
    device: Mapped[str] = mapped_column(Hash)
