"""From what the harness measured to what the history remembers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from android_harness import clocks, provenance
from android_harness.history.records import LaunchSamples, Moment, Samples, StoredSession, key_of
from android_harness.records import Latency, MeasuredLatency, Session, State


@dataclass(frozen=True)
class Origin:
    """What the measured artifact is, and what is known of it without a device."""

    model: str
    """The model card's name."""
    target: str
    artifact: str
    format: str
    backend: str
    precision: str
    source_sha256: str
    size_bytes: int | None = None
    sqnr_db: float | None = None
    top1_agreement: float | None = None
    accuracy: float | None = None
    toolchain: Mapping[str, str] = field(default_factory=dict)


def stored(
    session: Session,
    latency: Latency,
    origin: Origin,
    *,
    run: str,
    host: str,
    budget_ms: float,
    key: str = "",
) -> StoredSession:
    """A session as it is remembered.

    Args:
        session: The raw evidence.
        latency: `provenance.latency` of it: the figures, and what kind of evidence they are.
        origin: Of the artifact.
        run: The night.
        host: The machine the device is plugged into.
        budget_ms: What p90 was held against.
        key: Its own; made of run, device, model, target, artifact and start when empty.
    """
    identity, figures, first = session.identity, latency.figures, session.launches[0]
    named = (run, host, identity.serial, origin.model, origin.target, origin.artifact, session.started_at)
    low, high = figures.p90_ci_ms
    return StoredSession(
        key=key or key_of(*named),
        run=run,
        host=host,
        started_at=datetime.fromisoformat(session.started_at).astimezone(UTC),
        model=origin.model,
        target=origin.target,
        artifact=origin.artifact,
        format=origin.format,
        runtime=_clean(first.runtime),
        backend=origin.backend,
        precision=origin.precision,
        artifact_sha256=session.task.sha256,
        source_sha256=origin.source_sha256,
        serial=_clean(identity.serial),
        device_model=_clean(identity.model),
        soc=identity.soc,
        chip=identity.chip,
        fingerprint=_clean(identity.fingerprint),
        evidence=latency.evidence,
        threads=session.config.threads,
        affinity=session.config.affinity,
        clock_state=clocks.state(session),
        runner={name: _clean(str(value)) for name, value in first.runner.items()},
        toolchain=dict(origin.toolchain),
        before=moment(session.before),
        after=moment(session.after),
        clocks=dict(_clocks(session)),
        p50_ms=figures.p50_ms,
        p90_ms=figures.p90_ms,
        p90_low_ms=low,
        p90_high_ms=high,
        p95_ms=figures.p95_ms,
        p99_ms=figures.p99_ms,
        max_ms=figures.max_ms,
        mad_ms=figures.mad_ms,
        first_ms=figures.first_ms,
        load_ms=figures.load_ms,
        launches=figures.launches,
        samples=figures.samples,
        flags=tuple(_clean(flag) for flag in figures.flags),
        verdict=provenance.verdict(latency),
        budget_ms=latency.budget_ms if isinstance(latency, MeasuredLatency) else budget_ms,
        problem=_clean(latency.problem),
        peak_bytes=figures.peak_bytes,
        size_bytes=origin.size_bytes,
        max_error=_finite(latency.max_error),
        sqnr_db=_finite(origin.sqnr_db),
        top1_agreement=_finite(origin.top1_agreement),
        accuracy=_finite(origin.accuracy),
    )


def moment(state: State) -> Moment:
    """The part of a device's state that may explain a change."""
    return Moment(
        battery_percent=state.battery_percent,
        battery_celsius=state.battery_celsius,
        plugged=state.plugged,
        thermal_status=state.thermal_status,
        celsius={_clean(name): value for name, value in state.celsius.items()},
        power_saver=state.power_saver,
        load1=state.load1,
        scaling_max_khz=state.scaling_max_khz,
        governors=tuple(_clean(name) for name in state.governors),
    )


def _clocks(session: Session) -> Iterator[tuple[str, float]]:
    """What cores and their hottest zone did while it was measured; the worst launch of each."""
    for cluster in session.identity.clusters:
        name = cluster.policy.rpartition("/")[2]
        limits = [clocks.lowest_limit_khz(one, cluster) for one in session.launches]
        means = [clocks.mean_khz(one, cluster) for one in session.launches]
        if known := [khz for khz in limits if khz is not None]:
            yield f"{name} lowest limit khz", min(known)
        if means_known := [khz for khz in means if khz is not None]:
            yield f"{name} mean khz", min(means_known)
    hottest = [clocks.hottest(one, session.identity) for one in session.launches]
    if celsius := [one[1] for one in hottest if one]:
        yield "hottest celsius", max(celsius)


def samples(session: Session) -> Samples:
    """Everything the figures were computed from."""
    launches = tuple(
        LaunchSamples(
            index=one.index,
            load_ns=one.load_ns,
            first_ns=one.first_ns,
            warmup_calls=one.warmup_calls,
            warm=one.warm,
            peak_bytes=one.peak_bytes,
            durations_ns=one.durations_ns,
            offsets_ns=one.offsets_ns,
            clocks=tuple((clock.at_ns, dict(clock.texts)) for clock in one.clocks),
        )
        for one in session.launches
    )
    return Samples(launches, session.canary_ns)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _clean(words: str) -> str:
    """Without NUL, which PostgreSQL's text cannot hold; a device may say anything."""
    return words.replace("\0", "")
