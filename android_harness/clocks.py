"""What the texts that a runner read between its chunks tell of clocks and temperatures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from android_harness import parse
from android_harness.records import Cluster, Identity, Launch, Session

ClockState = Literal["locked-verified", "unlocked", "unknown"]


def asked_cores(session: Session) -> set[int]:
    """The cores of `BenchConfig.affinity`; empty where the system decides."""
    mask = int(session.config.affinity or "0", 16)
    return {core for core in range(mask.bit_length()) if mask >> core & 1}


def used_clusters(session: Session) -> tuple[Cluster, ...]:
    """Clusters with a core the run was asked to be on, slowest first; without affinity all but the little."""
    clusters = session.identity.clusters
    asked = asked_cores(session)
    if asked:
        return tuple(cluster for cluster in clusters if asked & set(cluster.cores))
    return clusters[1:] or clusters


def lowest_limit_khz(launch: Launch, cluster: Cluster) -> int | None:
    """The lowest upper limit that a cluster's clock had; None where it could not be read."""
    return min(_integers(launch, f"{cluster.policy}/scaling_max_freq"), default=None)


def mean_khz(launch: Launch, cluster: Cluster) -> float | None:
    """A cluster's mean clock from the launch's first moment to its last; None where that is not told."""
    read = _times(launch, cluster)
    if len(read) < 2:
        return None
    ticks = {khz: count - read[0].get(khz, 0) for khz, count in read[-1].items()}
    total = sum(ticks.values())
    return sum(khz * count for khz, count in ticks.items()) / total if total > 0 else None


def hottest(launch: Launch, identity: Identity) -> tuple[str, float] | None:
    """(name, °C) of the CPU zone that got hottest; None where no CPU zone could be read."""
    read = ((name, raw / 1000) for name, path in _cpu_zones(identity) for raw in _integers(launch, path))
    plausible = [(name, celsius) for name, celsius in read if parse.plausible(celsius)]
    return max(plausible, key=lambda reading: reading[1], default=None)


def state(session: Session) -> ClockState:
    """Whether the clocks were locked: seen at every moment, never taken on anybody's word.

    A clock that stands at its minimum is not locked for a measurement but held down.
    """
    seen = [_is_locked(launch, c) for launch in session.launches for c in used_clusters(session)]
    if not seen or None in seen:
        return "unknown"
    return "locked-verified" if all(seen) else "unlocked"


def _is_locked(launch: Launch, cluster: Cluster) -> bool | None:
    """None where a moment lacks a reading, or nothing tells the cluster's minimum."""
    names = ("scaling_min_freq", "scaling_cur_freq", "scaling_max_freq")
    read = [_integers(launch, f"{cluster.policy}/{name}") for name in names]
    known = {khz for times in _times(launch, cluster) for khz in times}
    if not launch.clocks or not known or any(len(one) != len(launch.clocks) for one in read):
        return None
    values = {khz for one in read for khz in one}
    return len(values) == 1 and values != {min(known)}


def _times(launch: Launch, cluster: Cluster) -> list[dict[int, int]]:
    path = f"{cluster.policy}/stats/time_in_state"
    return [parse.time_in_state(clock.texts[path]) for clock in launch.clocks if path in clock.texts]


def _integers(launch: Launch, path: str) -> list[int]:
    read = (parse.integer(clock.texts.get(path)) for clock in launch.clocks)
    return [value for value in read if value is not None]


def _cpu_zones(identity: Identity) -> Iterator[tuple[str, str]]:
    return ((name, path) for name, path in identity.thermal_zones if parse.CPU_ZONE.match(name))
