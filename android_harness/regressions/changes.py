"""Find where a series of nights changed to another level, and what else changed there.

The logarithm of p50 is cleaned of single outliers (Hampel 1974) and scaled by its noise, the median absolute
difference of neighbours, which a step hardly changes. Then ruptures' `KernelCPD` cuts it: PELT with a linear
kernel, which means least squares, in C. `benchmarks/regression_detection.py --costs` compares alternatives:
without cleaning, an unsteady phone has ten times as many false steps, and fewer true ones are found. A lower
penalty finds a few more steps of 5 %, at several times as many false ones. Absolute deviations need no
cleaning but took 0.3 s for a series.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from android_harness.history.records import Point, StoredSession
from android_harness.regressions.causes import AROUND, NO_CAUSE, causes_of_change
from android_harness.regressions.records import Cause, Change

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

LookUp: TypeAlias = Callable[[Collection[str]], Mapping[str, StoredSession]]
"""Maps keys to their sessions."""

PENALTY = 8.0
"""Penalty of a change-point, in units of log(n) times the variance of the noise."""
MIN_SESSIONS = 3
"""Smallest number of sessions in a level; fewer cannot be distinguished from outliers."""
MIN_STEP = 0.02
"""Smallest step between levels: a device's slow drift is not an event."""
MIN_NOISE = 0.003
"""Smallest noise: a series that is calmer by chance would show meaningless steps."""
OUTLIER = 3.0
"""Distance from the median of the neighbours, in deviations of the noise, that makes an outlier."""
NEIGHBOURS = 3
"""Number of neighbours on each side."""
SIGMA_OF_MAD = 1.4826
"""The standard deviation of a normal distribution divided by its median absolute deviation."""


def changes_of_series(series: Sequence[Point], look_up: LookUp) -> tuple[Change, ...]:
    """Return every change of a series to another level, with its causes.

    Args:
        series: `History.trend(key)`: all sessions of a series, oldest first. Unstable ones are included: a
            device that throttles from one night on has changed.
        look_up: `History.get_all`, for the few sessions around the change-points.

    Raises:
        ValueError: The sessions belong to different series.
    """
    if len({point.series_id for point in series}) > 1:
        raise ValueError("The sessions belong to different series.")
    values = [point.p50_ms for point in series]
    places = change_points(values)
    ends = [0, *places, len(values)]
    spans = list(zip(ends, places, ends[2:], strict=False))
    around = (series[max(start, place - AROUND) : min(end, place + AROUND)] for start, place, end in spans)
    known = look_up({point.key for points in around for point in points}) if places else {}
    return tuple(
        Change(
            index=place,
            key=series[place].key,
            started_at=series[place].started_at,
            before_ms=statistics.median(values[start:place]),
            after_ms=statistics.median(values[place:end]),
            causes=_changes_with_causes(series[start:place], series[place:end], known),
        )
        for start, place, end in spans
    )


def _changes_with_causes(
    before: Sequence[Point], after: Sequence[Point], known: Mapping[str, StoredSession]
) -> tuple[Cause, ...]:
    """Return the causes between two levels; another process may have pruned some sessions meanwhile."""
    old, new = ([known[point.key] for point in side if point.key in known] for side in (before, after))
    return causes_of_change(old, new) if old and new else (NO_CAUSE,)


def change_points(values: Sequence[float]) -> tuple[int, ...]:
    """Return the index of the first value of each new level.

    Args:
        values: Positive values in order of time; fewer than six have no change-point.
    """
    import math

    import numpy as np
    from ruptures import KernelCPD

    if len(values) < 2 * MIN_SESSIONS:
        return ()
    logs = np.log(np.asarray(values, dtype=np.float64))
    noise = max(noise_between_changes(logs), MIN_NOISE)
    scaled = changes_without_outliers(logs, OUTLIER * noise) / noise
    engine = KernelCPD(kernel="linear", min_size=MIN_SESSIONS).fit(scaled.reshape(-1, 1))
    places = [int(place) for place in engine.predict(pen=PENALTY * math.log(len(values)))[:-1]]
    return changes_without_small_steps(logs, places)


def noise_between_changes(logs: Array) -> float:
    """Return the standard deviation of the noise around the levels."""
    import numpy as np

    steps = np.diff(logs)
    return float(SIGMA_OF_MAD * np.median(np.abs(steps - np.median(steps)))) / 2**0.5


def changes_without_outliers(logs: Array, most: float) -> Array:
    """Replace each value that is further than `most` from the median of its neighbours by that median."""
    import numpy as np

    padded = np.pad(logs, NEIGHBOURS, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * NEIGHBOURS + 1)
    middles = np.nanmedian(windows, axis=1)
    return np.where(np.abs(logs - middles) > most, middles, logs)


def changes_without_small_steps(logs: Array, places: list[int]) -> tuple[int, ...]:
    """Join neighbouring levels, the smallest step first, until every step is large enough."""
    import math

    import numpy as np

    while places:
        ends = [0, *places, len(logs)]
        levels = [float(np.median(logs[start:end])) for start, end in pairwise(ends)]
        steps = [abs(after - before) for before, after in pairwise(levels)]
        smallest = min(range(len(steps)), key=steps.__getitem__)
        if steps[smallest] >= math.log1p(MIN_STEP):
            break
        del places[smallest]
    return tuple(places)
