"""`android_harness.regressions.changes`: where a series went to another level, and why."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from android_harness.history.records import StoredSession
from android_harness.records import Moment
from android_harness.regressions.causes import NO_CAUSE
from android_harness.regressions.changes import change_points, noise_of
from android_harness.regressions.changes import changes as changes_of
from android_harness.regressions.records import Change
from tests.history.stored import ONE, night, point


def levels(*parts: tuple[int, float], noise: float = 0.01, seed: int = 3) -> list[float]:
    """(nights, milliseconds) each, with log-normal noise."""
    rng = random.Random(seed)
    return [ms * rng.lognormvariate(0, noise) for count, ms in parts for _ in range(count)]


def series(values: Sequence[float], at: int, **after: Any) -> list[StoredSession]:
    """A line whose sessions have other fields from `at` on."""
    return [
        night(place, p50_ms=value, **(after if place >= at else {})) for place, value in enumerate(values)
    ]


def changes(line: Sequence[StoredSession]) -> tuple[Change, ...]:
    """As of a history that holds these sessions."""
    known = {one.key: one for one in line}
    return changes_of([point(one) for one in line], lambda keys: {key: known[key] for key in keys})


def test_a_step_is_found_where_it_is() -> None:
    """A tenth, in noise of a percent."""
    assert change_points(levels((20, 8.0), (20, 8.8))) == (20,)


def test_several_steps_are_found() -> None:
    """Up and down."""
    assert change_points(levels((20, 8.0), (15, 8.8), (15, 7.5))) == (20, 35)


@pytest.mark.parametrize("seed", range(10))
def test_noise_has_no_steps(seed: int) -> None:
    """At a percent, over a season."""
    assert change_points(levels((90, 8.0), seed=seed)) == ()


def test_a_restless_year_has_no_steps() -> None:
    """Three percent of noise: the longer the series, the more a step must explain."""
    years = [levels((365, 8.0), noise=0.03, seed=seed) for seed in range(8)]
    assert [change_points(year) for year in years] == [()] * len(years)


def test_noise_is_that_around_the_levels() -> None:
    """As a standard deviation, whatever steps or drift lie beneath it."""
    logs = np.log(levels((1000, 8.0), (1000, 9.0)))
    assert noise_of(logs) == pytest.approx(0.01, rel=0.05)
    assert noise_of(logs + 0.05 * np.arange(len(logs))) == pytest.approx(0.01, rel=0.05)


def test_single_outliers_are_no_steps() -> None:
    """A night in which somebody used the phone is not a new level."""
    values = levels((40, 8.0))
    for place in (7, 8, 30):
        values[place] *= 1.4
    assert change_points(values) == ()


def test_a_small_step_is_none() -> None:
    """One percent of a very calm series is true, and nobody's business."""
    assert change_points(levels((40, 8.0), (40, 8.08), noise=0.0001)) == ()
    assert change_points(levels((40, 8.0), (40, 8.24), noise=0.0001)) == (40,)


def test_small_steps_join_their_levels_and_leave_the_others() -> None:
    """A tenth, and one percent on top of it: one step."""
    assert change_points(levels((20, 8.0), (20, 8.8), (20, 8.88), noise=0.0001)) == (20,)


def test_a_level_has_three_sessions() -> None:
    """Six nights may have two levels; two slow nights at the end are none of their own."""
    assert change_points([8.0] * 3 + [10.0] * 3) == (3,)
    assert 40 not in change_points(levels((40, 8.0), (2, 12.0)))


@pytest.mark.parametrize("count", range(6))
def test_a_few_sessions_have_no_levels(count: int) -> None:
    """Not even six, and not an error."""
    assert change_points([8.0, 8.0, 8.0, 80.0, 80.0][:count]) == ()


def test_equal_values_have_no_noise_and_no_steps() -> None:
    """A simulated clock may be that exact."""
    assert change_points([8.0] * 30) == ()


def test_a_change_tells_its_levels() -> None:
    """The medians on both sides, and the session it begins with."""
    values = levels((20, 8.0), (20, 8.8), noise=0.001)
    (found,) = changes(series(values, 20))
    assert (found.index, found.key) == (20, "key-20")
    assert found.started_at == night(20).started_at
    assert found.before_ms == pytest.approx(8.0, rel=0.002)
    assert found.slower == pytest.approx(0.1, rel=0.05)


def test_levels_lie_between_steps() -> None:
    """Each is the median of its own nights: an outlier does not move it, nor does the next level."""
    values = levels((20, 8.0), (20, 8.8), (30, 7.5), noise=0.001)
    values[5] *= 1.4
    first, second = changes(series(values, 20))
    assert first.before_ms == pytest.approx(8.0, rel=0.001)
    assert first.after_ms == second.before_ms == pytest.approx(8.8, rel=0.001)
    assert second.after_ms == pytest.approx(7.5, rel=0.001)


HOT = replace(ONE.before, celsius={"cpu-1-0-usr": 55.0})
CAPPED = replace(ONE.before, scaling_max_khz=(1804800, 2419200, 2457600))
CAUSES: dict[str, tuple[dict[str, Any], str, str]] = {
    "checkpoint": ({"source_sha256": "2" * 64, "artifact_sha256": "3" * 64}, "model", "checkpoint"),
    "artifact": ({"artifact_sha256": "3" * 64}, "model", "artifact changed"),
    "toolchain": (
        {"toolchain": {**ONE.toolchain, "onnx": "1.24.0"}, "artifact_sha256": "3" * 64},
        "tool",
        "onnx went from 1.23.2 to 1.24.0",
    ),
    "new tool": ({"toolchain": {**ONE.toolchain, "x": "1"}}, "tool", "x went from unknown to 1."),
    "runtime": ({"runtime": "onnxruntime 1.33.0"}, "tool", "to onnxruntime 1.33.0"),
    "runner": ({"runner": {**ONE.runner, "version": "2"}}, "tool", "The runner's version"),
    "Android": ({"fingerprint": "Xiaomi/new"}, "device", "Android's build"),
    "clocks' lock": ({"clock_state": "locked-verified"}, "device", "lock"),
    "host": ({"host": "farm-b"}, "device", "host"),
    "power": ({"before": replace(ONE.before, plugged="none")}, "device", "Power went from usb to none"),
    "power saver": (
        {"before": replace(ONE.before, power_saver=True)},
        "device",
        "Power saver went from off to on.",
    ),
    "thermal status": ({"after": replace(ONE.after, thermal_status=2)}, "device", "thermal status"),
    "governor": ({"before": replace(ONE.before, governors=("powersave",))}, "device", "powersave"),
    "limits": ({"before": CAPPED}, "device", "2457600"),
    "battery": ({"before": replace(ONE.before, battery_celsius=34.0)}, "device", "battery"),
    "cold battery": ({"before": replace(ONE.before, battery_celsius=20.0)}, "device", "from 28 to 20 °C"),
    "heat": ({"before": HOT}, "device", "to 55 °C"),
    "heat in the run": ({"clocks": {**ONE.clocks, "hottest celsius": 70.0}}, "device", "to 70 °C"),
    "mean clock": ({"clocks": {**ONE.clocks, "policy7 mean khz": 2_400_000}}, "device", "to 2400 MHz"),
    "flag": ({"flags": ("cap: held",)}, "device", "flag cap appeared"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_each_cause_is_named(name: str) -> None:
    """And nothing else: what did not change explains nothing."""
    after, kind, words = CAUSES[name]
    (found,) = changes(series(levels((20, 8.0), (20, 8.8)), 20, **after))
    (cause,) = found.causes
    assert cause.kind == kind
    assert words in cause.what


def test_a_flag_that_is_gone_is_named() -> None:
    """A phone that was capped until then is faster for that reason."""
    line = series(levels((20, 8.8), (20, 8.0)), 20)
    line[:20] = [replace(one, flags=("cap: held",)) for one in line[:20]]
    (cause,) = changes(line)[0].causes
    assert cause.what == "The flag cap is gone."


TOO_LITTLE: dict[str, dict[str, Any]] = {
    "three degrees": {"before": replace(ONE.before, battery_celsius=31.0)},
    "two percent of a clock": {"clocks": {**ONE.clocks, "policy7 mean khz": 2_785_000}},
    "a rare flag": {"flags": ("cap: held",)},
}


@pytest.mark.parametrize("name", TOO_LITTLE)
def test_a_little_explains_nothing(name: str) -> None:
    """Every night differs a little; a flag of one night is no level's."""
    line = series(levels((20, 8.0), (20, 8.8)), 20, **TOO_LITTLE[name])
    if name == "a rare flag":
        line[21:] = [replace(one, flags=()) for one in line[21:]]
    assert changes(line)[0].causes == (NO_CAUSE,)


def test_a_change_three_nights_before_is_no_cause() -> None:
    """A change-point is misplaced by one night at most."""
    (found,) = changes(series(levels((20, 8.0), (20, 8.8)), 17, source_sha256="2" * 64))
    assert found.causes == (NO_CAUSE,)


def test_without_a_cause_it_is_unexplained() -> None:
    """That is said, not guessed."""
    (found,) = changes(series(levels((20, 8.0), (20, 8.8)), 20))
    assert found.causes == (NO_CAUSE,)


def test_all_causes_of_one_night_are_named() -> None:
    """A new checkpoint and a new runtime in one night cannot be told apart: both are said."""
    after: dict[str, Any] = {
        "source_sha256": "2" * 64,
        "runtime": "onnxruntime 1.33.0",
        "fingerprint": "new",
    }
    (found,) = changes(series(levels((20, 8.0), (20, 8.8)), 20, **after))
    assert [cause.kind for cause in found.causes] == ["model", "tool", "device"]


def test_a_cause_one_night_away_is_named() -> None:
    """Noise may move a change-point by one."""
    (found,) = changes(series(levels((20, 8.0), (20, 8.8)), 19, source_sha256="2" * 64))
    assert [cause.kind for cause in found.causes] == ["model"]


def test_a_change_weeks_away_is_no_cause() -> None:
    """Else every update would explain every step."""
    (found,) = changes(series(levels((20, 8.0), (20, 8.8)), 8, source_sha256="2" * 64))
    assert found.causes == (NO_CAUSE,)


def test_a_device_that_says_nothing_explains_nothing() -> None:
    """Unreadable sysfs is no cause, and no error."""
    mute: dict[str, Any] = {"before": Moment(), "after": Moment(), "clocks": {}}
    line = [replace(one, **mute) for one in series(levels((20, 8.0), (20, 8.8)), 20)]
    assert changes(line)[0].causes == (NO_CAUSE,)


def test_only_sessions_around_a_step_are_looked_up() -> None:
    """Five on each side, once; of a quiet series none: a year is long."""
    asked: list[set[str]] = []

    def look_up(keys: Collection[str]) -> dict[str, StoredSession]:
        asked.append(set(keys))
        return {}

    for values in (levels((40, 8.0)), levels((20, 8.0), (20, 8.8))):
        found = changes_of([point(one) for one in series(values, 20)], look_up)
    assert asked == [{f"key-{number}" for number in range(15, 25)}]
    assert found[0].causes == (NO_CAUSE,)  # they are not there any more: pruned meanwhile


def test_kinds_of_evidence_are_never_one_series() -> None:
    """A simulated night after measured ones is no step of the phone."""
    mixed = series(levels((20, 8.0), (20, 80.0)), 20, evidence="simulated")
    with pytest.raises(ValueError, match="different lines"):
        changes(mixed)
