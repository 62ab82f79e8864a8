"""Stored sessions for tests, and their locations."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from android_harness import latency_stats, provenance
from android_harness.history import make_stored
from android_harness.history.records import Origin, Point, Samples, StoredSession
from android_harness.records import Session
from tests.harness import sessions

FIRST_NIGHT = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)
ORIGIN = Origin(
    model="mobilenet_v2",
    target="snapdragon865",
    artifact="onnx-fp32",
    format="onnx",
    backend="onnxruntime",
    precision="fp32",
    source_sha256="1" * 64,
    size_bytes=13_998_112,
    sqnr_db=118.5,
    top1_agreement=1.0,
    accuracy=0.71,
    toolchain={"torch": "2.13.0", "onnx": "1.23.2"},
)


def made(measured: Session | None = None, **origin: Any) -> StoredSession:
    """Return the stored form of one of the harness' sessions."""
    measured = measured or sessions.session()
    latency = provenance.latency_with_provenance(
        measured, latency_stats.latency_stats(measured), provenance.ProvenanceCheck(1.3e-6, ""), 15.0
    )
    return make_stored.make_stored_session(
        measured, latency, replace(ORIGIN, **origin), run="night-0", host="farm-a", budget_ms=15.0
    )


ONE = made()


def night(number: int, **changes: Any) -> StoredSession:
    """Return a stable session of its own night, unless changed."""
    own: dict[str, Any] = {
        "key": f"key-{number}",
        "run": f"night-{number}",
        "started_at": FIRST_NIGHT + timedelta(days=number),
    }
    return replace(ONE, **own | changes)


def point(session: StoredSession) -> Point:
    """Return the `History.trend` point of a session."""
    return Point(
        key=session.key,
        run=session.run,
        started_at=session.started_at,
        p50_ms=session.p50_ms,
        p90_ms=session.p90_ms,
        stable=session.stable,
        series_id=session.series_key.id,
    )


@cache
def samples() -> Samples:
    """Return the raw samples of a session."""
    return make_stored.make_stored_samples(sessions.session())
