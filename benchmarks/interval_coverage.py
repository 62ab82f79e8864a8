"""How often a 95 % interval of p90 holds the true p90, for the candidates of `android_harness.stats`.

    python benchmarks/interval_coverage.py [--sessions 400]

Simulates sessions of 3, 5 and 10 launches. A launch multiplies all its calls by an effect of its own (a
log-normal one: where it lands in memory, how warm the device is); calls within it are skewed. The truth is
the p90 of calls over all launches there could be, from 400 000 draws. Prints one row per setting and
candidate: coverage, and the median width relative to the truth.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from android_harness import stats

Array = NDArray[Any]
Interval = tuple[float, float]
CALLS = 50
WITHIN = 0.01
BETWEEN = (0.0, 0.003, 0.01, 0.03)
CANDIDATES: dict[str, Callable[[tuple[Array, ...]], Interval]] = {
    "bootstrap": stats.bootstrap_interval,
    "Student t": stats.student_interval,
    "quantile t": stats.quantile_interval,
    "chosen": stats.p90_interval,
}


def draw(rng: np.random.Generator, launches: int, between: float, calls: int) -> tuple[Array, ...]:
    """Durations in ms of each launch of a session: 10 ms, a skewed spread within and an effect per launch."""
    effects = np.exp(rng.normal(0, between, launches))
    within = 1 + WITHIN * rng.gamma(2.0, 0.7, (launches, calls))
    return tuple(10 * effects[:, None] * within)


def truth(between: float) -> float:
    rng = np.random.default_rng(1)
    return float(np.percentile(np.concatenate(draw(rng, 400_000, between, 1)), 90))


def measure(launches: int, between: float, sessions: int) -> None:
    rng = np.random.default_rng(launches)
    true = truth(between)
    drawn = [draw(rng, launches, between, CALLS) for _ in range(sessions)]
    for name, candidate in CANDIDATES.items():
        intervals = [candidate(session) for session in drawn]
        covered = sum(low <= true <= high for low, high in intervals) / sessions
        width = float(np.median([high - low for low, high in intervals])) / true
        print(f"{launches:8} {between:7.1%}  {name:14} {covered:8.1%} {width:7.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sessions", type=int, default=400)
    sessions = parser.parse_args().sessions
    print("launches between  candidate      coverage   width")
    for launches in (3, 5, 10):
        for between in BETWEEN:
            measure(launches, between, sessions)


if __name__ == "__main__":
    main()
