"""How often a 95 % interval of p90 holds the true p90: the harness' own, and others that were considered.

    python benchmarks/interval_coverage.py [--sessions 300] [--seed 11]

Simulates sessions of 3, 4, 5 and 10 launches under two models of a phone. In both a launch multiplies all its
calls by an effect of its own: where it lands in memory, how warm the device is.

plain      The effect is log-normal; calls within a launch are independent and skewed.
throttled  The effect has heavy tails (Student's t of 3 degrees), and within a launch the clock wanders down
           and back (an autoregressive drift of up to a few percent).

A percentile bootstrap over launches was measured before, and covered 43 to 94 %.

The truth is the p90 of calls over many thousand launches. Prints a row per setting and candidate: coverage
with its standard error, and the median width relative to the truth.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from android_harness import latency_stats

Array: TypeAlias = NDArray[Any]
Interval: TypeAlias = tuple[float, float]
Model: TypeAlias = Callable[[np.random.Generator, int, float], Array]
CALLS = 50
WITHIN = 0.01
BETWEEN = (0.0, 0.01, 0.03, 0.06)
TRUTH_LAUNCHES = 40_000
DEGREES = 3
PERSISTENCE = 0.95
STEP = 0.004


def within(rng: np.random.Generator, launches: int) -> Array:
    return 10 * (1 + WITHIN * rng.gamma(2.0, 0.7, (launches, CALLS)))


def plain(rng: np.random.Generator, launches: int, between: float) -> Array:
    """Draw durations in ms, one row per launch."""
    return np.exp(rng.normal(0, between, launches))[:, None] * within(rng, launches)


def throttled(rng: np.random.Generator, launches: int, between: float) -> Array:
    """Draw durations in ms, one row per launch; `between` is the standard deviation between launches."""
    effects = rng.standard_t(DEGREES, launches) * between / math.sqrt(DEGREES / (DEGREES - 2))
    drift = np.zeros((launches, CALLS))
    for call in range(1, CALLS):
        drift[:, call] = PERSISTENCE * drift[:, call - 1] + rng.normal(0, STEP, launches)
    return np.exp(effects[:, None] + np.abs(drift)) * within(rng, launches)


MODELS: dict[str, Model] = {"plain": plain, "throttled": throttled}


def candidates(launches: tuple[Array, ...]) -> dict[str, Interval]:
    return {
        "Student t": student(launches),
        "chosen": latency_stats.latency_stats_interval_of_p90(launches),
    }


def student(launches: tuple[Array, ...]) -> Interval:
    """Return Student's t interval of the mean of the launches' p90s."""
    p90s = np.percentile(launches, 90, axis=1)
    half = t.ppf(0.975, len(launches) - 1) * p90s.std(ddof=1) / math.sqrt(len(launches))
    return float(p90s.mean() - half), float(p90s.mean() + half)


def measure(name: str, launches: int, between: float, sessions: int, rng: np.random.Generator) -> None:
    true = float(np.percentile(MODELS[name](rng, TRUTH_LAUNCHES, between), 90))
    drawn = [candidates(tuple(MODELS[name](rng, launches, between))) for _ in range(sessions)]
    for candidate in drawn[0]:
        intervals = np.array([session[candidate] for session in drawn])
        share = float(np.mean((intervals[:, 0] <= true) & (true <= intervals[:, 1])))
        error = math.sqrt(share * (1 - share) / sessions)
        width = float(np.median(intervals[:, 1] - intervals[:, 0])) / true
        print(
            f"{name:10} {launches:8} {between:7.1%}  {candidate:11} {share:8.1%} ± {error:4.1%} {width:7.2%}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=300)
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    print("model      launches between  candidate   coverage          width")
    for launches in (3, 4, 5, 10):
        for name in MODELS:
            for between in BETWEEN:
                measure(name, launches, between, options.sessions, rng)


if __name__ == "__main__":
    main()
