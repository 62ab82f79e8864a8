"""Where a whole series of nights went to another level, and what else changed there.

The logarithm of p50 is cleaned of single outliers (Hampel 1974), scaled by its own noise (the median absolute
difference of neighbours, which a step hardly touches), and cut by ruptures' `KernelCPD`: PELT with a linear
kernel, which is least squares, in C. `benchmarks/regression_detection.py --costs` is why: without cleaning,
a restless phone has ten times the false steps and fewer true ones are found; a lower penalty finds a few more
of 5 % there, for several times the false ones. Absolute deviations need no cleaning, but took 0.3 s a series.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from android_harness.history.records import Point, StoredSession
from android_harness.regressions.causes import AROUND, NO_CAUSE, causes
from android_harness.regressions.records import Cause, Change

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

LookUp: TypeAlias = Callable[[Collection[str]], Mapping[str, StoredSession]]
"""Keys -> their sessions."""

PENALTY = 8.0
"""Times log n, in units of the noise's variance."""
MIN_SESSIONS = 3
"""Of a level: fewer cannot be told from outliers."""
MIN_STEP = 0.02
"""Levels closer than this are one: a device's slow drift is no event."""
MIN_NOISE = 0.003
"""Series that are calmer than this by chance would show steps that mean nothing."""
OUTLIER = 3.0
"""Deviations of the noise from the median of the neighbours."""
NEIGHBOURS = 3
"""On each side."""
SIGMA_OF_MAD = 1.4826
"""Of a normal distribution: its standard deviation by its median absolute deviation."""


def changes(series: Sequence[Point], look_up: LookUp) -> tuple[Change, ...]:
    """Every place where a series went to another level, with its causes.

    Args:
        series: `History.trend(line)`: all sessions of one line, oldest first. Unstable ones too: where a
            device throttles from one night on, that is what happened.
        look_up: `History.get_all`: all that is known of the few sessions around the places.

    Raises:
        ValueError: The sessions are of different lines (kinds of evidence included).
    """
    if len({one.series_id for one in series}) > 1:
        raise ValueError("The sessions are of different lines: they are no series.")
    values = [one.p50_ms for one in series]
    places = change_points(values)
    ends = [0, *places, len(values)]
    spans = list(zip(ends, places, ends[2:], strict=False))
    around = (series[max(start, place - AROUND) : min(end, place + AROUND)] for start, place, end in spans)
    known = look_up({one.key for near in around for one in near}) if places else {}
    return tuple(
        Change(
            index=place,
            key=series[place].key,
            started_at=series[place].started_at,
            before_ms=statistics.median(values[start:place]),
            after_ms=statistics.median(values[place:end]),
            causes=_causes(series[start:place], series[place:end], known),
        )
        for start, place, end in spans
    )


def _causes(
    before: Sequence[Point], after: Sequence[Point], known: Mapping[str, StoredSession]
) -> tuple[Cause, ...]:
    """Of two levels, by the sessions that are known; another process may have pruned some meanwhile."""
    old, new = ([known[one.key] for one in side if one.key in known] for side in (before, after))
    return causes(old, new) if old and new else (NO_CAUSE,)


def change_points(values: Sequence[float], penalty: float = PENALTY) -> tuple[int, ...]:
    """Indices of the first value of each new level.

    Args:
        values: Positive, in order of time; fewer than six have no change-point.
        penalty: Higher finds less.
    """
    import math

    import numpy as np
    from ruptures import KernelCPD

    if len(values) < 2 * MIN_SESSIONS:
        return ()
    logs = np.log(np.asarray(values, dtype=np.float64))
    noise = max(noise_of(logs), MIN_NOISE)
    scaled = without_outliers(logs, OUTLIER * noise) / noise
    engine = KernelCPD(kernel="linear", min_size=MIN_SESSIONS).fit(scaled.reshape(-1, 1))
    places = [int(place) for place in engine.predict(pen=penalty * math.log(len(values)))[:-1]]
    return without_small_steps(logs, places)


def noise_of(logs: Array) -> float:
    """Standard deviation of the noise around the levels."""
    import numpy as np

    steps = np.diff(logs)
    return float(SIGMA_OF_MAD * np.median(np.abs(steps - np.median(steps)))) / 2**0.5


def without_outliers(logs: Array, most: float) -> Array:
    """What is further from the median of its neighbours takes that median's value."""
    import numpy as np

    padded = np.pad(logs, NEIGHBOURS, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * NEIGHBOURS + 1)
    middles = np.nanmedian(windows, axis=1)
    return np.where(np.abs(logs - middles) > most, middles, logs)


def without_small_steps(logs: Array, places: list[int]) -> tuple[int, ...]:
    """Joins neighbouring levels until every step is worth naming; the smallest step goes first."""
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
