"""`latency_stats` and `instability`: figures, the interval, the verdict, and signs of instability."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from android_harness import latency_stats
from android_harness.errors import DeviceError
from android_harness.records import BenchConfig, Session
from tests.harness import sessions


def test_a_stable_session_has_no_flags() -> None:
    """Simulated clean clocks, temperatures and durations raise no flag."""
    assert latency_stats.latency_stats(sessions.session()).flags == ()


def first_launch(**changes: Any) -> Session:
    launches = tuple(sessions.launch(i, **(changes if i == 0 else {})) for i in range(5))
    return sessions.session(launches=launches)


UNSTABLE: dict[str, tuple[str, Session]] = {
    "hot before": ("thermal", sessions.session(before=sessions.state(thermal_status=1))),
    "hot after": ("thermal", sessions.session(after=sessions.state(thermal_status=2))),
    "overridden": ("thermal", sessions.session(after=sessions.state(thermal_overridden=True))),
    "status unread before": ("thermal", sessions.session(before=sessions.state(thermal_status=None))),
    "status unread after": ("thermal", sessions.session(after=sessions.state(thermal_status=None))),
    "override unread": ("thermal", sessions.session(after=sessions.state(thermal_overridden=None))),
    "hot inside": ("heat", first_launch(clocks=sessions.clocks(millidegrees=85100))),
    "no clocks": ("clocks", first_launch(clocks=())),
    "clocks denied": (
        "clocks",
        first_launch(clocks=sessions.without(sessions.clocks(), "max_freq", "time_in_state")),
    ),
    "one cluster denied": (
        "clocks",
        first_launch(clocks=sessions.without(sessions.clocks(), "policy4/scaling_max_freq")),
    ),
    "no clusters": ("clocks", sessions.session(identity=sessions.identity(clusters=()))),
    "cap after": ("cap", sessions.session(after=sessions.state(scaling_max_khz=(1804800, 2419200, 2457600)))),
    "cap inside": ("cap", first_launch(clocks=sessions.clocks(cap_khz=2457600))),
    "low clock": ("frequency", first_launch(clocks=sessions.clocks(share=0.94))),
    "slower and slower": ("trend", first_launch(durations_ns=sessions.durations(0, slope=0.06))),
    "faster and faster": ("trend", first_launch(durations_ns=sessions.durations(0, slope=-0.06))),
    "spread": (
        "spread",
        first_launch(durations_ns=(8_000_000, 8_000_000, 8_000_000, 8_000_000, 9_000_000) * 60),
    ),
    "little cores": ("affinity", first_launch(cores_allowed="0-7")),
    "unknown cores": ("affinity", first_launch(cores_allowed="")),
    "canary": ("canary", sessions.session(canary_ns=((1_000_000,) * 30,) * 5 + ((1_060_000,) * 30,))),
    "no canary": ("canary", sessions.session(canary_ns=())),
    "cold": ("warm-up", first_launch(warm=False)),
    "few calls": ("samples", first_launch(durations_ns=sessions.durations(0, count=40, ms=60))),
    "short": ("samples", first_launch(durations_ns=sessions.durations(0, count=60))),
    "few launches": ("samples", sessions.session(config=BenchConfig(launches=6, affinity="f0"))),
}


@pytest.mark.parametrize("case", UNSTABLE)
def test_every_sign_of_instability_is_flagged(case: str) -> None:
    """Each simulated disturbance raises its own flag and no other."""
    name, session = UNSTABLE[case]
    flags = latency_stats.latency_stats(session).flags
    assert flags
    assert {flag.partition(":")[0] for flag in flags} == {name}


def test_one_of_two_readings_of_a_clock_is_enough() -> None:
    """Some phones deny time_in_state and some kernels lack it; the limits still show throttling."""
    for denied in ("time_in_state", "policy7/scaling_max_freq"):
        texts = sessions.without(sessions.clocks(), denied)
        assert latency_stats.latency_stats(first_launch(clocks=texts)).flags == ()


def test_android_9_has_no_thermal_status_to_read() -> None:
    """Clocks and temperatures still judge it; a phone of unknown version is judged like a newer one."""
    unread = sessions.state(thermal_status=None, thermal_overridden=None)
    old, silent = sessions.identity(sdk=28), sessions.identity(sdk=None)
    assert (
        latency_stats.latency_stats(sessions.session(before=unread, after=unread, identity=old)).flags == ()
    )
    assert (
        len(latency_stats.latency_stats(sessions.session(before=unread, after=unread, identity=silent)).flags)
        == 2
    )


def test_clocks_near_their_cap_are_stable() -> None:
    """98 % of the time at the maximum is not throttling."""
    assert latency_stats.latency_stats(first_launch(clocks=sessions.clocks(share=0.98))).flags == ()


def test_figures_are_those_of_the_pooled_samples() -> None:
    """The percentiles are those of 5 x 100 known values, in milliseconds."""
    launches = tuple(sessions.launch(i, [k * 10**6 for k in range(1, 102)]) for i in range(5))
    figures = latency_stats.latency_stats(sessions.session(launches=launches))
    assert (figures.p50_ms, figures.p90_ms, figures.p95_ms, figures.max_ms) == (51, 91, 96, 101)
    assert figures.mad_ms == 25
    assert (figures.samples, figures.launches, figures.first_ms, figures.load_ms) == (505, 5, 12, 50)
    assert figures.p99_ms is None
    assert figures.p90_ci_ms == (91, 91)


def test_p99_needs_a_thousand_samples() -> None:
    """5 x 300 samples are enough."""
    assert latency_stats.latency_stats(sessions.session()).p99_ms is not None


@pytest.mark.parametrize("launches", [(), (sessions.launch(0),)])
def test_one_launch_makes_no_interval(launches: tuple[Any, ...]) -> None:
    """The spread of a single launch is unknown."""
    with pytest.raises(DeviceError, match="at least 2 launches"):
        latency_stats.latency_stats(sessions.session(launches=launches))


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((13.0, 14.9), "pass"),
        ((15.1, 16.0), "fail"),
        ((14.9, 15.1), "inconclusive"),
        ((14.0, 15.0), "inconclusive"),
        ((15.0, 16.0), "inconclusive"),
        ((float("nan"), float("nan")), "inconclusive"),
    ],
)
def test_a_verdict_needs_the_interval_clear_of_the_budget(
    interval: tuple[float, float], expected: str
) -> None:
    """An interval that touches the budget is inconclusive."""
    assert latency_stats.verdict_by_latency_stats(interval, 15.0) == expected


@pytest.mark.parametrize("launches", [2, 3, 5, 10])
@pytest.mark.parametrize("between", [0.003, 0.03, 0.1])
def test_the_interval_holds_the_true_p90(launches: int, between: float) -> None:
    """The interval holds it in 95 % of 300 simulated sessions or more (91 % would be a 3 sigma event)."""
    rng = np.random.default_rng(7)

    def draw(count: int, calls: int) -> Any:
        effects = np.exp(rng.normal(0, between, count))[:, None]
        return effects * (1 + 0.01 * rng.gamma(2.0, 0.7, (count, calls)))

    truth = float(np.percentile(draw(200_000, 1), 90))
    intervals = [latency_stats.latency_stats_interval_of_p90(tuple(draw(launches, 40))) for _ in range(300)]
    assert sum(low <= truth <= high for low, high in intervals) >= 0.91 * 300


def test_the_interval_holds_its_own_figure() -> None:
    """A long launch that differs may pull the pooled p90 beyond what the launches' mean suggests."""
    launches = (*(np.full(50, 10.0) for _ in range(9)), np.full(50_000, 10.001))
    low, high = latency_stats.latency_stats_interval_of_p90(launches)
    assert low <= float(np.percentile(np.concatenate(launches), 90)) <= high


def test_the_same_samples_have_the_same_interval() -> None:
    """Nothing is drawn at random."""
    assert latency_stats.latency_stats(sessions.session()) == latency_stats.latency_stats(sessions.session())
