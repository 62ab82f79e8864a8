"""`android_harness.regressions.changes`: where a series changed to another level, and why."""

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
from android_harness.regressions.changes import change_points, noise_between_changes
from android_harness.regressions.changes import changes_of_series as changes_of
from android_harness.regressions.records import Change
from tests.history.stored import ONE, night, point


def levels(*parts: tuple[int, float], noise: float = 0.01, seed: int = 3) -> list[float]:
    """Return values for (nights, milliseconds), with log-normal noise."""
    rng = random.Random(seed)
    return [ms * rng.lognormvariate(0, noise) for count, ms in parts for _ in range(count)]


def series(values: Sequence[float], at: int, **after: Any) -> list[StoredSession]:
    """Return a series whose sessions have other fields from `at` on."""
    return [
        night(place, p50_ms=value, **(after if place >= at else {})) for place, value in enumerate(values)
    ]


def changes(sessions: Sequence[StoredSession]) -> tuple[Change, ...]:
    """Return the changes of a series, with a history that contains its sessions."""
    known = {session.key: session for session in sessions}
    return changes_of(
        [point(session) for session in sessions], lambda keys: {key: known[key] for key in keys}
    )


@pytest.mark.parametrize(
    ("parts", "nights"),
    [(((20, 8.0), (20, 8.8)), (20,)), (((20, 8.0), (15, 8.8), (15, 7.5)), (20, 35))],
)
def test_steps_are_found_where_they_are(
    parts: tuple[tuple[int, float], ...], nights: tuple[int, ...]
) -> None:
    """Steps of a tenth, up and down, are found in noise of a percent."""
    assert change_points(levels(*parts)) == nights


@pytest.mark.parametrize("seed", range(10))
def test_noise_has_no_steps(seed: int) -> None:
    """Noise of a percent has no steps over a season."""
    assert change_points(levels((90, 8.0), seed=seed)) == ()


def test_a_restless_year_has_no_steps() -> None:
    """A longer series needs a larger step in noise of three percent."""
    years = [levels((365, 8.0), noise=0.03, seed=seed) for seed in range(8)]
    assert [change_points(year) for year in years] == [()] * len(years)


def test_noise_is_that_around_the_levels() -> None:
    """The noise is a standard deviation, whatever steps or drift the series has."""
    logs = np.log(levels((1000, 8.0), (1000, 9.0)))
    assert noise_between_changes(logs) == pytest.approx(0.01, rel=0.05)
    assert noise_between_changes(logs + 0.05 * np.arange(len(logs))) == pytest.approx(0.01, rel=0.05)


def test_single_outliers_are_no_steps() -> None:
    """A night in which somebody used the phone is not a new level."""
    values = levels((40, 8.0))
    for place in (7, 8, 30):
        values[place] *= 1.4
    assert change_points(values) == ()


def test_a_small_step_is_none() -> None:
    """A step of one percent of a very calm series is true but irrelevant."""
    assert change_points(levels((40, 8.0), (40, 8.08), noise=0.0001)) == ()
    assert change_points(levels((40, 8.0), (40, 8.24), noise=0.0001)) == (40,)


def test_small_steps_join_their_levels_and_leave_the_others() -> None:
    """A step of a tenth with one of a percent on top is one step."""
    assert change_points(levels((20, 8.0), (20, 8.8), (20, 8.88), noise=0.0001)) == (20,)


def test_a_level_has_three_sessions() -> None:
    """Six nights may have two levels; two slow nights at the end are not a level."""
    assert change_points([8.0] * 3 + [10.0] * 3) == (3,)
    assert 40 not in change_points(levels((40, 8.0), (2, 12.0)))


@pytest.mark.parametrize("count", range(6))
def test_a_few_sessions_have_no_levels(count: int) -> None:
    """Even six sessions have none, and that is not an error."""
    assert change_points([8.0, 8.0, 8.0, 80.0, 80.0][:count]) == ()


def test_equal_values_have_no_noise_and_no_steps() -> None:
    """A simulated clock may be that exact."""
    assert change_points([8.0] * 30) == ()


def test_a_change_tells_its_levels() -> None:
    """A change has the medians of both sides, and the first session of the new level."""
    values = levels((20, 8.0), (20, 8.8), noise=0.001)
    (change,) = changes(series(values, 20))
    assert (change.index, change.key) == (20, "key-20")
    assert change.started_at == night(20).started_at
    assert change.before_ms == pytest.approx(8.0, rel=0.002)
    assert change.slower == pytest.approx(0.1, rel=0.05)


def test_levels_lie_between_steps() -> None:
    """Each level is the median of its own nights: neither an outlier nor the next level moves it."""
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
    """Nothing else is named: unchanged fields explain nothing."""
    after, kind, words = CAUSES[name]
    (change,) = changes(series(levels((20, 8.0), (20, 8.8)), 20, **after))
    (cause,) = change.causes
    assert cause.kind == kind
    assert words in cause.description


def test_a_flag_that_is_gone_is_named() -> None:
    """A phone that was capped until then is faster for that reason."""
    sessions = series(levels((20, 8.8), (20, 8.0)), 20)
    sessions[:20] = [replace(session, flags=("cap: held",)) for session in sessions[:20]]
    (cause,) = changes(sessions)[0].causes
    assert cause.description == "The flag cap is gone."


TOO_LITTLE: dict[str, dict[str, Any]] = {
    "three degrees": {"before": replace(ONE.before, battery_celsius=31.0)},
    "two percent of a clock": {"clocks": {**ONE.clocks, "policy7 mean khz": 2_785_000}},
    "a rare flag": {"flags": ("cap: held",)},
}


@pytest.mark.parametrize("name", TOO_LITTLE)
def test_a_little_explains_nothing(name: str) -> None:
    """Every night differs a little, and a flag of one night does not belong to its level."""
    sessions = series(levels((20, 8.0), (20, 8.8)), 20, **TOO_LITTLE[name])
    if name == "a rare flag":
        sessions[21:] = [replace(session, flags=()) for session in sessions[21:]]
    assert changes(sessions)[0].causes == (NO_CAUSE,)


@pytest.mark.parametrize(
    ("night", "after"),
    [(17, {"source_sha256": "2" * 64}), (8, {"source_sha256": "2" * 64}), (20, {})],
    ids=["a change three nights before", "a change weeks away", "no change at all"],
)
def test_what_was_not_new_that_night_is_no_cause(night: int, after: dict[str, Any]) -> None:
    """A change-point is misplaced by one night at most, and an unknown cause is not guessed."""
    (change,) = changes(series(levels((20, 8.0), (20, 8.8)), night, **after))
    assert change.causes == (NO_CAUSE,)


def test_all_causes_of_one_night_are_named() -> None:
    """A new checkpoint and a new runtime in the same night are both named."""
    after: dict[str, Any] = {
        "source_sha256": "2" * 64,
        "runtime": "onnxruntime 1.33.0",
        "fingerprint": "new",
    }
    (change,) = changes(series(levels((20, 8.0), (20, 8.8)), 20, **after))
    assert [cause.kind for cause in change.causes] == ["model", "tool", "device"]


def test_a_cause_one_night_away_is_named() -> None:
    """Noise may move a change-point by one night."""
    (change,) = changes(series(levels((20, 8.0), (20, 8.8)), 19, source_sha256="2" * 64))
    assert [cause.kind for cause in change.causes] == ["model"]


def test_a_device_that_says_nothing_explains_nothing() -> None:
    """Unreadable sysfs files are neither a cause nor an error."""
    mute: dict[str, Any] = {"before": Moment(), "after": Moment(), "clocks": {}}
    sessions = [replace(session, **mute) for session in series(levels((20, 8.0), (20, 8.8)), 20)]
    assert changes(sessions)[0].causes == (NO_CAUSE,)


def test_only_sessions_around_a_step_are_looked_up() -> None:
    """Five sessions on each side are read at once; a series without a step needs none."""
    asked: list[set[str]] = []

    def look_up(keys: Collection[str]) -> dict[str, StoredSession]:
        asked.append(set(keys))
        return {}

    for values in (levels((40, 8.0)), levels((20, 8.0), (20, 8.8))):
        found_changes = changes_of([point(session) for session in series(values, 20)], look_up)
    assert asked == [{f"key-{number}" for number in range(15, 25)}]
    assert found_changes[0].causes == (NO_CAUSE,)  # the sessions were pruned meanwhile


def test_kinds_of_evidence_are_never_one_series() -> None:
    """A simulated night after measured ones is not a step of the phone."""
    mixed = series(levels((20, 8.0), (20, 80.0)), 20, evidence="simulated")
    with pytest.raises(ValueError, match="different series"):
        changes(mixed)
