"""The figures of the gate that simulates a precision, on outputs that are counted by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from exporter.records import Array
from exporter.records.verdict import Executor
from exporter.verify.gates import simulated
from exporter.verify.gates.simulated import MultipleLimits, SimulatedFigures
from exporter.verify.noise_by_chance import noise_by_chance, noise_ratio_by_chance
from tests.variants import FP16

SIGNS = np.where(np.arange(20) % 2, 1.0, -1.0)[:, None]


def figures(y: Array, s: Array, a: Array, ties: float = 0.0) -> SimulatedFigures:
    return simulated._simulated_figures(y, s, a, ties)


def outputs() -> tuple[Array, Array]:
    """Return 20 samples of two values, and a simulation that is off by 0.01 in turn."""
    y = np.stack([np.linspace(-3, 3, 20), np.linspace(4, -4, 20)], axis=1)
    return y, y + 0.01 * SIGNS


def rms(array: Array) -> float:
    return math.sqrt(float((array**2).mean()))


def best(y: Array, a: Array) -> Array:
    """Return the 18 samples of `y` that `a` is nearest to."""
    return y[np.argsort(((a - y) ** 2).sum(axis=1), kind="stable")[:18]]


def test_errors_are_multiples_of_the_simulated_one() -> None:
    """An artifact that is the simulation has a noise of one; its error is in the channels, not in a shift."""
    y, s = outputs()
    own = figures(y, s, s)
    assert own.noise == pytest.approx(1.0)
    assert own.channel == pytest.approx(1.0)
    assert own.offset == own.gain == 0.0
    assert own.simulated_db == pytest.approx(20 * math.log10(rms(best(y, s)) / 0.01))


def test_a_tenth_of_the_samples_does_not_count() -> None:
    """The two worst of twenty are left out, the others keep their order."""
    y, s = outputs()
    a = s.copy()
    a[[3, 7]] += 100
    kept = [i for i in range(20) if i not in {3, 7}]
    own = figures(y, s, a)
    assert own.noise == pytest.approx(1.0)
    assert own.simulated_db == pytest.approx(20 * math.log10(rms(y[kept]) / 0.01))
    a[9] += 100
    assert figures(y, s, a).noise > 1000


def test_a_shift_and_a_gain_have_figures_of_their_own() -> None:
    """The difference from the simulation: its mean over the samples, and its share of what varies."""
    y, s = outputs()
    shifted = figures(y, s, s + 0.004)
    kept = np.sort(np.argsort(((s + 0.004 - y) ** 2).sum(axis=1), kind="stable")[:18])
    assert shifted.offset == pytest.approx(0.4)
    scaled = s + 0.002 * y
    kept = np.sort(np.argsort(((scaled - y) ** 2).sum(axis=1), kind="stable")[:18])
    varying = y[kept] - y[kept].mean(axis=0)
    own = figures(y, s, scaled)
    assert own.gain == pytest.approx(0.002 * rms(varying) / 0.01)
    assert figures(y, s, s - 0.002 * y).gain == pytest.approx(own.gain, rel=0.2)
    still = np.ones((4, 2))
    assert figures(still, still + 0.01, still + 0.02).gain == 0.0


def test_a_tiny_simulated_error_counts_as_half_a_step_of_float16() -> None:
    """What other roundings of the simulation change is added to it, as energies."""
    y, _ = outputs()
    assert figures(y, y, y).simulated_db == pytest.approx(20 * 13 * math.log10(2))
    s = y + 0.01 * SIGNS
    own = figures(y, s, s, ties=0.02)
    error = math.hypot(0.01, 0.02 * rms(s[np.argsort(((s - y) ** 2).sum(axis=1), kind="stable")[:18]]))
    assert own.simulated_db == pytest.approx(20 * math.log10(rms(best(y, s)) / error), abs=0.01)
    assert own.noise == pytest.approx(0.01 / error, rel=0.01)


def assert_worst(s: Array, a: Array, times: float, place: tuple[int, int]) -> None:
    worst, where = simulated._simulated_worst_channel(s, a, 0.1)
    assert worst == pytest.approx(times)
    assert where == place


def test_the_worst_channel_has_an_axis_and_an_index() -> None:
    """A channel's error is a multiple of its simulated error, or of half the output's if that is larger."""
    s = np.ones((4, 3, 5)) * 0.1
    a = s.copy()
    a[:, 1, :] = 0.3
    assert_worst(s, a, 3.0, (0, 1))
    a = s.copy()
    a[:, :, 4] = 0.7
    assert_worst(s, a, 7.0, (1, 4))
    s[:, 2] = 0.001
    a = s.copy()
    a[:, 2] = 0.2
    assert_worst(s, a, 4.0, (0, 2))
    assert simulated._simulated_worst_channel(s[:, 0, 0], a[:, 0, 0], 0.1) == (0.0, (0, 0))


@pytest.mark.parametrize(("samples", "values"), [(2, 1), (8, 10), (100, 1000), (1, 1), (1000, 1)])
def test_few_samples_and_values_widen_the_limits(samples: int, values: int) -> None:
    """None is below its constant; noise averages out over all values, an offset over the samples."""
    few = 1 / math.sqrt(samples)
    assert MultipleLimits.of(samples, values) == MultipleLimits(
        max(2.0, math.sqrt(noise_ratio_by_chance(max(samples * values, 2), 1))),
        max(0.5, 1.5 * few, few * math.sqrt(2 * noise_by_chance(values, 1))),
        max(0.5, 2 * few, few * math.sqrt(6 * noise_by_chance(1, 1) / values)),
    )


def observation(y: Array, s: Array, a: Array, backend: str = "cpu", executor: Executor = "runtime") -> Any:
    return SimpleNamespace(
        executor=executor,
        on_device=False,
        variant=replace(FP16, backend=backend),
        precision="fp16",
        references=SimpleNamespace(reference=(y,), edge_reference=(y[:0],)),
        simulation=SimpleNamespace(outputs=(s,), rounding_floor_db=math.inf, edges={}),
        outputs=(a,),
        edges={},
        lowering=None,
    )


def test_only_what_can_be_judged_is() -> None:
    """Floats of one shape whose values are finite, and not all zero."""
    y, s = outputs()
    assert list(simulated.simulated_figures(observation(y, s, s))) == [0]
    broken = s.copy()
    broken[0, 0] = math.nan
    for other in (observation(y, broken, s), observation(y, s, broken), observation(0 * y, s, s)):
        assert simulated.simulated_figures(other) == {}
    assert simulated.simulated_figures(observation(y, s[:, :1], s)) == {}
    assert simulated.simulated_figures(observation(y.astype(int), s, s)) == {}
    assert simulated.simulated_figures(observation(y[:0], s[:0], s[:0])) == {}
    assert simulated.simulated_limit_db(observation(0 * y, s, s)) == {}


@pytest.mark.parametrize(
    ("backend", "executor", "margin"),
    [
        ("cpu", "runtime", 1.0),
        ("vulkan", "runtime", 4.0),
        ("vulkan", "software driver", 4.0),
        ("coreml", "runtime", 4.0),
        ("coreml", "reference interpreter", 1.0),
        ("coreai", "CPU runtime", 4.0),
    ],
)
def test_the_least_sqnr_follows_from_the_simulation(backend: str, executor: Executor, margin: float) -> None:
    """Twice the noise is 6 dB; four times as much for backends that may sum in float16."""
    y, s = (np.tile(array, (1, 50)) for array in outputs())
    limits = simulated.simulated_limit_db(observation(y, s, s, backend, executor))
    assert limits["simulated_sqnr_db"] == pytest.approx(
        simulated.simulated_figures(observation(y, s, s))[0].simulated_db
    )
    lower = limits["simulated_sqnr_db"] - limits["min_sqnr_db_from_simulation"]
    assert lower == pytest.approx(20 * math.log10(2 * margin))


@pytest.mark.parametrize(
    ("multiples", "says"),
    [
        ({}, ""),
        ({"noise": 2.1}, "its error is 2.1 times the simulated error, at most 2.0 times is allowed"),
        (
            {"channel": 5.1},
            "the error at 7 of axis 3 is 5.1 times the simulated error, at most 5.0 times is allowed",
        ),
        (
            {"gain": 0.7},
            "it is scaled, its gain is off by 0.7 times the simulated error, at most 0.6 times is allowed",
        ),
        (
            {"offset": 0.6},
            "it is shifted, its offset is 0.6 times the simulated error, at most 0.5 times is allowed",
        ),
    ],
)
def test_the_first_figure_beyond_its_limit_is_the_reason(multiples: dict[str, float], says: str) -> None:
    """Each has a limit of its own, which a margin multiplies; the limit itself is allowed."""
    limits = MultipleLimits(2.0, 0.5, 0.6)
    at = {"noise": 2.0, "channel": 5.0, "offset": 0.5, "gain": 0.6}
    own = SimulatedFigures(limits=limits, simulated_db=60.0, worst=(3, 7), **(at | multiples))
    assert simulated._simulated_reason(own, 1.0) == says
    assert simulated._simulated_reason(own, 2.0) == ""
