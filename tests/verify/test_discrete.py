"""Class numbers, masks, indices and ties, on made-up outputs."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from exporter.records import Array, Variant
from exporter.verify.compare_outputs import compare_outputs
from exporter.verify.discrete import compare_discrete
from exporter.verify.reference_io import Lowering
from tests.variants import FP16, FP32, INT8
from tests.verify.observed import judged, made_references

RANDOM = np.random.default_rng(0)


def class_map(samples: int = 8) -> Array:
    """A segmentation's class numbers, of which class 3 is rare."""
    return np.random.default_rng(1).choice(4, (samples, 1, 16, 16), p=[0.5, 0.3, 0.17, 0.03])


@pytest.mark.parametrize("variant", [FP32, FP16, INT8])
def test_equal_classes_pass(variant: Variant) -> None:
    """A model without any float output is judged by its values alone."""
    y = class_map()
    assert judged(variant, made_references(y), y.copy()).reason is None


def test_one_wrong_class_fails_in_float32() -> None:
    """The reason says where it is; nothing is said in decibels."""
    y = class_map()
    a = y.copy()
    a[2, 0, 5, 5] = (a[2, 0, 5, 5] + 1) % 4
    reason = str(judged(FP32, made_references(y, names=["classes"]), a).reason)
    assert "Its output classes differs in 1 of 2048 values (input 2: " in reason
    assert "dB" not in reason


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["classes"], "Its output classes differs"),
        (["output_0"], "Its output_0 differs"),
        (["output"], "Its output differs"),
        (["outputs_of_head"], "Its output outputs_of_head differs"),
        (None, "Its output 0 differs"),
    ],
)
def test_a_reason_names_an_output_once(names: list[str] | None, words: str) -> None:
    """An output without a name of its own is called by its number; no word is doubled."""
    y = class_map()
    references = replace(made_references(y), output_names=tuple(names or ()))
    assert words in str(judged(FP32, references, (y + 1) % 4).reason)
    references = replace(made_references(y.astype(float)), output_names=tuple(names or ()))
    a = y.astype(float)
    a[..., 1] += 1
    reason = str(judged(FP32, references, a).reason)
    assert not re.search(r"output output(?!s)", reason)
    assert words.removesuffix(" differs") in reason or names is None


@pytest.mark.parametrize("variant", [FP16, INT8])
def test_a_lossy_precision_may_turn_a_few_values(variant: Variant) -> None:
    """Two percent of the pixels at the borders of things, but not ten."""
    y = class_map(16)
    for share, status in ((0.02, "passed"), (0.1, "failed")):
        turned = np.random.default_rng(2).random(y.shape) < share
        assert judged(variant, made_references(y), np.where(turned, (y + 1) % 4, y)).status == status


def test_a_lost_rare_class_is_named() -> None:
    """All of class 3 is called 0: that is three percent of the pixels."""
    y = class_map()
    reason = str(judged(INT8, made_references(y, names=["classes"]), np.where(y == 3, 0, y)).reason)
    assert "Its output classes loses a class: 3 is kept in 0 of" in reason


def test_an_empty_mask_fails_though_hardly_any_pixel_differs() -> None:
    """A boolean mask that is true for one pixel of fifty."""
    y = np.random.default_rng(3).random((8, 1, 32, 32)) < 0.02
    reason = str(judged(INT8, made_references(y, names=["mask"]), np.zeros_like(y)).reason)
    assert "mask loses a class: True" in reason


def test_values_that_rounding_decides_are_not_compared() -> None:
    """Neither passed by luck nor failed: the others decide."""
    y = class_map()
    unstable = np.zeros(y.shape, bool)
    unstable[0, 0, 0, :4] = True
    references = made_references(y, eager_errors=[unstable])
    a = y.copy()
    a[0, 0, 0, :4] = (y[0, 0, 0, :4] + 1) % 4
    assert judged(FP32, references, a).reason is None
    a[1:, 0, 0, :4] = (y[1:, 0, 0, :4] + 1) % 4
    assert judged(FP32, references, a).status == "failed"


def scores_with_a_tie() -> tuple[Array, Array]:
    """Scores of which the two largest are equal on some inputs, and the number of the largest."""
    scores = np.random.default_rng(4).normal(size=(12, 1, 20))
    order = np.argsort(-scores, axis=2)
    best, second = order[..., :1], order[..., 1:2]
    tied = np.arange(12)[:, None, None] % 3 == 0
    values = np.take_along_axis(scores, best, 2)
    np.put_along_axis(scores, second, np.where(tied, values, np.take_along_axis(scores, second, 2)), 2)
    return scores, scores.argmax(axis=2)


def test_another_number_of_the_same_score_is_right() -> None:
    """The largest of equal scores is whichever the runtime finds first: what it indexes is compared."""
    scores, number = scores_with_a_tie()
    last = 19 - scores[:, :, ::-1].argmax(axis=2)
    assert (last != number).any()
    assert judged(FP32, made_references(scores, number), scores, last).reason is None


def test_another_number_of_another_score_is_wrong() -> None:
    """The second best of clear scores is no tie."""
    scores, number = scores_with_a_tie()
    wrong = number.copy()
    wrong[1] = np.argsort(-scores, axis=2)[1, :, 1]
    assert "differs in 1 of 12 values" in str(
        judged(FP32, made_references(scores, number), scores, wrong).reason
    )


def test_the_same_index_twice_is_wrong() -> None:
    """A top-k must name each of two equal scores once."""
    scores, _ = scores_with_a_tie()
    top = np.argsort(-scores, axis=2, kind="stable")[..., :3]
    values = np.take_along_axis(scores, top, 2)
    swapped = top.copy()
    swapped[::3, :, :2] = top[::3, :, 1::-1]
    references = made_references(scores, top, values)
    assert judged(FP32, references, scores, swapped, values).reason is None
    doubled = top.copy()
    doubled[::3, :, 1] = top[::3, :, 0]
    assert judged(FP32, references, scores, doubled, values).status == "failed"


def detections(equal: bool) -> tuple[Array, Array, Array]:
    """Boxes, scores and classes sorted by score; where `equal`, three rows have one score."""
    random = np.random.default_rng(5)
    scores = -np.sort(-random.uniform(0.1, 1, (10, 1, 8)), axis=2)
    if equal:
        scores[:, :, 3:6] = scores[:, :, 3:4]
    return random.uniform(0, 600, (10, 1, 8, 4)), scores, random.integers(0, 80, (10, 1, 8))


@pytest.mark.parametrize("variant", [FP32, FP16])
def test_rows_of_equal_scores_may_come_in_any_order(variant: Variant) -> None:
    """Boxes and classes move with their rows; another row's box at an untied score is wrong."""
    order = [0, 1, 2, 5, 3, 4, 6, 7]
    boxes, scores, classes = detections(equal=True)
    references = made_references(boxes, scores, classes)
    assert judged(variant, references, boxes[:, :, order], scores, classes[:, :, order]).reason is None
    boxes, scores, classes = detections(equal=False)
    references = made_references(boxes, scores, classes)
    assert judged(variant, references, boxes[:, :, order], scores, classes[:, :, order]).status == "failed"


def test_a_box_without_its_class_is_wrong_among_equal_scores_too() -> None:
    """Rows are exchanged whole: the classes of two tied boxes exchanged alone are an error."""
    order = [0, 1, 2, 5, 3, 4, 6, 7]
    boxes, scores, classes = detections(equal=True)
    assert (
        judged(FP32, made_references(boxes, scores, classes), boxes, scores, classes[:, :, order]).status
        == "failed"
    )


def test_dead_scores_agree_with_nobody() -> None:
    """Where every class has the same score the artifact answers nothing: its first class is no answer."""
    y = np.zeros((16, 1, 10))
    y[:, 0, 0] = 5
    y += RANDOM.normal(scale=0.1, size=y.shape)
    verdict = judged(INT8, made_references(y), np.zeros_like(y))
    assert verdict.comparison is not None
    assert verdict.comparison.agreement == pytest.approx(0.1)


def test_another_kind_of_output_is_refused() -> None:
    """A mask that comes back as numbers is another output."""
    y = class_map() > 1
    assert "is int64, the model's is bool" in str(judged(FP32, made_references(y), y.astype(np.int64)).reason)


def test_only_values_that_rounding_does_not_decide_make_an_error() -> None:
    """The share of wrong values, and of right ones, is that of the compared values."""
    y = class_map(4)
    unstable = np.zeros(y.shape, bool)
    unstable[:, :, :8] = True
    a = np.where(unstable, (y + 1) % 4, y)
    own = compare_outputs((y,), (a,), (unstable,))
    assert (own.max_error, own.agreement) == (0.0, 1.0)
    a[:, :, 8:12] = (y[:, :, 8:12] + 1) % 4
    own = compare_outputs((y,), (a,), (unstable,))
    assert (own.max_error, own.agreement) == pytest.approx((0.5, 0.5))
    (entry,) = compare_discrete((y,), (a,), (unstable,))
    assert (entry.values, entry.unstable, entry.different) == (512, 512, 256)
    assert entry.shares.tolist() == [0.5] * 4
    assert entry.share == 0.5


def indices(*wrong: int) -> np.ndarray:
    """Return an index for each of 80 samples; other ones at some."""
    values = np.random.default_rng(3).integers(0, 5000, (80, 1, 1))
    values[list(wrong)] += 1
    return values


def test_a_program_that_turns_other_ties_is_no_fault_of_the_lowering() -> None:
    """An artifact whose indices are the model's passes, though its quantised program gives others."""
    program = Lowering((indices(1, 5, 9),), 60.0)
    assert judged(INT8, made_references(indices()), indices(), program=program).reason is None


def test_what_has_no_floats_is_told_without_decibels() -> None:
    """The reason of an output of indices gives the share that is right, and the limit of shares alone."""
    verdict = judged(INT8, made_references(indices()), indices(1, 2), program=Lowering((indices(1),), 60.0))
    assert verdict.status == "inconclusive"
    assert "97.5% agreement" in str(verdict.reason)
    assert "; 95% is the limit" in str(verdict.reason)
    assert "dB" not in str(verdict.reason)
