"""The measure of a model's task: recognised where the outputs say it, and right on outputs that are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from exporter.records import Limits, TaskMeasure, TaskName
from exporter.verify.judge import judge_artifact
from exporter.verify.reference_io import ReferenceIO
from exporter.verify.tasks import TASKS, measure_task
from exporter.verify.tasks.box_task import overlap_of_boxes_in_task
from exporter.verify.tasks.measured_outputs import MeasuredOutputs
from exporter.verify.tasks.sequence_task import join_sequence_of_task
from tests.variants import FP16

SAMPLES = 8


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def unit(vectors: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled


def outputs(
    *reference: np.ndarray, names: tuple[str, ...] = (), side: int = 16, precision: str = "fp32"
) -> MeasuredOutputs:
    inputs = (np.zeros((SAMPLES, 1, 3, side, side), np.float32),)
    return MeasuredOutputs(names, inputs, reference, reference, precision)


def detector() -> np.ndarray:
    """Two sure objects per sample among 40 places: [4 + 3 classes, places], corners in pixels."""
    y = np.zeros((SAMPLES, 1, 7, 40))
    y[:, :, :2] = rng().uniform(8, 56, (SAMPLES, 1, 2, 40))
    y[:, :, 2:4] = 8.0
    y[:, :, 4, 3], y[:, :, 6, 17] = 0.9, 0.8
    return y


EXAMPLES: dict[str, MeasuredOutputs] = {
    "boxes": outputs(detector(), side=64),
    "masks": outputs(rng().normal(size=(SAMPLES, 1, 5, 16, 16))),
    "keypoints": outputs(rng().uniform(0, 64, (SAMPLES, 1, 17, 2)), names=("keypoints",)),
    "images": outputs(rng().uniform(0, 1, (SAMPLES, 1, 3, 32, 32))),
    "embeddings": outputs(unit(rng().normal(size=(SAMPLES, 1, 32)))),
    "sequences": outputs(np.log(rng().dirichlet(np.ones(6), (SAMPLES, 1, 10)))),
    "regression": outputs(rng().normal(300, 5, (SAMPLES, 1, 1))),
}


def measure(outputs: MeasuredOutputs, task: str = "") -> TaskMeasure:
    result = measure_task(outputs, task)
    assert result is not None
    return result


@pytest.mark.parametrize("task", EXAMPLES)
def test_the_outputs_say_which_task_it_is(task: str) -> None:
    """Each example is recognised, and equal outputs are as good as can be."""
    measurement = measure(EXAMPLES[task])
    assert (measurement.task, measurement.passed) == (task, True)
    assert np.isfinite(measurement.value)


def test_every_task_has_an_example_and_a_name() -> None:
    """A task that is added to the table is tested here and can be named."""
    assert set(EXAMPLES) == set(TASKS) == set(get_args(TaskName)) - {""}


@pytest.mark.parametrize(
    "reference",
    [
        rng().normal(size=(SAMPLES, 1, 10)),
        rng().dirichlet(np.ones(10), (SAMPLES, 1)),
        rng().normal(size=(SAMPLES, 1, 64, 7, 7)),
        rng().normal(size=(SAMPLES, 1, 20, 32)),
        rng().integers(0, 5, (SAMPLES, 1, 4)),
    ],
    ids=["logits", "probabilities", "feature map", "hidden states", "integers"],
)
def test_what_could_be_anything_is_not_guessed(reference: np.ndarray) -> None:
    """A classifier keeps its top-1, and features are nobody's."""
    assert measure_task(outputs(reference)) is None


def no_score(y: np.ndarray) -> np.ndarray:
    y[:, :, 4:] = 0
    return y


def swapped(y: np.ndarray) -> np.ndarray:
    return y[:, :, [1, 0, *range(2, y.shape[2])]]


DAMAGE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "boxes": no_score,
    "masks": swapped,
    "keypoints": lambda y: y + 10.0 * (np.arange(17) == 3)[:, None],
    "images": lambda y: y * 0.9,
    "embeddings": lambda y: np.roll(y, 1, axis=-1),
    "sequences": lambda y: np.roll(y, 1, axis=-1),
    "regression": lambda y: y + 2.0,
}


@pytest.mark.parametrize("task", EXAMPLES)
def test_a_damaged_output_is_worse_at_its_task(task: str) -> None:
    """The damaged output fails for float32 and, being much damaged, for int8."""
    example = EXAMPLES[task]
    damaged = replace(example, actual=(DAMAGE[task](example.reference[0].copy()),))
    for precision in ("fp32", "int8"):
        assert not measure(replace(damaged, precision=precision)).passed


def test_detections_are_counted_and_their_drift_is_measured() -> None:
    """One of two objects lost in every sample, the other's score lower by 0.1."""
    example = EXAMPLES["boxes"]
    actual = example.reference[0].copy()
    actual[:, :, 4, 3] -= 0.1
    actual[:, :, 6, 17] = 0.0
    result = measure(replace(example, actual=(actual,)))
    assert f"{SAMPLES} kept, {SAMPLES} lost, 0 new; scores drift by up to 0.100" in result.detail
    assert result.value == pytest.approx(2 / 3)


@pytest.mark.parametrize("boxes", [(), (1,), (5,)], ids=["one box", "a list of one", "five"])
@pytest.mark.parametrize("classes", [(), (1,), (3,)], ids=["a score", "one class", "three"])
def test_boxes_have_scores_of_any_shape(boxes: tuple[int, ...], classes: tuple[int, ...]) -> None:
    """A network that finds one object gives four coordinates, and a score for each class."""
    if not boxes + classes:
        return
    corners = np.tile([8.0, 8, 24, 24], (SAMPLES, 1, *boxes, 1))
    scores = rng().uniform(0.6, 0.9, (SAMPLES, 1, *boxes, *classes))
    example = outputs(corners, scores, names=("box", "class"))
    assert measure(example, "boxes").value == 1.0
    moved = replace(example, actual=(corners + 100, scores))
    assert measure(moved, "boxes").value == 0.0


def test_boxes_beside_scores_and_labels_are_matched_by_class() -> None:
    """A box that changes its label is lost here and new there."""
    corners = np.tile([[0.0, 0, 8, 8], [20, 20, 30, 30]], (SAMPLES, 1, 1, 1))
    scores, labels = np.full((SAMPLES, 1, 2), 0.9), np.tile([1, 2], (SAMPLES, 1, 1))
    example = outputs(corners, scores, labels, names=("boxes", "scores", "labels"))
    other = replace(example, actual=(corners, scores, np.tile([1, 3], (SAMPLES, 1, 1))))
    assert measure(example).value == 1
    assert f"{SAMPLES} kept, {SAMPLES} lost, {SAMPLES} new" in measure(other).detail


def crowd(spread: float) -> np.ndarray:
    """1,000 boxes without overlap, whose scores differ by `spread`: centre, size and three classes."""
    y = np.zeros((SAMPLES, 1, 7, 1000))
    y[:, :, 0], y[:, :, 1] = np.arange(1000) % 40 * 10 + 5, np.arange(1000) // 40 * 10 + 5
    y[:, :, 2:4] = 8.0
    y[:, :, 4:] = 0.5 + spread * rng().uniform(-0.5, 0.5, (SAMPLES, 1, 3, 1000))
    return y


def rows_of(y: np.ndarray, count: int = 300) -> np.ndarray:
    """Choose the surest boxes as a head without NMS does: rows of corners, score and class."""
    scores = y[:, :, 4:].max(axis=2)
    order = np.argsort(-scores, axis=-1)[..., :count, None]
    centre, size = np.moveaxis(y[:, :, :2], 2, 3), np.moveaxis(y[:, :, 2:4], 2, 3)
    classes = y[:, :, 4:].argmax(axis=2)[..., None].astype(float)
    rows = np.concatenate([centre - size / 2, centre + size / 2, scores[..., None], classes], axis=-1)
    chosen: np.ndarray = np.take_along_axis(rows, order, axis=2)
    return chosen


HEADS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"raw": np.copy, "chosen": rows_of}


@pytest.mark.parametrize("head", HEADS)
def test_detections_that_rounding_chooses_are_neither_lost_nor_new(head: str) -> None:
    """The surest 300 of 1,000 nearly equal boxes are others after rounding; those that stand out stay."""
    y = crowd(1e-5)
    y[:, :, 5, [7, 700]] = 0.8
    near = y.copy()
    near[:, :, 4:] += 1e-5 * np.random.default_rng(1).normal(size=near[:, :, 4:].shape)
    example = replace(outputs(HEADS[head](y), side=400), actual=(HEADS[head](near),))
    result = measure(example, "boxes")
    assert result.value == 1.0
    assert f"{2 * SAMPLES} kept, 0 lost, 0 new" in result.detail
    assert f"{298 * SAMPLES} more have the score at which detections are cut off" in result.detail


@pytest.mark.parametrize("head", HEADS)
def test_detections_of_an_untrained_network_are_not_counted(head: str) -> None:
    """Where every box has the same score, there is nothing to keep or to lose, and no figure is shown."""
    assert measure_task(outputs(HEADS[head](crowd(1e-6)), side=400), "boxes") is None


@pytest.mark.parametrize("head", HEADS)
def test_a_lost_detection_among_others_of_a_like_score_counts(head: str) -> None:
    """A box that falls well below the cut is lost, however many others there are just above it."""
    y = crowd(0.1)
    worse = y.copy()
    surest = y[:, :, 4:].max(axis=2).argmax(axis=-1)
    for sample in range(SAMPLES):
        worse[sample, 0, 4:, surest[sample, 0]] = 0.1
    result = measure(replace(outputs(HEADS[head](y), side=400), actual=(HEADS[head](worse),)), "boxes")
    assert f", {SAMPLES} lost, " in result.detail


def test_classes_whose_scores_are_equal_are_the_same_class() -> None:
    """Two classes of a sure box have a score of 1 in float32, of which rounding chooses one."""
    y = detector()
    y[:, :, 4, 3], y[:, :, 5, 3] = 1 - 1e-12, 1 - 2e-12
    other = y.copy()
    other[:, :, 4, 3], other[:, :, 5, 3] = 1 - 2e-12, 1 - 1e-12
    assert measure(replace(outputs(y, side=64), actual=(other,)), "boxes").value == 1.0
    other[:, :, 4, 3] = 0.9
    assert measure(replace(outputs(y, side=64), actual=(other,)), "boxes").value < 1.0


def queries(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """The outputs of a DETR: a centre and a size of each query, and logits whose last class is none."""
    centres = rng().uniform(0.2, 0.8, (SAMPLES, 1, 20, 2))
    sizes = rng().uniform(low, high, (SAMPLES, 1, 20, 2))
    logits = rng().normal(-6, 1, (SAMPLES, 1, 20, 4))
    logits[..., 3] = 4.0
    logits[:, :, 2, 0], logits[:, :, 7, 2] = 9.0, 8.0
    return np.concatenate([centres, sizes], axis=-1), logits


def test_boxes_may_be_centres_and_sizes_with_logits() -> None:
    """DETR's equal outputs keep every detection, and a box that moved by its own width is lost."""
    boxes, logits = queries(0.02, 0.1)
    example = outputs(boxes, logits, names=("pred_boxes", "logits"))
    near = replace(example, actual=(boxes + 1e-6, logits - 1e-6))
    assert measure(near, "boxes").value == 1.0
    moved = boxes.copy()
    moved[:, :, 2, 0] += moved[:, :, 2, 2]
    result = measure(replace(example, actual=(moved, logits)), "boxes")
    assert f"{SAMPLES} lost, {SAMPLES} new" in result.detail


def test_distances_from_anchors_are_no_boxes() -> None:
    """The raw heads of SSD give how far each box is from its anchor: nothing can be matched by overlap."""
    offsets, logits = rng().normal(size=(SAMPLES, 1, 20, 4)), rng().normal(size=(SAMPLES, 1, 20, 4))
    example = outputs(offsets, logits, names=("bbox_regression", "cls_logits"))
    assert measure_task(example, "boxes") is None
    shown = measure_task(example, "")
    assert shown is None or shown.task != "boxes"


def test_overlap_of_known_boxes() -> None:
    """Half of two boxes in common is a third of their union; no area is no overlap."""
    left = np.array([[0.0, 0, 2, 2], [5, 5, 5, 5]])
    right = np.array([[1.0, 0, 3, 2], [5, 5, 5, 5]])
    np.testing.assert_allclose(overlap_of_boxes_in_task(left, right), np.array([[1 / 3, 0], [0, 0]]))


@pytest.mark.parametrize(("tokens", "text"), [([0, 1, 1, 0, 1, 2, 2], [1, 1, 2]), ([3], [3]), ([0, 0], [])])
def test_ctc_joins_steps(tokens: list[int], text: list[int]) -> None:
    """A repeated token counts once unless a blank parts it."""
    assert join_sequence_of_task(np.array(tokens)) == text


def test_one_rare_class_counts_as_much_as_the_background() -> None:
    """4 of 256 pixels that vanish cost a whole class of the mean."""
    y = np.zeros((SAMPLES, 1, 2, 16, 16))
    y[:, :, 0], y[:, :, 1, :2, :2] = 1, 2
    example = outputs(y, names=("masks",))
    gone = replace(example, actual=(np.where(np.arange(2)[:, None, None] == 1, 0, y),))
    assert measure(gone).value == pytest.approx((252 / 256 + 0) / 2)


def test_a_named_task_decides_and_a_recognised_one_is_shown() -> None:
    """Regression: 2 % of the spread is small against the numbers and large against what they say."""
    y = EXAMPLES["regression"].reference[0]
    edge = y[:1]
    references = ReferenceIO(
        (np.zeros((SAMPLES, 1, 4), np.float32),), (y,), (), (edge[:0],), (), 1e-7, 1e-7, "float64"
    )
    noisy = y + 0.02 * y.std() * np.where(np.arange(SAMPLES) % 2, 1, -1)[:, None, None]

    def reason(task: str, actual: np.ndarray) -> tuple[str, TaskMeasure | None]:
        verdict = judge_artifact(
            FP16, "rt", references, (actual,), (edge[:0],), None, Limits(), (), None, task
        )
        return verdict.reason or "", verdict.task

    shown, measurement = reason("", noisy)
    assert shown == ""
    assert measurement is not None
    assert not measurement.passed
    assert "Its error is 0.02 of the spread, the limit is 0.01" in reason("regression", noisy)[0]
    assert reason("regression", y)[0] == ""
    assert "cannot be read as those of the task boxes" in reason("boxes", y)[0]
