"""Clocks and temperatures during a launch, from the files that the runner read between chunks of calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from android_harness import parse
from android_harness.records import Cluster, Identity, Launch, Session

ClockState = Literal["locked-verified", "unlocked", "unknown"]


def cores_to_cpu_clock(session: Session) -> set[int]:
    """Return the cores of `BenchConfig.affinity`; empty if the system decides."""
    mask = int(session.config.affinity or "0", 16)
    return {core for core in range(mask.bit_length()) if mask >> core & 1}


def clusters_to_cpu_clock(session: Session) -> tuple[Cluster, ...]:
    """Return the clusters that the run may use, slowest first; without affinity all but the slowest."""
    clusters = session.identity.clusters
    requested = cores_to_cpu_clock(session)
    if requested:
        return tuple(cluster for cluster in clusters if requested & set(cluster.cores))
    return clusters[1:] or clusters


def lowest_cpu_clock_limit_khz(launch: Launch, cluster: Cluster) -> int | None:
    """Return the lowest upper limit of a cluster's clock during the launch; None if unreadable."""
    return min(_cpu_clock_integers(launch, f"{cluster.policy}/scaling_max_freq"), default=None)


def mean_cpu_clock_khz(launch: Launch, cluster: Cluster) -> float | None:
    """Return a cluster's mean clock from the first reading to the last; None if unreadable."""
    readings = _cpu_clock_times(launch, cluster)
    if len(readings) < 2:
        return None
    ticks = {khz: count - readings[0].get(khz, 0) for khz, count in readings[-1].items()}
    total = sum(ticks.values())
    return sum(khz * count for khz, count in ticks.items()) / total if total > 0 else None


def hottest_beside_cpu_clocks(launch: Launch, identity: Identity) -> tuple[str, float] | None:
    """Return (name, °C) of the hottest CPU zone; None if no CPU zone could be read."""
    readings = (
        (name, raw / 1000)
        for name, path in _zones_beside_cpu_clocks(identity)
        for raw in _cpu_clock_integers(launch, path)
    )
    plausible = [(name, celsius) for name, celsius in readings if parse.is_parsed_celsius_plausible(celsius)]
    return max(plausible, key=lambda reading: reading[1], default=None)


def cpu_clock_state(session: Session) -> ClockState:
    """Return whether the clocks were locked, as verified by every reading.

    A clock that stays at its minimum is not locked for a measurement but throttled.
    """
    locked = [
        _is_cpu_clock_locked(launch, c) for launch in session.launches for c in clusters_to_cpu_clock(session)
    ]
    if not locked or None in locked:
        return "unknown"
    return "locked-verified" if all(locked) else "unlocked"


def _is_cpu_clock_locked(launch: Launch, cluster: Cluster) -> bool | None:
    """Return whether a cluster's clock was locked; None if a reading or the cluster's minimum is missing."""
    names = ("scaling_min_freq", "scaling_cur_freq", "scaling_max_freq")
    readings = [_cpu_clock_integers(launch, f"{cluster.policy}/{name}") for name in names]
    known = {khz for times in _cpu_clock_times(launch, cluster) for khz in times}
    if not launch.clocks or not known or any(len(values) != len(launch.clocks) for values in readings):
        return None
    distinct = {khz for values in readings for khz in values}
    return len(distinct) == 1 and distinct != {min(known)}


def _cpu_clock_times(launch: Launch, cluster: Cluster) -> list[dict[int, int]]:
    path = f"{cluster.policy}/stats/time_in_state"
    return [parse.parse_time_in_state(clock.texts[path]) for clock in launch.clocks if path in clock.texts]


def _cpu_clock_integers(launch: Launch, path: str) -> list[int]:
    values = (parse.parse_integer(clock.texts.get(path)) for clock in launch.clocks)
    return [value for value in values if value is not None]


def _zones_beside_cpu_clocks(identity: Identity) -> Iterator[tuple[str, str]]:
    return ((name, path) for name, path in identity.thermal_zones if parse.CPU_ZONE.match(name))
