"""Make the history's records from the harness' records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from android_harness import cpu_clocks, provenance
from android_harness.history.records import Origin, Samples, StoredSession, history_record_key
from android_harness.latencies import Latency, MeasuredLatency
from android_harness.records import (
    Cluster,
    Launch,
    LaunchSamples,
    Moment,
    Session,
    State,
    base_part_of_record,
)


def make_stored_session(
    session: Session,
    latency: Latency,
    origin: Origin,
    *,
    run: str,
    host: str,
    budget_ms: float,
    key: str = "",
) -> StoredSession:
    """Make the stored form of a session.

    Args:
        session: The raw evidence.
        latency: `provenance.latency_with_provenance(session, ...)`: the figures, and what they prove.
        origin: The measured artifact.
        run: The night.
        host: The machine that the device is plugged into.
        budget_ms: The budget for p90, unless the latency has one.
        key: The key; derived from run, device, model, target, artifact and start if empty.
    """
    identity, first = session.identity, session.launches[0]
    key_parts = (run, host, identity.serial, origin.model, origin.target, origin.artifact, session.started_at)
    shared = {**vars(latency.figures), **vars(origin)}
    for name in ("sqnr_db", "top1_agreement", "accuracy"):
        shared[name] = provenance.finite_in_provenance(shared[name])
    shared["flags"] = tuple(_make_stored_without_nul(flag) for flag in latency.figures.flags)
    return StoredSession(
        **shared,
        key=key or history_record_key(*key_parts),
        run=run,
        host=host,
        started_at=datetime.fromisoformat(session.started_at).astimezone(UTC),
        runtime=_make_stored_without_nul(first.runtime),
        artifact_sha256=session.task.sha256,
        serial=_make_stored_without_nul(identity.serial),
        device_model=_make_stored_without_nul(identity.model),
        soc=identity.soc,
        chip=identity.chip,
        fingerprint=_make_stored_without_nul(identity.fingerprint),
        evidence=latency.evidence,
        threads=session.config.threads,
        affinity=session.config.affinity,
        clock_state=cpu_clocks.cpu_clock_state(session),
        runner={name: _make_stored_without_nul(str(value)) for name, value in first.runner.items()},
        before=make_stored_moment(session.before),
        after=make_stored_moment(session.after),
        clocks=dict(_make_stored_clock_extremes(session)),
        verdict=provenance.verdict_by_provenance(latency),
        budget_ms=latency.budget_ms if isinstance(latency, MeasuredLatency) else budget_ms,
        problem=_make_stored_without_nul(latency.problem),
        max_error=provenance.finite_in_provenance(latency.max_error),
    )


def make_stored_moment(state: State) -> Moment:
    """Return the part of a device's state that may explain a change of its latencies."""
    celsius = {_make_stored_without_nul(name): value for name, value in state.celsius.items()}
    governors = tuple(_make_stored_without_nul(name) for name in state.governors)
    return replace(base_part_of_record(state, Moment), celsius=celsius, governors=governors)


def _make_stored_clock_extremes(session: Session) -> Iterator[tuple[str, float]]:
    """Yield the lowest clocks and the hottest temperature over all launches."""
    for cluster in session.identity.clusters:
        yield from _make_stored_cluster_extremes(cluster, session.launches)
    readings = [cpu_clocks.hottest_beside_cpu_clocks(launch, session.identity) for launch in session.launches]
    if temperatures := [reading[1] for reading in readings if reading]:
        yield "hottest celsius", max(temperatures)


def _make_stored_cluster_extremes(
    cluster: Cluster, launches: Sequence[Launch]
) -> Iterator[tuple[str, float]]:
    policy = cluster.policy.rpartition("/")[2]
    limits = [cpu_clocks.lowest_cpu_clock_limit_khz(launch, cluster) for launch in launches]
    means = [cpu_clocks.mean_cpu_clock_khz(launch, cluster) for launch in launches]
    if known_limits := [khz for khz in limits if khz is not None]:
        yield f"{policy} lowest limit khz", min(known_limits)
    if known_means := [khz for khz in means if khz is not None]:
        yield f"{policy} mean khz", min(known_means)


def make_stored_samples(session: Session) -> Samples:
    """Return the raw samples from which the session's figures are computed."""
    launches = tuple(base_part_of_record(launch, LaunchSamples) for launch in session.launches)
    return Samples(launches, session.canary_ns)


def _make_stored_without_nul(text: str) -> str:
    """Remove NUL characters: a device may send them, and PostgreSQL's text cannot hold them."""
    return text.replace("\0", "")
