"""`android_harness.regressions.quality`: outputs, accuracy and size compared with earlier sessions."""

from __future__ import annotations

from typing import Any

import pytest

from android_harness.regressions.quality import worse_quality
from android_harness.regressions.records import Limits
from tests.history.stored import night

BEFORE = tuple(
    night(place, sqnr_db=40.0, top1_agreement=0.98, accuracy=0.71, max_error=1e-3, size_bytes=10_000_000)
    for place in range(3)
)
SAME: dict[str, Any] = {
    name: getattr(BEFORE[0], name)
    for name in ("sqnr_db", "top1_agreement", "accuracy", "max_error", "size_bytes")
}
JUST = {
    "sqnr_db": (39.01, 38.99),
    "top1_agreement": (0.961, 0.959),
    "accuracy": (0.7001, 0.6999),
    "max_error": (1.99e-3, 2.01e-3),
    "size_bytes": (10_099_999, 10_100_001),
}


def figures(**changes: Any) -> list[str]:
    return [worsening.figure for worsening in worse_quality(night(9, **SAME | changes), BEFORE)]


@pytest.mark.parametrize("figure", JUST)
def test_each_figure_has_its_limit(figure: str) -> None:
    """A value within its limit is accepted, one beyond it is reported, and nothing else is."""
    within, beyond = JUST[figure]
    assert figures(**{figure: within}) == []
    assert figures(**{figure: beyond}) == [figure]


@pytest.mark.parametrize("figure", JUST)
def test_an_unknown_figure_is_not_worse(figure: str) -> None:
    """An artifact without evaluation data has no accuracy to lose."""
    assert figures(**{figure: None}) == []


def test_better_is_not_worse() -> None:
    """An improvement of any figure is accepted."""
    better = {"sqnr_db": 60.0, "top1_agreement": 1.0, "accuracy": 0.9, "max_error": 1e-6, "size_bytes": 5}
    assert figures(**better) == []


def test_without_sessions_before_nothing_got_worse() -> None:
    """The first night has nothing to be compared with."""
    assert worse_quality(night(9, problem="wrong"), ()) == ()


def test_wrong_outputs_are_named_where_they_were_right() -> None:
    """The reason of the device's check is part of the report."""
    (worsening,) = worse_quality(night(9, **SAME, problem="NaN in logits"), BEFORE)
    assert worsening.figure == "outputs"
    assert "NaN in logits" in worsening.reason


def test_quality_is_compared_whatever_the_heat() -> None:
    """Unstable times do not excuse wrong outputs, and other Android versions compute the same."""
    before = [night(place, sqnr_db=40.0, flags=("heat: hot",), fingerprint="old") for place in range(3)]
    assert [worsening.figure for worsening in worse_quality(night(9, sqnr_db=20.0), before)] == ["sqnr_db"]


def test_another_series_is_refused() -> None:
    """Another artifact has another quality."""
    with pytest.raises(ValueError, match="another series"):
        worse_quality(night(9), [night(0, artifact="onnx-int8")])


def test_a_figure_is_compared_with_the_median() -> None:
    """The median decides: one bad night before does not excuse this one."""
    before = (*BEFORE[:2], night(2, **SAME | {"sqnr_db": 10.0}))
    (worsening,) = worse_quality(night(9, **SAME | {"sqnr_db": 38.5}), before)
    assert (worsening.figure, worsening.before, worsening.now) == ("sqnr_db", 40.0, 38.5)
    assert worse_quality(night(9, **SAME | {"sqnr_db": 38.5}), before, Limits(sqnr_db=2.0)) == ()


def test_outputs_that_were_always_wrong_did_not_get_worse() -> None:
    """Outputs that are wrong tonight as always are not reported again."""
    before = [night(place, **SAME, problem="NaN in logits") for place in range(3)]
    assert worse_quality(night(9, **SAME, problem="NaN in logits"), before) == ()
    assert worse_quality(night(9, **SAME, problem="NaN in logits"), [*before, BEFORE[0]]) != ()
