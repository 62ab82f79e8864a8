"""Figures and limits that verdicts are made of, each against a value that was worked out by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.records import (
    Accuracy,
    Array,
    Comparison,
    DeviceLatency,
    Limits,
    MixedPoint,
    Precision,
    WorstChannel,
)
from exporter.verify import (
    accuracy,
    budget,
    discrete,
    judge,
    labelled_loss,
    limits_to_judge_by,
    pareto,
    reference_io,
    ties,
)
from exporter.verify.compare_outputs import (
    compare_agreement,
    compare_max_error,
    compare_outputs,
    compare_repeats,
    compare_sqnr_db,
    compare_typical_sqnr_db,
)
from exporter.verify.discrete import DiscreteOutput, compare_discrete
from exporter.verify.gates import edges_gate, whole_output
from exporter.verify.reference_io import Lowering, ReferenceIO
from exporter.verify.tolerance import Tolerance
from tests.verify import observed

# Accuracy on classes.


def by_definition(right: int, lost: int, gained: int, count: int) -> tuple[float, float]:
    """Return Newcombe's method 10 as his paper writes it, in points."""
    e, f, g = right - gained, lost, gained
    h = count - e - f - g
    first, second = (e + f) / count, (e + g) / count
    l1, u1 = accuracy.accuracy_interval(e + f, count)
    l2, u2 = accuracy.accuracy_interval(e + g, count)
    margins = (e + f) * (g + h) * (e + g) * (f + h)
    top = float(e * h - f * g)
    top = max(top - count / 2, 0) if top > 0 else top
    phi = top / math.sqrt(margins) if margins else 0.0
    d1, d2, d3, d4 = first - l1, u2 - second, u1 - first, second - l2
    low = math.sqrt(max(d1**2 - 2 * phi * d1 * d2 + d2**2, 0))
    high = math.sqrt(max(d3**2 - 2 * phi * d3 * d4 + d4**2, 0))
    return 100 * max(first - second - low, -1), 100 * min(first - second + high, 1)


def test_the_interval_of_a_drop_is_newcombes_for_every_table() -> None:
    """All tables of 9 samples, and one of Newcombe's own examples: 36 both, 12 lost, 2 gained of 50."""
    for right, lost, gained in itertools.product(range(10), repeat=3):
        if gained <= right and right + lost <= 9:
            counts = Accuracy(9, right, None, lost, gained)
            assert accuracy.accuracy_drop_interval(counts) == pytest.approx(
                by_definition(right, lost, gained, 9)
            )
    example = accuracy.accuracy_drop_interval(Accuracy(50, 38, None, 12, 2))
    assert example == pytest.approx((5.69, 34.04), abs=0.01)
    assert accuracy.accuracy_drop(Accuracy(50, 38, None, 12, 2)) == 20.0


def test_no_samples_say_nothing() -> None:
    """The widest intervals, and no drop."""
    nothing = Accuracy(0, 0, None)
    assert accuracy.accuracy_interval(0, 0) == (0.0, 1.0)
    assert accuracy.accuracy_drop_interval(nothing) == (-100.0, 100.0)
    assert math.isnan(accuracy.accuracy_drop(nothing))
    assert math.isnan(accuracy.accuracy_share(0, 0))


def test_ranks_are_small_numbers_and_nan_is_last() -> None:
    """Five of six classes, the lower one first among equals."""
    ranked = accuracy.rank_for_accuracy(np.array([[0.1, np.nan, 0.3, 0.3, -1, 0.2]], np.float16))
    assert ranked.dtype == np.int32
    assert ranked.tolist() == [[2, 3, 5, 0, 4]]


@pytest.mark.parametrize(("limit", "unsure"), [(1.0, False), (1.5, True), (3.0, False)])
def test_a_limit_at_the_end_of_an_interval_is_certain(
    limit: float, unsure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Doubt is strictly between both ends."""
    monkeypatch.setattr(accuracy, "accuracy_drop_interval", lambda _: (1.0, 3.0))
    assert bool(labelled_loss.labelled_loss_doubt({"a": Accuracy(9, 9, None)}, limit)) is unsure


# Comparisons.


def test_the_median_channel_decides_the_typical_sqnr() -> None:
    """One of four channels is wrong by its own size; the second of the sorted others counts."""
    y = np.full((2, 1, 4, 5), 2.0)
    a = y + np.array([0.0, 0.02, 0.2, 2.0])[:, None]
    assert compare_typical_sqnr_db(y, a) == pytest.approx(40.0)
    assert compare_sqnr_db(y, a) == pytest.approx(10 * math.log10(16 / (4.0404)))
    assert compare_typical_sqnr_db(y[:, :, 0], a[:, :, 2]) == compare_sqnr_db(y[:, :, 0], a[:, :, 2])
    assert compare_typical_sqnr_db(y, y) == math.inf
    assert compare_typical_sqnr_db(0 * y, a) == -math.inf
    assert compare_typical_sqnr_db(np.zeros((0, 1, 4)), np.zeros((0, 1, 4))) == math.inf


def test_imaginary_parts_are_compared() -> None:
    """A turned sign of the imaginary part alone is an error of twice its size."""
    y = np.array([3 + 4j, 1 + 0j])
    assert compare_max_error(y, y.conj()) == pytest.approx(8 / 5)
    assert compare_sqnr_db(y, y.conj()) == pytest.approx(10 * math.log10(26 / 64))


def test_answers_may_differ_by_ties_only() -> None:
    """Scores that rounding holds equal are both right; two equal answers share a sample."""
    y = np.array([[[1.0, 0.95, 0.0]]] * 3)
    a = np.array([[[0.9, 1.0, 0.0]], [[1.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]])
    assert compare_agreement(y, a) == pytest.approx([0, 0.5, 0])
    assert compare_agreement(y, a, tied=0.05 + 1e-12) == pytest.approx([1, 1, 0])
    assert compare_agreement(y[:, :, :1], a[:, :, :1]) is None
    assert compare_agreement(y.astype(int), a.astype(int)) is None


def test_whole_outputs_give_the_figures_where_there_are_no_floats() -> None:
    """The share of wrong values is the largest error, and decibels are meaningless."""
    y = np.arange(10).reshape(10, 1)
    a = y.copy()
    a[0] += 1
    compared = compare_outputs((y,), (a,))
    assert (compared.samples, compared.agreement) == (10, 0.9)
    assert compared.max_error == pytest.approx(0.1)
    assert math.isnan(compared.sqnr_db)
    right = compare_outputs((y,), (y,))
    assert (right.max_error, right.sqnr_db, right.agreement) == (0.0, math.inf, 1.0)
    both = compare_outputs((y, y * 1.0), (a, y * 1.0))
    assert (both.max_error, both.sqnr_db, both.agreement) == (0.0, math.inf, 0.9)


@pytest.mark.parametrize(
    ("first", "again", "same"), [(1.0, 1.0 + 0.9e-6, True), (1.0, 1.0 + 1.1e-6, False), (0.0, 0.0, True)]
)
def test_a_second_run_may_differ_by_a_millionth(first: float, again: float, same: bool) -> None:
    """The reason tells by how much."""
    said = compare_repeats((np.array([first]), np.array([1.0])), (np.array([again]), np.array([1.0])))
    assert (said == "") is same
    assert same or "1.1e-06" in said
    assert compare_repeats((), ()) == ""


# Class numbers and indices.


def choices(
    y: Array, a: Array, *scores: Array, unstable: Array | None = None, tolerance: float | None = None
) -> DiscreteOutput:
    shaky = () if unstable is None else (unstable, *(np.zeros(s.shape, bool) for s in scores))
    within = () if tolerance is None else (0.0, *[tolerance] * len(scores))
    compared = compare_discrete((y, *scores), (a, *scores), shaky, within)
    assert len(compared) == 1
    return compared[0]


def test_values_are_counted() -> None:
    """One of twelve values is unstable and two of the others differ; the first one is named."""
    y = np.arange(12).reshape(3, 4)
    a = y.copy()
    a[0, 1], a[2, 0], a[2, 3] = 77, 78, 79
    unstable = y == 1
    found = choices(y, a, unstable=unstable)
    assert astuple(found)[:6] == (0, 11, 1, 2, "input 2: 78 instead of 8", "")
    assert found.shares.tolist() == [1.0, 1.0, 0.5]
    assert found.share == pytest.approx(9 / 11)
    assert choices(y, y, unstable=y >= 0).share == 1.0


@pytest.mark.parametrize(
    ("apart", "tolerance", "wrong"), [(0.0, 0.0, 0), (0.1, 0.0, 1), (0.1, 0.11, 0), (0.1, 0.09, 1)]
)
def test_an_index_of_an_equal_score_is_right_within_the_tolerance(
    apart: float, tolerance: float, wrong: int
) -> None:
    """An index is judged by the score that it points at, and only by the tolerance of those scores."""
    scores = np.array([[[0.1, 0.9, 0.9 - apart]], [[0.9, 0.2, 0.1]]])
    y, a = np.array([[[1]], [[0]]]), np.array([[[2]], [[0]]])
    assert choices(y, a, scores, tolerance=tolerance).different == wrong


def test_indices_along_any_axis_are_recognised() -> None:
    """Largest and smallest first, with and without the axis; other numbers are no choice."""
    scores = np.array([[[3.0, 1, 2], [9, 8, 8]]])  # [1, 2, 3]
    for y, a in (
        (np.array([[0, 0]]), np.array([[0, 0]])),  # argmax over the last axis
        (np.array([[[1], [1]]]), np.array([[[1], [2]]])),  # argmin, kept axis: 8 twice
        (np.array([[1, 1, 1]]), np.array([[1, 1, 1]])),  # argmax over the middle axis
        (np.array([[[0, 2, 1], [0, 1, 2]]]), np.array([[[0, 2, 1], [0, 2, 1]]])),  # the whole order
    ):
        assert choices(y, a, scores).different == 0
    for y, a in (
        (np.array([[2, 2]]), np.array([[2, 1]])),  # neither largest nor smallest: no choice
        (np.array([[0, 0]]), np.array([[0, 3]])),  # beyond the axis
        (np.array([[0, 0]]), np.array([[0, -1]])),
        (np.array([[[0, 2], [0, 1]]]), np.array([[[0, 2], [1, 1]]])),  # the same index twice
    ):
        assert choices(y, a, scores).different > 0


def test_a_repeated_index_condemns_its_own_row_only() -> None:
    """The other row of equal scores stays right."""
    scores = np.zeros((1, 2, 3))
    y = np.array([[[0, 1, 2], [0, 1, 2]]])
    a = np.array([[[2, 1, 0], [1, 1, 0]]])
    assert choices(y, a, scores).different == 2


@pytest.mark.parametrize(("count", "kept", "lost"), [(10, 4, True), (10, 5, False), (9, 0, False)])
def test_a_class_is_lost_below_half_of_ten(count: int, kept: int, lost: bool) -> None:
    """The class that is kept worst is named."""
    y = np.concatenate([np.full(count, 7), np.full(40, 1), np.full(20, 3)])[:, None]
    a = y.copy()
    a[kept:count] = 1
    a[count + 40 + 9 :] = 1  # class 3 keeps 9 of 20
    name = f"7 is kept in {kept} of {count} values" if lost else "3 is kept in 9 of 20 values"
    assert choices(y, a).lost == name


def test_positions_are_no_classes() -> None:
    """More than a thousand different values hold none; a thousand do."""
    y = np.arange(1000).repeat(10)[:, None]
    assert choices(y, y + 1).lost.endswith("is kept in 0 of 10 values")
    y = np.arange(1001).repeat(10)[:, None]
    assert choices(y, y + 1).lost == ""
    assert [discrete.is_discrete(np.zeros(1, kind)) for kind in "fFdDib?"] == [False] * 4 + [True] * 3


# Ties.


def test_rows_of_equal_scores_come_into_the_models_order() -> None:
    """Only within the tolerance, each sample and batch for itself, and every partner with its rows."""
    scores = np.array([[[0.9, 0.5, 0.5, 0.1]], [[0.9, 0.8, 0.2, 0.1]]])
    boxes = np.arange(2 * 4 * 2.0).reshape(2, 1, 4, 2)
    labels = np.arange(8).reshape(2, 1, 4)
    order = [0, 2, 1, 3]
    actual = tuple(y[:, :, order] for y in (scores, boxes, labels))
    untied = ties.undo_ties_of_outputs((scores, boxes, labels), actual, (0.0, 0.0, 0.0))
    for y, a, mixed in zip((scores, boxes, labels), untied, actual, strict=True):
        assert np.array_equal(a[0], y[0])
        assert np.array_equal(a[1], mixed[1])
    assert ties.undo_ties_of_outputs((scores, boxes), actual[:2], (0.65, 0.0))[1].tolist() == boxes.tolist()
    assert ties.undo_ties_of_outputs((scores,), (actual[0],), (0.0,))[0] is actual[0]


@pytest.mark.parametrize(
    ("scores", "is_sorted"),
    [
        ([0.1, 0.1, 0.3], True),
        ([0.3, 0.1, 0.1], True),
        ([0.1, 0.3, 0.2], False),
        ([3.0, 5, 4], False),
        ([1.0], False),
    ],
)
def test_sorted_scores_rise_or_fall(scores: list[float], is_sorted: bool) -> None:
    """Steps of any size count, and a single row is in no order; whole numbers are no scores."""
    stack = np.array([[scores]])
    assert ties._is_tie_sorted(stack) is is_sorted
    assert not ties._is_tie_sorted(stack.astype(int))
    assert not ties._is_tie_sorted(stack[..., None])


def test_rows_are_matched_by_their_share_of_the_largest_value() -> None:
    """Distances of outputs of different sizes add up; whole numbers are alike or not."""
    y = np.array([[10.0, 0], [0, 20]])
    assert ties._tie_distances(y, y[::-1]).tolist() == [[0.75, 0.0], [0.0, 0.75]]
    assert ties._tie_distances(0 * y, y)[0].tolist() == [5.0, 10.0]
    numbers = np.array([[1, 2], [3, 4]])
    assert ties._tie_distances(numbers, np.array([[1, 9], [3, 4]])).tolist() == [[0.5, 1.0], [1.0, 0.0]]
    assert ties._match_ties(np.array([[0.2, 0.1], [0.9, 0.0]])).tolist() == [0, 1]


# Limits.


@pytest.mark.parametrize(
    ("precision", "agree", "typical", "expected"),
    [
        ("fp32", None, 0.0, Tolerance(-20 * math.log10(1e-3), 10.0, 1e-4)),
        ("fp16", None, 0.0, Tolerance(35.0, 10.0, 2.0**-10, 2.0**-11)),
        ("int8", 0.99, 12.0, Tolerance(12.0, 10.0, 2 / 127)),
        ("int8", 0.99, 50.0, Tolerance(20.0, 10.0, 2 / 127)),
        ("int8", 0.5, 12.0, Tolerance(20.0, 10.0, 2 / 127)),
        ("w4", None, 12.0, Tolerance(20.0, 10.0, 1 / 7)),
    ],
)
def test_what_a_precision_may_cost_a_channel(
    precision: Precision, agree: float | None, typical: float, expected: Tolerance
) -> None:
    """A quantised artifact that agrees is held to its median channel, and never to less than its limit."""
    limits = replace(
        Limits(), fp32_max_error=1e-4, fp32_floor_factor=10.0, fp16_min_sqnr_db=35.0, int8_min_sqnr_db=20.0
    )
    comparison = Comparison(1, 0.0, 0.0, agree)
    own = limits_to_judge_by.tolerance_to_judge_by(precision, comparison, limits, typical)
    assert [getattr(own, f.name) for f in fields(own)] == pytest.approx(
        [getattr(expected, f.name) for f in fields(expected)]
    )


def made_references(**more: object) -> ReferenceIO:
    y = np.array([[[4.0, -8.0]], [[2.0, 1.0]]])
    return replace(observed.made_references(y, np.array([[[1, 5]], [[2, 3]]])), **more)  # type: ignore[arg-type]


def test_values_next_to_each_other_may_change_places_in_float16() -> None:
    """Ten times eager's own error; in float16 a thousandth of the largest float."""
    own = made_references(eager_errors=(np.array([[1e-6, 3e-6]]), np.zeros((2, 1, 2), bool)))
    limits = replace(Limits(), fp32_floor_factor=10.0)
    assert limits_to_judge_by.tie_widths_to_judge_by(own, limits, "fp32") == pytest.approx((3e-5, 0.0))
    assert limits_to_judge_by.tie_widths_to_judge_by(own, limits, "fp16") == pytest.approx((8 / 1024, 0.0))
    unknown = made_references(eager_errors=(), floor=1e-3)
    assert limits_to_judge_by.tie_widths_to_judge_by(unknown, limits, "int8") == pytest.approx(
        (10 * 1e-3 * 8, 10 * 1e-3 * 5)
    )


def test_the_worst_edge_gives_every_figure() -> None:
    """Each figure is the worst of all edges; a problem of any is the problem."""
    one, other = Comparison(1, 0.1, 30.0, 0.5), Comparison(1, 0.2, 40.0, None, "It is wrong.")
    assert judge._worst_edge_judged({"a": one, "b": other}) == Comparison(2, 0.2, 30.0, None, "It is wrong.")
    assert judge._worst_edge_judged({"a": one}) == Comparison(1, 0.1, 30.0, None, "")
    assert judge._worst_edge_judged({}) is None


def test_edges_are_put_into_order_each_on_its_own() -> None:
    """Equal scores of one edge say nothing about another; all outputs of an edge come along."""
    scores = np.array([[[0.5, 0.5]], [[0.9, 0.1]]])
    numbers = np.array([[[1, 2]], [[3, 4]]])
    own = replace(
        observed.made_references(scores, numbers, edge_names=("flat", "bright")),
        edge_reference=(scores, numbers),
    )
    turned = (scores[..., ::-1].copy(), numbers[..., ::-1].copy())
    ordered = judge._undo_edge_ties_to_judge(own, turned, (0.0, 0.0))
    assert ordered[1].tolist() == [[[1, 2]], [[4, 3]]]
    assert ordered[0].tolist() == [[[0.5, 0.5]], [[0.1, 0.9]]]
    nothing = observed.made_references(scores, numbers)
    assert judge._undo_edge_ties_to_judge(nothing, turned, (0.0, 0.0)) is turned


def test_each_edge_input_has_a_limit_of_its_own() -> None:
    """Ten times eager's error there, that of real inputs, or the fixed one: the largest."""
    limits = replace(Limits(), fp32_max_error=1e-4, fp32_floor_factor=10.0)
    own = made_references(edge_names=("a", "b"), edge_floors=(3e-5, 1e-9), floor=1e-7)
    assert edges_gate.edges_gate_limits(own, limits) == pytest.approx({"a": 3e-4, "b": 1e-4})
    old = made_references(edge_names=("a", "b"), edge_floors=(), edge_floor=2e-4, floor=1e-3)
    assert edges_gate.edges_gate_limits(old, limits) == pytest.approx({"a": 1e-2, "b": 1e-2})


def test_energies_are_means_of_squares() -> None:
    """Imaginary parts count, and small integers do not overflow."""
    assert edges_gate._edges_gate_energy(np.array([3 + 4j, 0])) == 12.5
    assert edges_gate._edges_gate_energy(np.array([100, 100], np.int8)) == 10000.0
    assert edges_gate._edges_gate_energy(np.array([300.0], np.float16)) == 90000.0


LIMIT = "with the float64 model; the limit is 20 dB"


class _Whole:
    """As much of an observation as the gate of whole outputs reads."""

    def __init__(self, precision: str, sqnr_db: float, agree: float | None, error: float = 0.0) -> None:
        self.precision = precision
        self.references = observed.made_references(np.ones((2, 1, 3)))
        self.comparison = Comparison(2, error, sqnr_db, agree)
        self.limits = {"min_sqnr_db": 20.0, "min_agreement": 0.9, "max_error": 1e-4}
        self.worst_channel: WorstChannel | None = None


@pytest.mark.parametrize(
    ("precision", "sqnr_db", "agree", "says"),
    [
        ("int8", 20.0, None, ""),
        ("int8", 19.9, None, f"It reaches 19.9 dB SQNR {LIMIT} or 90%."),
        ("int8", 19.9, 0.9, ""),
        ("int8", 19.9, 0.89, f"It reaches 19.9 dB SQNR and 89.0% agreement {LIMIT} or 90%."),
        ("int8", 25.0, 0.1, ""),
        ("int8", 0.0, 1.0, ""),
        ("int8", -0.1, 1.0, "Its error is louder than its output (-0.1 dB SQNR), whatever the agreement."),
        ("fp16", 20.0, 0.9, ""),
        ("fp16", 20.0, None, ""),
        ("fp16", 19.0, 1.0, f"It reaches 19.0 dB SQNR and 100.0% agreement {LIMIT} and 90%."),
        ("fp16", 30.0, 0.8, f"It reaches 30.0 dB SQNR and 80.0% agreement {LIMIT} and 90%."),
    ],
)
def test_lossy_limits_of_whole_outputs(
    precision: str, sqnr_db: float, agree: float | None, says: str
) -> None:
    """float16 must keep both figures, a quantised artifact one of the two, and none may drown its output."""
    assert whole_output.whole_output_gate(_Whole(precision, sqnr_db, agree)) == says  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("precision", "sqnr", "agree", "says"),
    [
        ("int8", (22.0, 18.0, 26.0), None, "22.0 dB SQNR (18.0 to 26.0); 20 dB or 90%"),
        ("int8", (22.0, 20.0, 26.0), None, ""),
        ("int8", (22.0, 18.0, 26.0), (0.95, 0.9, 1.0), ""),
        ("int8", (15.0, 12.0, 18.0), (0.95, 0.8, 1.0), "(12.0 to 18.0) and 95.0% agreement (80.0 to"),
        ("int8", (15.0, 12.0, 18.0), (0.5, 0.3, 0.7), ""),
        ("fp16", (22.0, 18.0, 26.0), None, "22.0 dB SQNR (18.0 to 26.0); 20 dB and 90%"),
        ("fp16", (22.0, 20.0, 26.0), (0.95, 0.8, 1.0), ""),
        ("fp16", (22.0, 20.0, 26.0), (0.85, 0.8, 1.0), "85.0% agreement (80.0 to 100.0); 20 dB and 90%"),
        ("fp16", (22.0, 18.0, 26.0), (0.5, 0.3, 0.7), ""),
        ("fp32", (22.0, 18.0, 26.0), None, ""),
    ],
)  # fmt: skip
def test_bounds_on_both_sides_of_a_limit_decide_nothing(
    precision: str, sqnr: tuple[float, float, float], agree: tuple[float, float, float] | None, says: str
) -> None:
    """An artifact is in doubt when neither its lower bounds meet the limits nor its upper ones miss them."""
    own = _Whole(precision, sqnr[0], agree[0] if agree else None)
    own.comparison = replace(
        own.comparison,
        scenes=5,
        sqnr_bounds_db=sqnr[1:],
        agreement_bounds=agree[1:] if agree else None,
    )
    doubt = whole_output.whole_output_doubt(own)  # type: ignore[arg-type]
    assert says in doubt
    assert bool(doubt) is bool(says)
    assert not doubt or "scene" in doubt.partition("limit. ")[2] or "no number" in doubt


def test_the_scenes_that_would_decide_are_said() -> None:
    """The interval narrows with the root of their number; a figure at its limit is never decided."""
    own = _Whole("int8", 22.0, None)
    own.comparison = replace(own.comparison, scenes=5, sqnr_bounds_db=(18.0, 26.0))
    assert whole_output.whole_output_doubt(own).endswith("About 15 more scenes like these would decide.")  # type: ignore[arg-type]
    own.comparison = replace(own.comparison, sqnr_db=20.0, sqnr_bounds_db=(16.0, 24.0))
    assert "no number of scenes" in whole_output.whole_output_doubt(own)  # type: ignore[arg-type]
    own.comparison = replace(own.comparison, scenes=1, sqnr_db=22.0, sqnr_bounds_db=(19.5, 24.5))
    assert whole_output.whole_output_doubt(own).endswith("About 1 more scene like these would decide.")  # type: ignore[arg-type]


@pytest.mark.parametrize(("error", "fails"), [(1e-4, False), (1.01e-4, True)])
def test_the_float32_limit_of_whole_outputs(error: float, fails: bool) -> None:
    """The limit itself is allowed; the channel's fault follows the reason, and never stands alone."""
    own = _Whole("fp32", 80.0, None, error)
    said = whole_output.whole_output_gate(own)  # type: ignore[arg-type]
    assert said == (
        "Its largest error is 1.0e-04 of the output's scale; the limit is 1.0e-04." if fails else ""
    )
    own.worst_channel = WorstChannel("y", "y[..., 3]", "", 0.0, 0.0, "Channel 3 is dead.")
    assert whole_output.whole_output_gate(own) == (f"{said} Channel 3 is dead." if fails else "")  # type: ignore[arg-type]


# Evidence on disk.


def test_evidence_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Every field of every kind, with state and without."""
    y = np.random.default_rng(0).normal(size=(3, 1, 4))
    own = replace(
        observed.made_references(
            y, y.astype(np.float32), edge_names=("zeros", "ones"), names=("a", "b"), resting=True
        ),
        state=("cache", "count"),
        edge_unstable=(np.zeros((1, 4), bool),) * 2,
        shapes=(np.array([[1, 4]] * 3), np.array([[1, 3]] * 3)),
        edge_shapes=(np.array([[1, 4]] * 2),) * 2,
        floor=1.25e-7,
        edge_floor=2.5e-7,
        edge_floors=(1e-7, 2.5e-7),
    )
    for written in (own, replace(own, state=())):
        reference_io.save_reference_io(written, tmp_path / "evidence.npz")
        back = reference_io.load_reference_io(tmp_path / "evidence.npz")
        for field in fields(ReferenceIO):
            before, after = getattr(written, field.name), getattr(back, field.name)
            if field.name in reference_io.STACKS:
                assert [(a.dtype, a.tolist()) for a in after] == [(b.dtype, b.tolist()) for b in before]
            else:
                assert after == before, field.name


def test_a_programs_outputs_come_back_as_they_were_written(tmp_path: Path) -> None:
    """Edges by their names, each with all outputs."""
    y = np.arange(6.0).reshape(2, 3)
    written = Lowering((y, y + 1), 41.5, {"zeros": (y[0], y[1]), "ones": (y[1], y[0])})
    reference_io.save_reference_io_lowering(written, tmp_path / "lowering.npz")
    back = reference_io.load_reference_io_lowering(tmp_path / "lowering.npz")
    assert back.rounding_floor_db == 41.5
    assert [a.tolist() for a in back.outputs] == [y.tolist(), (y + 1).tolist()]
    assert {name: [a.tolist() for a in outputs] for name, outputs in back.edges.items()} == {
        "zeros": [[0, 1, 2], [3, 4, 5]],
        "ones": [[3, 4, 5], [0, 1, 2]],
    }


def test_outputs_are_padded_to_the_largest() -> None:
    """Zeros follow; a larger output is an error, as is another number of outputs."""
    short, long = np.ones((1, 2)), np.ones((3, 2))
    assert reference_io.largest_reference_io_shapes([(short,), (long.T[:, :1],)]) == ((2, 2),)
    padded = reference_io.pad_reference_io((short, long), ((3, 2), (3, 2)))
    assert padded[0].tolist() == [[1, 1], [0, 0], [0, 0]]
    assert padded[1] is long
    with pytest.raises(ValueError, match="negative"):
        reference_io.pad_reference_io((long,), ((1, 2),))
    with pytest.raises(ValueError, match="argument"):
        reference_io.pad_reference_io((short,), ((1, 2), (1, 2)))


def test_shapes_are_kept_where_they_change() -> None:
    """A row per sample; nothing where all samples agree, unless it is asked for."""
    small, large = np.zeros((1, 2)), np.zeros((3, 2))
    fixed = np.zeros(4)
    shapes = reference_io.reference_io_shapes([(small, fixed), (large, fixed)])
    assert [s.tolist() for s in shapes] == [[[1, 2], [3, 2]], [[4], [4]]]
    assert reference_io.reference_io_shapes([(small,), (small,)]) == ()
    assert [s.tolist() for s in reference_io.reference_io_shapes([(small,)], always=True)] == [[[1, 2]]]


# Budgets and the choice.


def latency(verdict: str, p90_ms: float = 10.0, **more: Any) -> DeviceLatency:
    """Return a steady phone's latency, with all the evidence that a PASS needs."""
    values: dict[str, Any] = {
        "evidence": "measured",
        "device": {"soc": "SM8250"},
        "p50_ms": p90_ms,
        "p90_ms": p90_ms,
        "p90_ci_ms": (p90_ms - 1, p90_ms + 1),
        "launches": 100,
        "samples": 100_000,
        "flags": (),
        "max_error": None,
        "verdict": verdict,
        "budget_ms": 15.0,
    }
    return DeviceLatency(**(values | more))


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ({"launch_spread": 0.07}, 0.07),
        ({"launch_spread": 1}, 1.0),
        ({"launch_spread": "0.1"}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_spread_of_launches_is_the_devices(device: dict[str, Any], expected: float) -> None:
    """What is no number is no spread."""
    assert budget.launch_spread_for_budget(latency("pass", device=device)) == expected


@pytest.mark.parametrize(
    ("launches", "samples", "enough"), [(4, 200, True), (3, 200, False), (4, 199, False), (9, 9000, True)]
)
def test_a_pass_needs_launches_and_calls(launches: int, samples: int, enough: bool) -> None:
    """Four launches and 200 calls; what is lacking is said in numbers."""
    lacking = budget.missing_evidence_for_budget(latency("pass", launches=launches, samples=samples))
    assert lacking == (
        "" if enough else f"{launches} launches with {samples} calls: a PASS needs 4 launches and 200 calls"
    )


@pytest.mark.parametrize(
    ("more", "budget_ms", "verdict"),
    [
        ({}, 11.5, "pass"),
        ({}, 11.0, "inconclusive"),
        ({}, 9.0, "inconclusive"),
        ({}, 8.9, "fail"),
        ({"problem": "Its outputs are wrong."}, 100.0, "fail"),
        ({"flags": ("throttled",)}, 100.0, "inconclusive"),
        ({"flags": ("throttled",)}, 1.0, "fail"),
        ({"device": {}}, 100.0, "inconclusive"),
        ({"exceeded": ("peak memory",)}, 100.0, "fail"),
        ({"launches": 1}, 100.0, "inconclusive"),
        ({"samples": 1}, 100.0, "inconclusive"),
        ({"evidence": "simulated"}, 100.0, "not_measured"),
    ],
)
def test_a_budget_is_judged_by_the_interval(more: dict[str, Any], budget_ms: float, verdict: str) -> None:
    """The latency's whole interval must lie on one side, on a steady phone whose SoC is known."""
    own = latency("fail", **more)
    assert budget.judge_by_budget(own, budget_ms) == verdict
    again = budget.rejudge_by_budget(own, budget_ms)
    assert (again.verdict, again.budget_ms) == (verdict, budget_ms)


def test_the_worst_verdict_counts_and_then_the_slowest() -> None:
    """A simulated device counts after every phone."""
    slow, fast, unsure = latency("pass", 9.0), latency("pass", 5.0), latency("pass", 12.0, flags=("hot",))
    simulated = latency("not_measured", 99.0, evidence="simulated")
    assert budget.worst_for_budget([fast, slow, simulated], 20.0) is slow
    assert budget.worst_for_budget([fast, unsure, slow], 20.0) is unsure
    assert budget.worst_for_budget([], 20.0) is None
    assert budget.budget_verdict([simulated], 20.0) == budget.budget_verdict([], 20.0) == "not_measured"
    assert budget.budget_verdict([fast, slow], 20.0) == "pass"
    recorded = [replace(fast, budget_ms=None), replace(slow, verdict="fail", budget_ms=7.0)]
    assert budget.recorded_budget_verdict(recorded, 15.0) == "pass"
    assert budget.recorded_budget_verdict(recorded, 7.0) == "fail"
    assert budget.recorded_budget_verdict([], 7.0) == "not_measured"


@pytest.mark.parametrize(
    ("verdict", "more", "target", "says"),
    [
        ("pass", {}, "SM8250", ""),
        ("pass", {}, "any", ""),
        ("pass", {}, "SM8550", "its SoC is not the target's SM8550"),
        ("fail", {"budget_ms": 8.0}, "SM8550", ""),
        ("pass", {"problem": "it is wrong"}, "any", "but it is wrong"),
        ("pass", {"budget_ms": 11.0}, "any", "p90 may be 11 ms with a budget of 11 ms"),
        ("pass", {"budget_ms": None}, "any", ""),
        ("fail", {"budget_ms": 9.0}, "any", "p90 may be 9 ms with a budget of 9 ms"),
        ("fail", {"budget_ms": 8.9}, "any", ""),
        ("fail", {"problem": "it is wrong", "budget_ms": 99.0}, "any", ""),
        ("inconclusive", {"budget_ms": 1.0}, "any", ""),
    ],
)
def test_a_verdict_must_follow_from_its_figures(
    verdict: str, more: dict[str, Any], target: str, says: str
) -> None:
    """The device's SoC, problem and interval decide; without a budget of its own the manifest's holds."""
    own = budget.budget_contradiction(latency(verdict, **more), 12.0, target)
    assert own.endswith(says)
    assert bool(own) is bool(says)


def test_a_front_is_sorted_by_latency_and_then_by_quality() -> None:
    """The better one of two equally fast ones comes first."""

    def point(p50_ms: float, sqnr_db: float, size_bytes: int = 9) -> Any:
        values = {f.name: () for f in fields(MixedPoint)}
        return MixedPoint(**values | {"p50_ms": p50_ms, "sqnr_db": sqnr_db, "size_bytes": size_bytes})  # type: ignore[arg-type]

    slow, fast, beaten, small = point(3.0, 40.0), point(1.0, 20.0), point(2.0, 15.0), point(1.0, 10.0, 5)
    assert pareto.pareto_front([small, slow, fast, beaten]) == [fast, small, slow]


def test_an_artifacts_outputs_are_stacked_as_the_models() -> None:
    """No calls make empty stacks; another number or size of outputs is said with the call that gave it."""
    y = np.ones((2, 3, 4), np.float32)
    empty, said = reference_io.stack_like_reference_io([], (y,))
    assert [(a.shape, a.dtype.name) for a in empty] == [((0, 3, 4), "float32")]
    assert said == ""
    stacked, said = reference_io.stack_like_reference_io([(y[0],), (y[1],)], (y,))
    assert (stacked[0].tolist(), said) == (y.tolist(), "")
    assert reference_io.stack_like_reference_io([(y[0], y[0])], (y,)) == (
        (),
        "It has 2 outputs, the model has 1.",
    )
    _, said = reference_io.stack_like_reference_io([(y[0],), (y[1, :2],)], (y,), names=("scores",))
    assert said == "Its output scores has shape [2, 4] on sample 1, the model's has [3, 4]."
    _, said = reference_io.stack_like_reference_io([(y[0, :2],)], (y,), edges=("zeros",))
    assert said == "Its output 0 has shape [2, 4] on the edge input 'zeros', the model's has [3, 4]."
    shapes = (np.array([[2, 4], [3, 4]]),)
    stacked, said = reference_io.stack_like_reference_io([(y[0, :2],), (y[1],)], (y,), shapes)
    assert (stacked[0][0, 2].tolist(), stacked[0].shape, said) == ([0, 0, 0, 0], (2, 3, 4), "")


@pytest.mark.parametrize("count", [2, 3, None])
def test_the_first_samples_come_with_all_that_belongs_to_them(count: int | None) -> None:
    """Stacks of samples are cut; edge inputs, and errors that are shaped as one output, stay whole."""
    y, wrong, error = np.arange(6.0).reshape(3, 1, 2), np.eye(3, dtype=bool)[:, None], np.ones((4, 2))
    whole = replace(
        observed.made_references(y, edge_names=("flat", "bright")),
        scenes=(np.array([5, 5, 7]),),
        shapes=(np.array([[2], [1], [2]]),),
        eager_errors=(error, wrong),
    )
    first = reference_io.first_of_reference_io(whole, count)
    for stacks in ("inputs", "reference", "scenes", "shapes"):
        (before,), (after,) = (getattr(item, stacks) for item in (whole, first))
        assert after.tolist() == before[:count].tolist()
    assert first.eager_errors[0].shape == error.shape
    assert first.eager_errors[1].tolist() == wrong[:count].tolist()
    assert first.edge_names == whole.edge_names
    assert [len(edge) for edge in first.edge_reference] == [len(edge) for edge in whole.edge_reference]
