"""Find signs that a device was unstable during a session. Any sign makes the verdict inconclusive.

The limits follow docs/explanation/measurement-protocol.md, section 4.6.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from android_harness import cpu_clocks, parse
from android_harness.records import Cluster, Identity, Launch, Session

MIN_SHARE_OF_CAP = 0.97
MAX_TREND = 0.03
MAX_SPREAD = 1.10
MAX_DRIFT = 0.05
MAX_CELSIUS = 85.0
"""5 degrees below the first trip point at which Linux' sm8250.dtsi slows an 865's cores."""
SDK_WITH_THERMAL_STATUS = 29
"""Android 10. Older versions are judged by clocks and temperatures alone."""
MIN_CALLS_OF_TREND = 9
"""Thirds of fewer calls show no trend."""


def find_instability(session: Session) -> tuple[str, ...]:
    """Return every sign of instability as "name: detail"; empty for a stable session."""
    checks = (
        _thermal_instability,
        _heat_instability,
        _clock_instability,
        _affinity_instability,
        _spread_instability,
        _canary_instability,
        _completeness_instability,
        _tracing_instability,
    )
    return tuple(flag for check in checks for flag in check(session))


def _tracing_instability(session: Session) -> Iterator[str]:
    if session.config.trace:
        yield "trace: the launches were traced, which takes processor time"


def _thermal_instability(session: Session) -> Iterator[str]:
    for when, state in (("before", session.before), ("after", session.after)):
        if state.thermal_status:
            yield f"thermal: status {state.thermal_status} {when} the run"
        if state.thermal_overridden:
            yield f"thermal: the status is overridden {when} the run"
        if None in (state.thermal_status, state.thermal_overridden) and _has_thermal_status_for_instability(
            session.identity
        ):
            yield f"thermal: the status was unreadable {when} the run"


def _has_thermal_status_for_instability(identity: Identity) -> bool:
    """Whether the device should report a thermal status; a phone of unknown version should."""
    return identity.serial != "host" and (identity.sdk is None or identity.sdk >= SDK_WITH_THERMAL_STATUS)


def _heat_instability(session: Session) -> Iterator[str]:
    """Check the temperatures between chunks; the thermal status is read only before and after a run."""
    for launch in session.launches:
        hottest = cpu_clocks.hottest_beside_cpu_clocks(launch, session.identity)
        if hottest and hottest[1] > MAX_CELSIUS:
            zone, celsius = hottest
            yield f"heat: launch {launch.index}: {zone} reached {celsius:.1f} °C"


def _clock_instability(session: Session) -> Iterator[str]:
    before, after = session.before.scaling_max_khz, session.after.scaling_max_khz
    if len(before) == len(after) and any(low < top for low, top in zip(after, before, strict=True)):
        fall = f"from {_format_unstable_launches(before)} to {_format_unstable_launches(after)} kHz"
        yield f"cap: the clocks' limits fell {fall}"
    used = cpu_clocks.clusters_to_cpu_clock(session)
    for launch in session.launches:
        if not used or not all(_readable_clock_instability(launch, cluster) for cluster in used):
            yield f"clocks: launch {launch.index}: unreadable, so that throttling could not be told"
        for cluster in used:
            yield from _clock_cap_instability(launch, cluster)
        if used:
            yield from _frequency_instability(launch, used[-1])


def _readable_clock_instability(launch: Launch, cluster: Cluster) -> bool:
    readings = (
        cpu_clocks.lowest_cpu_clock_limit_khz(launch, cluster),
        cpu_clocks.mean_cpu_clock_khz(launch, cluster),
    )
    return any(khz is not None for khz in readings)


def _clock_cap_instability(launch: Launch, cluster: Cluster) -> Iterator[str]:
    lowest = cpu_clocks.lowest_cpu_clock_limit_khz(launch, cluster)
    if lowest is not None and lowest < cluster.max_khz:
        cores = _format_unstable_launches(cluster.cores)
        yield f"cap: launch {launch.index}: cores {cores} were held to {lowest} of {cluster.max_khz} kHz"


def _frequency_instability(launch: Launch, cluster: Cluster) -> Iterator[str]:
    mean = cpu_clocks.mean_cpu_clock_khz(launch, cluster)
    if mean is not None and mean < MIN_SHARE_OF_CAP * cluster.max_khz:
        cores, share = _format_unstable_launches(cluster.cores), mean / cluster.max_khz
        yield f"frequency: launch {launch.index}: cores {cores} ran at {share:.0%} of their maximum"


def _affinity_instability(session: Session) -> Iterator[str]:
    requested = cpu_clocks.cores_to_cpu_clock(session)
    for launch in session.launches if requested else ():
        allowed = set(parse.parse_cores(launch.cores_allowed))
        if allowed != requested:
            actual = launch.cores_allowed[:40] or "an unknown set"
            wanted = _format_unstable_launches(sorted(requested))
            yield f"affinity: launch {launch.index} was allowed cores {actual}, not {wanted}"


def _spread_instability(session: Session) -> Iterator[str]:
    for launch in session.launches:
        durations = launch.durations_ns
        middle = statistics.median(durations)
        p90 = statistics.quantiles(durations, n=10, method="inclusive")[8] if len(durations) > 1 else middle
        if p90 > MAX_SPREAD * middle:
            yield f"spread: launch {launch.index}: p90 is {p90 / middle:.2f} times p50"
        third = len(durations) // 3
        if len(durations) >= MIN_CALLS_OF_TREND:
            trend = statistics.median(durations[-third:]) / statistics.median(durations[:third]) - 1
            if abs(trend) > MAX_TREND:
                yield f"trend: launch {launch.index}: the last third took {trend:+.1%} against the first"


def _canary_instability(session: Session) -> Iterator[str]:
    medians = [statistics.median(reading) for reading in session.canary_ns if reading]
    if len(medians) < len(session.launches) + 1:
        yield f"canary: {len(medians)} readings for {len(session.launches)} launches"
    elif (drift := max(medians) / min(medians) - 1) > MAX_DRIFT:
        yield f"canary: a fixed computation differed by {drift:.1%} in the course of the run"


def _completeness_instability(session: Session) -> Iterator[str]:
    config = session.config
    if session.cut_off:
        yield f"incomplete: {session.cut_off}"
    if len(session.launches) < config.launches:
        yield f"samples: {len(session.launches)} of {config.launches} launches"
    for launch in session.launches:
        seconds = (launch.offsets_ns[-1] + launch.durations_ns[-1]) / 1e9
        if len(launch.durations_ns) < config.min_iterations or seconds < config.min_seconds:
            yield f"samples: launch {launch.index} has {len(launch.durations_ns)} calls in {seconds:.1f} s"
        if not launch.warm:
            yield f"warm-up: launch {launch.index} never settled"


def _format_unstable_launches(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)
