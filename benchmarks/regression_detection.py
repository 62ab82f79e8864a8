"""How often a step is found, how late, and how often there is a false alarm: on simulated phones.

    python -m benchmarks.regression_detection [--series 60] [--seed 7] [--costs]

A series has 60 nights; in each, a session of 5 launches of 40 calls, and a re-run where it is suspected. A
launch multiplies its calls by an effect of its own, a night all its launches (the room, what else the phone
does): both with heavy tails (Student's t of 3 degrees). The re-run shares its night's effect, nothing else.

calm       launches differ by 0.5 %, nights by 0.5 %: pinned clocks
usual      launches differ by 1.5 %, nights by 1 %
restless   launches differ by 3 %, nights by 2 %; a wave of 1.5 % with a period of 60 nights; one night in 30
           is slower by 5 to 30 % from its start to its end, and every second of these has a flag

The step comes at a random night from the 20th to the 40th. "first night" is confirmed in the night of the
step, "5 nights" in any of the first five, "found" is a change-point within 2 nights of it at the end of the
series, and "delay" is after how many slow nights there was one. False alarms are of series without a step.

`--costs` compares ways to cut a series instead, each at several penalties, on change-points of whole series.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from android_harness.history.records import BASELINE_SESSIONS, StoredSession
from android_harness.regressions import changes
from android_harness.regressions.records import Limits, Status
from android_harness.regressions.session_judging import confirm_session_judging, judge_session
from tests.history.stored import night as stored_night

Array: TypeAlias = NDArray[Any]
NIGHTS = 60
LAUNCHES, CALLS = 5, 40
DEGREES = 3
BASE_MS = 10.0
STEPS = (0.03, 0.05, 0.10, 0.20)
SOON = 5
NEAR = 2


@dataclass(frozen=True)
class Phone:
    """Standard deviations and shares, relative to the time."""

    within: float
    launches: float
    nights: float
    wave: float = 0.0
    outliers: float = 0.0


PHONES = {
    "calm": Phone(within=0.01, launches=0.005, nights=0.005),
    "usual": Phone(within=0.01, launches=0.015, nights=0.01),
    "restless": Phone(within=0.02, launches=0.03, nights=0.02, wave=0.015, outliers=1 / 30),
}


def heavy(rng: np.random.Generator, deviation: float, count: int) -> Array:
    scaled: Array = rng.standard_t(DEGREES, count) * deviation / math.sqrt(DEGREES / (DEGREES - 2))
    return scaled


def measured(rng: np.random.Generator, phone: Phone, effect: float) -> tuple[float, float]:
    """Draw (p50, p90) in ms of a session in a night with this effect."""
    launches = np.exp(effect + heavy(rng, phone.launches, LAUNCHES))
    calls = launches[:, None] * (1 + phone.within * rng.gamma(2.0, 0.7, (LAUNCHES, CALLS)))
    p50, p90 = np.percentile(BASE_MS * calls, (50, 90))
    return float(p50), float(p90)


@dataclass(frozen=True)
class Night:
    session: StoredSession
    again: StoredSession


def simulate(rng: np.random.Generator, phone: Phone, at: int, step: float) -> list[Night]:
    phase = rng.random()
    effects = heavy(rng, phone.nights, NIGHTS)
    nights = []
    for place in range(NIGHTS):
        effect = effects[place] + phone.wave * math.sin(2 * math.pi * (place / NIGHTS + phase))
        effect += math.log1p(step) if place >= at else 0.0
        outlier = rng.random() < phone.outliers
        effect += float(rng.uniform(0.05, 0.3)) if outlier else 0.0
        flags = ("canary: slow",) if outlier and rng.random() < 0.5 else ()
        runs = [measured(rng, phone, effect) for _ in range(2)]
        first, second = (
            stored_night(place, key=f"{place}-{run}", p50_ms=p50, p90_ms=p90, flags=flags)
            for run, (p50, p90) in enumerate(runs)
        )
        nights.append(Night(first, second))
    return nights


def judged(nights: Sequence[Night]) -> list[tuple[Status, Status]]:
    """Return (first status, status after a re-run) of every night; regressions are no baseline."""
    statuses, eligible = [], list[StoredSession]()
    for night in nights:
        baseline = eligible[-BASELINE_SESSIONS:]
        first = judge_session(night.session, baseline)
        last = confirm_session_judging(first, night.again, baseline)
        statuses.append((first.status, last.status))
        if last.status != "confirmed":
            runs = (night.session, night.again) if first.status == "suspected" else (night.session,)
            eligible += [run for run in runs if run.stable]
    return statuses


def delay(values: Sequence[float], at: int) -> int | None:
    """Return the nights from the step until a change-point near it appears; None if it never does."""
    for end in range(at + 1, len(values) + 1):
        if near(changes.change_points(values[:end]), at):
            return end - at
    return None


def near(places: Sequence[int], at: int) -> bool:
    return any(abs(place - at) <= NEAR for place in places)


def p50s(nights: Sequence[Night]) -> list[float]:
    return [night.session.p50_ms for night in nights]


def quiet(name: str, series: int, rng: np.random.Generator) -> None:
    """Print a row of false alarms."""
    suspected = confirmed = total = steps = ever = 0
    for _ in range(series):
        nights = simulate(rng, PHONES[name], NIGHTS, 0.0)
        statuses = judged(nights)
        total += sum(first in {"steady", "suspected"} for first, _ in statuses)
        suspected += sum(first == "suspected" for first, _ in statuses)
        confirmed += sum(last == "confirmed" for _, last in statuses)
        values = p50s(nights)
        steps += len(changes.change_points(values))
        ever += sum(new_step(values, end) for end in range(2, NIGHTS + 1))
    rates = [1000 * count / total for count in (suspected, confirmed)]
    rates += [1000 * count / (series * NIGHTS) for count in (ever, steps)]
    print(f"{name:10}" + "".join(f"{rate:15.1f}" for rate in rates), flush=True)


def new_step(values: Sequence[float], end: int) -> bool:
    """Return whether night `end` shows a change-point that the night before did not."""
    known = changes.change_points(values[: end - 1])
    return any(not near(known, place) for place in changes.change_points(values[:end]))


def stepped(name: str, step: float, series: int, rng: np.random.Generator) -> None:
    """Print a row of detections."""
    first = soon = located = 0
    delays = []
    for _ in range(series):
        at = int(rng.integers(20, 41))
        nights = simulate(rng, PHONES[name], at, step)
        statuses = [last for _, last in judged(nights)]
        first += statuses[at] == "confirmed"
        soon += "confirmed" in statuses[at : at + SOON]
        values = p50s(nights)
        located += near(changes.change_points(values), at)
        delays.append(delay(values, at))
    detected = [delay for delay in delays if delay is not None]
    late = f"{statistics.median(detected):.0f}" if detected else "-"
    shares = "".join(f"{count / series:12.0%}" for count in (first, soon, located))
    print(f"{name:10}{step:6.0%}{shares}{late:>8}", flush=True)


Cut: TypeAlias = Callable[[Array, Array, float], list[int]]
"""(scaled values, the same without outliers, penalty) -> change-points."""


def kernel(kind: str) -> Callable[[Array, float], list[int]]:
    from ruptures import KernelCPD

    def cut(values: Array, penalty: float) -> list[int]:
        options = {"gamma": 0.1} if kind == "rbf" else {}
        engine = KernelCPD(kernel=kind, min_size=changes.MIN_SESSIONS, params=options)
        return [int(place) for place in engine.fit(values.reshape(-1, 1)).predict(pen=penalty)[:-1]]

    return cut


COSTS: dict[str, tuple[Cut, tuple[float, ...]]] = {
    "least squares": (lambda _, clean, penalty: kernel("linear")(clean, penalty), (2, 3, 4, 5, 6, 8, 12)),
    "without cleaning": (lambda raw, _, penalty: kernel("linear")(raw, penalty), (5, 8, 12)),
    "Gaussian kernel": (lambda raw, _, penalty: kernel("rbf")(raw, penalty), (0.3, 0.6, 1)),
}


def compare_costs(series: int, seed: int) -> None:
    """Print rows of false change-points per 1000 nights, and shares of detected steps."""
    steps = (0.0, *STEPS[:3])
    rng = np.random.default_rng(seed)
    drawn = {(phone, step): draw(rng, phone, step, series) for phone in PHONES for step in steps}
    print("                  penalty  phone     false/1000     3%   5%  10%")
    for name, (cut, penalties) in COSTS.items():
        for penalty in penalties:
            for phone in PHONES:
                places = [pieces(logs, cut, penalty) for _, logs in drawn[phone, 0.0]]
                rate = 1000 * sum(map(len, places)) / (series * NIGHTS)
                shares = [share(drawn[phone, step], cut, penalty) for step in steps[1:]]
                words = "".join(f"{fraction:5.0%}" for fraction in shares)
                print(f"{name:16}{penalty:6g} log n {phone:10}{rate:9.1f}  {words}", flush=True)


def draw(rng: np.random.Generator, phone: str, step: float, series: int) -> list[tuple[int, Array]]:
    """Draw (night of the step, logarithms of p50) of several series."""
    places = [int(rng.integers(20, 41)) for _ in range(series)]
    return [(at, np.log(p50s(simulate(rng, PHONES[phone], at, step)))) for at in places]


def share(drawn: Sequence[tuple[int, Array]], cut: Cut, penalty: float) -> float:
    return statistics.mean(near(pieces(logs, cut, penalty), at) for at, logs in drawn)


def pieces(logs: Array, cut: Cut, penalty: float) -> tuple[int, ...]:
    noise = max(changes.noise_between_changes(logs), changes.MIN_NOISE)
    clean = changes.changes_without_outliers(logs, changes.OUTLIER * noise)
    places = cut(logs / noise, clean / noise, penalty * math.log(len(logs)))
    return changes.changes_without_small_steps(logs, places)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, default=60)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--costs", action="store_true")
    options = parser.parse_args()
    if options.costs:
        compare_costs(options.series, options.seed)
        return
    rng = np.random.default_rng(options.seed)
    print(
        f"{options.series} series of {NIGHTS} nights each, baselines of {Limits().min_baseline} to ", end=""
    )
    print(f"{BASELINE_SESSIONS} sessions\n\nfalse alarms per 1000 nights")
    print("phone          suspected      confirmed  change-points   at the end")
    for name in PHONES:
        quiet(name, options.series, rng)
    print("\nphone       step first night    5 nights       found   delay")
    for name in PHONES:
        for step in STEPS:
            stepped(name, step, options.series, rng)


if __name__ == "__main__":
    main()
