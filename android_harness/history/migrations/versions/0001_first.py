"""The first tables: sessions, their samples, gaps.

Revision ID: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
TEXTS = [
    "run",
    "host",
    "model",
    "target",
    "artifact",
    "format",
    "runtime",
    "backend",
    "precision",
    "serial",
    "device_model",
]
TEXTS += ["soc", "chip", "fingerprint", "problem"]
JSONS = ["runner", "toolchain", "before", "after", "clocks", "flags"]
FIGURES = [
    "p50_ms",
    "p90_ms",
    "p90_low_ms",
    "p90_high_ms",
    "p95_ms",
    "max_ms",
    "mad_ms",
    "first_ms",
    "load_ms",
    "budget_ms",
]
MAYBE = ["p99_ms", "max_error", "sqnr_db", "top1_agreement", "accuracy"]
INDEXES = (
    ("line_started_at", ["line", "started_at", "number"]),
    ("line_footing_stable_started_at", ["line", "footing", "stable", "started_at", "number"]),
    ("line_accepted_started_at", ["line", "accepted", "started_at"]),
    ("started_at", ["started_at", "number"]),
    ("model_started_at", ["model", "started_at", "number"]),
    ("device_started_at", ["device", "started_at", "number"]),
    ("artifact_started_at", ["artifact", "started_at", "number"]),
    ("run", ["run"]),
)


def upgrade() -> None:
    _sessions()
    op.create_table(
        "samples",
        sa.Column("session", NUMBER, nullable=False),
        sa.Column("packed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session"], ["sessions.number"], name="fk_samples_session", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session", name="pk_samples"),
    )
    op.create_table(
        "gaps",
        sa.Column("number", NUMBER, nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("device", sa.String(32), nullable=False),
        *(_text(name) for name in ("run", "host", "reason", "model", "target", "artifact")),
        sa.PrimaryKeyConstraint("number", name="pk_gaps"),
        sa.UniqueConstraint("key", name="uq_gaps_key"),
    )
    op.create_index("ix_gaps_at", "gaps", ["at"])


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("number", NUMBER, nullable=False),
        *(_hash(name, length) for name, length in (("key", 64), ("content", 32), ("line", 32))),
        *(_hash(name, length) for name, length in (("footing", 32), ("device", 32))),
        *(sa.Column(name, sa.Boolean(), nullable=False) for name in ("stable", "regressed", "accepted")),
        sa.Column("started_at", TIME, nullable=False),
        *(_text(name) for name in TEXTS),
        *(_hash(name, 64) for name in ("artifact_sha256", "source_sha256")),
        *(_hash(name, 16) for name in ("evidence", "affinity", "context", "verdict")),
        _hash("clock_state", 32),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("threads", "launches")),
        sa.Column("samples", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.JSON(), nullable=False) for name in JSONS),
        *(sa.Column(name, sa.Double(), nullable=False) for name in FIGURES),
        *(sa.Column(name, sa.Double(), nullable=True) for name in MAYBE),
        *(sa.Column(name, sa.BigInteger(), nullable=True) for name in ("peak_bytes", "size_bytes")),
        sa.PrimaryKeyConstraint("number", name="pk_sessions"),
        sa.UniqueConstraint("key", name="uq_sessions_key"),
    )
    for name, columns in INDEXES:
        op.create_index(f"ix_sessions_{name}", "sessions", columns)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _hash(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False)
