from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from exporter.records import MixedPoint, OperatorCost
from exporter.report import quantization_plots
from exporter.verify import pareto
from tests.report import sample


def point(p50_ms: float, sqnr_db: float, variant: str = "onnx-mixed", **more: bool) -> MixedPoint:
    return MixedPoint(variant, ("conv2d",), sqnr_db, 1.0, p50_ms, 4_000_000, more.pop("passed", True), **more)


def words(svg: str | None) -> list[str]:
    return re.findall(r"<text [^>]*>([^<]*)</text>", svg or "")


def test_the_costliest_operators_are_named_by_their_layer() -> None:
    """Those with the least SQNR, and no others."""
    costs = sample.operator_costs()
    worst = sorted(costs, key=lambda cost: cost.sqnr_db)
    svg = quantization_plots.plot_quantization_by_operator(costs)
    assert {cost.layer for cost in worst[: quantization_plots.NAMED]} <= set(words(svg))
    assert not {cost.layer for cost in worst[quantization_plots.NAMED :]} & set(words(svg))


def test_an_operator_outside_any_layer_has_its_own_name() -> None:
    """A sum written in `forward` has no module's path."""
    assert "add_7" in words(
        quantization_plots.plot_quantization_by_operator([OperatorCost("add_7", "", "add", 0.01)])
    )


def test_a_long_path_is_shortened_at_its_start() -> None:
    """What tells layers apart is at the end."""
    path = "backbone.encoder.layers.11.attention.output.dense"
    [label] = [
        word
        for word in words(
            quantization_plots.plot_quantization_by_operator([OperatorCost("a", path, "linear", 0.01)])
        )
        if "…" in word
    ]
    assert path.endswith(label.removeprefix("…"))


@pytest.mark.parametrize("noise", [0.0, math.nan, math.inf])
def test_costs_that_are_not_finite_do_not_break_the_plot(noise: float) -> None:
    """Infinite costs are drawn with finite ones; alone they give no plot."""
    odd = OperatorCost("odd", "odd.one", "conv2d", noise)
    assert "fine.one" in words(
        quantization_plots.plot_quantization_by_operator(
            [OperatorCost("fine", "fine.one", "conv2d", 0.01), odd]
        )
    )
    assert quantization_plots.plot_quantization_by_operator([odd]) is None


def test_the_costliest_come_first() -> None:
    """Not a number is the worst that can happen, infinite noise next, none at all last."""
    noises = [0.1, 0.0, math.inf, 0.3, math.nan]
    ordered = quantization_plots.costliest_for_quantization_plot(
        [OperatorCost(str(n), "", "conv2d", n) for n in noises]
    )
    assert [cost.name for cost in ordered] == ["nan", "inf", "0.3", "0.1", "0.0"]


def test_the_front_holds_what_nothing_beats() -> None:
    """A slower point with no more SQNR is not on it, nor an equally fast one with less; a smaller one is."""
    fast, better, worse, best, tied = (point(1, 20), point(2, 25), point(3, 24), point(4, 26), point(1, 19))
    assert pareto.pareto_front([best, worse, tied, better, fast]) == [fast, better, best]
    smaller = replace(worse, size_bytes=worse.size_bytes - 1)
    assert pareto.pareto_front([best, smaller, tied, better, fast]) == [fast, better, smaller, best]


def test_the_front_names_runtimes_int8_counts_and_the_choice() -> None:
    """Each runtime in the legend, int8 and the number of operators in float at the points."""
    drawn = words(quantization_plots.plot_quantization_mixes(sample.mixed_points()))
    assert {"executorch-xnnpack", "onnx", "int8", "+1", "+4, chosen", "+9"} <= set(drawn)
    assert (drawn.count("int8"), drawn.count("+4, chosen"), drawn.count("+4")) == (2, 2, 0)


def test_what_failed_is_hollow() -> None:
    """A point is filled exactly when it passed."""
    filled = [
        (quantization_plots.plot_quantization_mixes([point(1, 20, passed=passed)]) or "").count("fill: none")
        for passed in (True, False)
    ]
    assert filled[1] == filled[0] + 1


def test_no_finite_point_gives_no_plot() -> None:
    """A search whose files all gave NaN has a table and no axes."""
    assert quantization_plots.plot_quantization_mixes([]) is None
    assert quantization_plots.plot_quantization_mixes([replace(point(1, 20), sqnr_db=math.nan)]) is None
