"""Compute a session's figures: percentiles, the interval of p90, and signs of instability.

Launches are the sampling unit: durations within one process on a phone differ by less than a percent, but
processes and sessions of the same model differ by several. The thousand calls of a launch are one draw.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from android_harness.errors import DeviceError
from android_harness.instability import find_instability
from android_harness.latencies import Figures
from android_harness.records import Session, Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

CONFIDENCE = 0.95
MIN_SAMPLES_OF_P99 = 1000
MIN_LAUNCHES = 2


def latency_stats(session: Session) -> Figures:
    """Pool the samples of all launches and look for signs of instability.

    Returns:
        The figures in milliseconds; p99 is None below 1000 samples.

    Raises:
        DeviceError: A launch has no samples, or there are fewer than two launches.
    """
    import numpy as np

    if len(session.launches) < MIN_LAUNCHES:
        raise DeviceError(f"{session.task.name}: an interval needs at least {MIN_LAUNCHES} launches.")
    if not all(launch.durations_ns for launch in session.launches):
        raise DeviceError(f"{session.task.name}: the session has a launch without a single timed call.")
    launches = tuple(np.array(launch.durations_ns, dtype=np.float64) / 1e6 for launch in session.launches)
    pooled = np.concatenate(launches)
    p90_low, p90_high = latency_stats_interval_of_p90(launches)
    p50, p90, p95 = (float(value) for value in np.percentile(pooled, (50, 90, 95)))
    peaks = [launch.peak_bytes for launch in session.launches if launch.peak_bytes is not None]
    return Figures(
        p50_ms=p50,
        p90_ms=p90,
        p90_low_ms=p90_low,
        p90_high_ms=p90_high,
        p95_ms=p95,
        p99_ms=float(np.percentile(pooled, 99)) if len(pooled) >= MIN_SAMPLES_OF_P99 else None,
        max_ms=float(pooled.max()),
        mad_ms=float(np.median(np.abs(pooled - p50))),
        first_ms=statistics.median(launch.first_ns for launch in session.launches) / 1e6,
        load_ms=statistics.median(launch.load_ns for launch in session.launches) / 1e6,
        launches=len(launches),
        samples=len(pooled),
        flags=find_instability(session),
        peak_bytes=max(peaks, default=None),
    )


def latency_stats_of_launch_spread(session: Session) -> float:
    """Return by how much the launches' medians differ: their standard deviation as a share of their mean."""
    medians = [statistics.median(launch.durations_ns) for launch in session.launches if launch.durations_ns]
    return statistics.stdev(medians) / statistics.mean(medians) if len(medians) > 1 else 0.0


def verdict_by_latency_stats(interval_ms: tuple[float, float], budget_ms: float) -> Verdict:
    """Return "pass" or "fail" if the whole interval is on one side of the budget, else "inconclusive"."""
    low, high = interval_ms
    if high < budget_ms:
        return "pass"
    return "fail" if low > budget_ms else "inconclusive"


def latency_stats_interval_of_p90(launches: Sequence[Array]) -> tuple[float, float]:
    """Return the 95 % interval of p90, from the launches' own p90s: their mean m and their deviation s.

    A launch shifts all its calls, by b of standard deviation S. If calls vary more than launches, the true
    p90 is the mean of the launches' p90s; if launches vary more, it is that mean + 1.28 S, as the p90 of all
    calls is then one of the launches. It lies between the two, and the interval goes from the lower limit of
    the one to the upper limit of the other: Student's t, and the noncentral t of a normal quantile (Hahn &
    Meeker 1991, Statistical Intervals, section 4.4), both exact for normal b and any number of launches.

    `benchmarks/interval_coverage.py` measures how often it holds the truth, also where b is not normal.

    Args:
        launches: The durations of each launch, two or more launches, in the same unit.
    """
    import numpy as np

    mean, deviation = _latency_stats_p90(launches)
    low, high = _interval_factors_for_latency_stats(len(launches))
    # Launches of unequal length may pool to a figure outside: no interval leaves out its own estimate.
    pooled = float(np.percentile(np.concatenate(launches), 90))
    return max(0.0, min(pooled, mean - low * deviation)), max(pooled, mean + high * deviation)


@functools.cache
def _interval_factors_for_latency_stats(launches: int) -> tuple[float, float]:
    """Return how many deviations of the launches the limits are below and above the launches' mean."""
    from scipy import stats

    root, tail = math.sqrt(launches), 0.5 + CONFIDENCE / 2
    shift = float(stats.norm.ppf(0.9)) * root
    student = float(stats.t.ppf(tail, launches - 1)) / root
    return student, float(stats.nct.ppf(tail, launches - 1, shift)) / root


def _latency_stats_p90(launches: Sequence[Array]) -> tuple[float, float]:
    import numpy as np

    p90s = [float(np.percentile(launch, 90)) for launch in launches]
    return statistics.mean(p90s), statistics.stdev(p90s)
