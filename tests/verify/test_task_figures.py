"""Every figure of every task's measure on outputs that are counted by hand, and where recognition ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from exporter.records import Array, Precision, TaskMeasure
from exporter.verify.tasks import TASKS
from exporter.verify.tasks.measured_outputs import MeasuredOutputs, merged_measured_outputs

Names = tuple[str, ...]


def about(value: float) -> Any:
    return pytest.approx(value)


def outputs(
    *reference: Array, names: Names = (), size: tuple[int, ...] = (3, 16, 16), precision: Precision = "fp32"
) -> MeasuredOutputs:
    inputs = (np.zeros((len(reference[0]), 1, *size), np.float32),)
    return MeasuredOutputs(names, inputs, reference, reference, precision)


def measure(task: str, example: MeasuredOutputs, *actual: Array) -> TaskMeasure:
    measured = TASKS[task].measure(replace(example, actual=actual))
    assert measured is not None
    return measured


def corners(*boxes: tuple[float, ...]) -> Array:
    return np.array([[boxes]], float)


FIVE = corners((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (60, 0, 70, 10), (80, 0, 90, 10))
SCORES = np.array([[[0.9, 0.8, 0.7, 0.46, 0.4]]])
LABELS = np.array([[[1, 2, 3, 4, 5]]])
THREE = ("boxes", "scores", "labels")


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 0.99), ("fp16", 0.99), ("int8", 0.9), ("w4", 0.9)])
def test_detections_are_counted(precision: Precision, limit: float) -> None:
    """Four are at half of the largest score or more: one moved, one left, one changed its class."""
    example = outputs(FIVE, SCORES, LABELS, names=THREE, precision=precision)
    moved = FIVE.copy()
    moved[..., 0, :] += [2, 0, 2, 0]  # overlaps by 80 of 120
    moved[..., 1, :] += 30
    labels = LABELS.copy()
    labels[..., 2] = 9
    scores = SCORES + np.array([-0.05, 0, 0, 0.05, 0])
    measured = measure("boxes", example, moved, scores, labels)
    # The limit of scores is half of the reference's largest: 0.45, so that the fourth of 0.46 counts.
    detail = "2 kept, 2 lost, 2 new; scores drift by up to 0.050, boxes overlap by at least 0.67"
    assert measured == TaskMeasure("boxes", "detections", 0.5, "F1", limit, False, detail)


def test_a_box_that_is_taken_matches_no_other() -> None:
    """Two equal detections need two of the artifact's; overlaps of half and more count."""
    twice = corners((0, 0, 10, 10), (0, 0, 10, 10))
    example = outputs(twice, np.ones((1, 1, 2)), names=("boxes", "scores"))
    apart = corners((0, 0, 10, 10), (50, 0, 60, 10))
    assert measure("boxes", example, apart, np.ones((1, 1, 2))).value == 0.5
    half = corners((0, 0, 10, 5), (0, 0, 10, 4.9))
    assert measure("boxes", example, half, np.ones((1, 1, 2))).detail.startswith("1 kept, 1 lost, 1 new")


def test_each_class_has_scores_of_its_own_where_there_are_several() -> None:
    """Scores [boxes, classes] and a tensor of [4 + classes, boxes] give the same detections."""
    scores = np.array([[[[0.9, 0.1], [0.2, 0.8], [0.1, 0.2]]]])
    places = corners((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10))
    pair = outputs(places, scores, names=("boxes", "scores"))
    turned = scores[..., ::-1].copy()
    assert measure("boxes", pair, places, turned).detail.startswith("0 kept, 2 lost, 2 new")
    centre = np.concatenate(
        [(places[..., :2] + places[..., 2:]) / 2, places[..., 2:] - places[..., :2]], axis=-1
    )
    joint = outputs(np.concatenate([centre, scores], axis=-1).swapaxes(-1, -2), size=(3, 64, 64))
    other = np.concatenate([centre, turned], axis=-1).swapaxes(-1, -2)
    assert measure("boxes", joint, *joint.reference).value == 1.0
    assert measure("boxes", joint, other).detail.startswith("0 kept, 2 lost, 2 new")
    shifted = joint.reference[0] + np.array([0, 5, 0, 0, 0, 0])[:, None]
    assert measure("boxes", joint, shifted).detail.startswith("0 kept, 2 lost, 2 new")


@pytest.mark.parametrize(
    ("across", "down", "kept"), [(3.0, 0.0, 1), (3.6, 0.0, 0), (0.0, 3.0, 1), (0.0, 3.6, 0)]
)
def test_centres_and_sizes_become_corners(across: float, down: float, kept: int) -> None:
    """A box of ten pixels overlaps one that is moved by a third of them by a half, whichever way."""
    y = np.zeros((1, 1, 5, 8))
    y[..., 0] = np.array([30, 20, 10, 10, 0.9])
    moved = y.copy()
    moved[0, 0, :2, 0] += across, down
    detail = measure("boxes", outputs(y, size=(3, 64, 64)), moved).detail
    assert detail.startswith(f"{kept} kept, {1 - kept} lost, {1 - kept} new")


def test_categories_are_labels_too_and_no_classes_are_one_class() -> None:
    """A third output is found by its name; without it, places alone count."""
    named = outputs(FIVE, SCORES, LABELS, names=("boxes", "scores", "categories"))
    assert measure("boxes", named, FIVE, SCORES, LABELS + 1).value == 0.0
    unnamed = outputs(FIVE, SCORES, LABELS, names=("boxes", "scores", "other"))
    assert measure("boxes", unnamed, FIVE, SCORES, LABELS + 1).value == 1.0


def test_without_detections_there_is_nothing_to_measure() -> None:
    """Where all scores are alike, none is a detection; what an artifact finds elsewhere is new."""
    example = outputs(FIVE, SCORES * 0, names=("boxes", "scores"))
    assert TASKS["boxes"].measure(replace(example, actual=(FIVE, SCORES * 0 - 1))) is None
    assert measure("boxes", example, FIVE + 1000, SCORES).detail.startswith("0 kept, 0 lost, 5 new")
    assert TASKS["boxes"].measure(outputs(np.ones((1, 1, 3)))) is None


def test_miou_names_the_worst_class() -> None:
    """Class 0 keeps 24 of 28 pixels' union, class 1 loses 4 of 8, class 2 keeps all."""
    y = np.zeros((1, 1, 8, 8), np.int64)
    y[..., 0], y[..., 7] = 1, 2
    a = y.copy()
    a[..., :4, 0] = 0
    measured = measure("masks", outputs(y, names=("mask",), precision="int8"), a)
    value = (48 / 52 + 4 / 8 + 1) / 3
    detail = "3 classes, class 1 is the worst with 0.500"
    assert measured == TaskMeasure("masks", "mIoU", about(value), "", 0.9, False, detail)


@pytest.mark.parametrize(
    ("low", "high", "inside"), [(0.0, 1.0, 0.6), (-2.0, 2.0, 0.4), (0.0, 3.0, 0.4), (-1.0, 0.5, 0.4)]
)
def test_a_single_score_is_inside_above_the_middle_of_its_range(
    low: float, high: float, inside: float
) -> None:
    """Shares from 0 to 1 are cut at a half, other scores at zero: 0.4 is inside only there."""
    y = np.full((1, 1, 1, 8, 8), low)
    y[..., :4, :] = high
    a = np.where(y == high, inside, low)
    a[..., 0, 0] = low
    example = outputs(y, names=("mask",))
    assert measure("masks", example, y).value == 1.0
    edge = y.copy()
    edge[..., 0, 0] = low
    assert measure("masks", example, edge).value == pytest.approx((31 / 32 + 32 / 33) / 2)
    both = np.where(y == high, max(high, 1.0), low)
    both[..., 0, 0] = inside
    expected = 1.0 if inside > (0.5 if low >= 0 and max(high, 1.0) <= 1 else 0.0) else (31 / 32 + 32 / 33) / 2
    assert measure("masks", example, both).value == pytest.approx(expected)


def test_pck_counts_points_near_the_models() -> None:
    """Five of a hundred pixels are near enough, a little more is not; a third coordinate does not count."""
    y = np.array([[[[0.0, 0, 1], [60, 80, 1], [30, 40, 1], [10, 10, 1]]]])
    a = y + np.array([[3.0, 4.0, 50], [0, 5.1, 0], [0, 0, 9], [-2, 0, 0]])
    measured = measure("keypoints", outputs(y, names=("keypoints",), precision="int8"), a)
    detail = "within 5% of the extent; the furthest is off by 5.1%"
    assert measured == TaskMeasure("keypoints", "PCK", 0.75, "", 0.95, False, detail)


def test_peaks_of_heatmaps_are_points() -> None:
    """A peak that moves by a row of a map whose peaks are 5 cells apart is no longer near."""
    y = np.zeros((1, 1, 2, 8, 6))
    y[0, 0, 0, 1, 1] = y[0, 0, 1, 4, 5] = 1
    example = outputs(y, names=("joint_heatmap",))
    assert measure("keypoints", example, y).value == 1.0
    for row, column in ((5, 5), (4, 4)):
        a = np.zeros_like(y)
        a[0, 0, 0, 1, 1] = a[0, 0, 1, row, column] = 1
        assert measure("keypoints", example, a) == TaskMeasure(
            "keypoints", "PCK", 0.5, "", 0.99, False, "within 5% of the extent; the furthest is off by 20.0%"
        )


def test_cosine_and_neighbours_of_embeddings() -> None:
    """The worst sample is turned by 60 degrees, and gets another nearest neighbour itself."""
    angles = np.deg2rad([0.0, 10, 90])
    y = np.stack([np.cos(angles), np.sin(angles)], axis=1)[:, None] * 7
    turned = np.deg2rad([0.0, 70, 90])
    a = np.stack([np.cos(turned), np.sin(turned)], axis=1)[:, None]
    measured = measure("embeddings", outputs(y, names=("embedding",), precision="int8"), a)
    detail = "of the worst sample; 66.7% keep their nearest neighbour"
    assert measured == TaskMeasure("embeddings", "cosine", about(0.5), "", 0.98, False, detail)
    two = measure("embeddings", outputs(y[:2], names=("embedding",)), y[:2])
    assert two.detail == "of the worst sample; 100.0% keep their nearest neighbour"
    assert two.limit == 0.9999


def test_tokens_and_texts_of_sequences() -> None:
    """One of eight steps differs, in one of two samples; CTC still joins that one to the same text."""
    tokens = np.array([[1, 1, 0, 2], [0, 1, 2, 2]])
    y = np.eye(3)[tokens][:, None]
    other = tokens.copy()
    other[0, 1] = 0
    example = outputs(y, names=("tokens",), precision="int8")
    measured = measure("sequences", example, np.eye(3)[other][:, None])
    detail = "100.0% of the samples give the same text after CTC"
    assert measured == TaskMeasure("sequences", "equal tokens", 0.875, "", 0.95, False, detail)
    other[1, 1] = 2
    assert "50.0% of the samples" in measure("sequences", example, np.eye(3)[other][:, None]).detail


def test_the_worst_number_of_a_regression_is_named() -> None:
    """Number 1 is off by a tenth of its spread, number 0 by a hundredth; a constant number does not count."""
    y = np.array([[[-1.0, -30, 5]], [[1, 30, 5]]])
    a = y + np.array([0.01, 3.0, 9])
    measured = measure("regression", outputs(y, precision="int8"), a)
    wanted = TaskMeasure("regression", "error", about(0.1), "of the spread", 0.1, True, "number 1")
    assert replace(measured, passed=True) == wanted
    assert measure("regression", outputs(y[:, :, ::2]), a[:, :, ::2]).detail == "number 0"
    assert TASKS["regression"].measure(outputs(np.ones((2, 1, 3)))) is None
    assert TASKS["regression"].measure(outputs(np.ones((2, 1, 3), np.int64))) is None


def test_psnr_is_the_worst_samples() -> None:
    """An error of a hundredth everywhere is 40 dB of a range of one; equal images reach the highest."""
    y = np.random.default_rng(0).uniform(0, 1, (2, 1, 3, 8, 8))
    a = y.copy()
    a[1] += 0.02
    example = outputs(y)
    measured = measure("images", example, a)
    value = about(-20 * np.log10(0.02))
    assert measured == TaskMeasure("images", "PSNR", value, "dB", 40.0, False, "of sample 1, the worst")
    assert measure("images", example, y) == TaskMeasure(
        "images", "PSNR", 200.0, "dB", 40.0, True, "of sample 0, the worst"
    )
    assert measure("images", replace(example, precision="w8"), a).limit == 30.0


MAP, WIDE = np.zeros((2, 1, 4, 16, 16)), np.linspace(0, 1, 2 * 3 * 256).reshape(2, 1, 3, 16, 16)
UNIT = np.eye(16)[None].repeat(2, axis=0)[:, :1] * -1.0
LOGS = np.full((2, 1, 3, 2), np.log(0.5))
JOINT = np.concatenate([np.full((2, 1, 4, 9), 3.0), np.full((2, 1, 1, 9), 0.5)], axis=2)
RECOGNISED: dict[str, tuple[MeasuredOutputs, str]] = {
    "boxes and scores": (outputs(FIVE, SCORES, names=("boxes", "scores")), "boxes"),
    "boxes and logits": (outputs(FIVE, SCORES, names=("pred_boxes", "pred_logits")), "boxes"),
    "boxes and scores without a batch": (outputs(FIVE[0], SCORES[0], names=("boxes", "scores")), "boxes"),
    "boxes of five numbers": (
        outputs(np.zeros((2, 1, 9, 5)), np.zeros((2, 1, 9)), names=("boxes", "scores")),
        "",
    ),
    "scores of other boxes": (outputs(FIVE, SCORES[..., :4], names=("boxes", "scores")), ""),
    "a single output of boxes and scores": (outputs(FIVE, names=("box_scores",)), ""),
    "coordinates and one score": (outputs(JOINT), "boxes"),
    "as many channels as places": (outputs(JOINT[..., :5]), ""),
    "coordinates alone": (outputs(JOINT[:, :, :4]), ""),
    "scores beyond one": (outputs(JOINT * np.array([1, 1, 1, 1, 3])[:, None]), ""),
    "scores below zero": (outputs(JOINT * np.array([1, 1, 1, 1, -1])[:, None]), ""),
    "coordinates that are shares": (outputs(JOINT * 0.6), ""),
    "four classes a pixel": (outputs(MAP), "masks"),
    "two classes a pixel": (outputs(MAP[:, :, :2]), "masks"),
    "three classes a pixel look like an image": (outputs(MAP[:, :, :3]), ""),
    "256 classes a pixel": (outputs(np.zeros((2, 1, 256, 16, 16))), "masks"),
    "257 channels a pixel": (outputs(np.zeros((2, 1, 257, 16, 16))), ""),
    "a map of another size": (outputs(MAP, size=(3, 32, 16)), ""),
    "a map of eight pixels": (outputs(MAP[..., :8, :8], size=(3, 8, 8)), "masks"),
    "a map of seven pixels": (outputs(MAP[..., :7, :8], size=(3, 7, 8)), ""),
    "a named mask": (outputs(MAP[:, :, 0], names=("mask",)), "masks"),
    "a named segmentation": (outputs(MAP[:, :, :1], names=("segm",)), "masks"),
    "a small thing named mask": (outputs(MAP[..., :4, :4], names=("mask",)), ""),
    "keypoints": (outputs(np.zeros((2, 1, 5, 2)), names=("keypoints",)), "keypoints"),
    "landmarks in space": (outputs(np.zeros((2, 1, 5, 3)), names=("landmarks",)), "keypoints"),
    "keypoints of four numbers": (outputs(np.zeros((2, 1, 5, 4)), names=("keypoints",)), ""),
    "heatmaps of keypoints": (
        outputs(np.zeros((2, 1, 3, 5, 8, 8)), names=("keypoint_heatmaps",)),
        "keypoints",
    ),
    "a map of keypoints that is no heatmap": (outputs(np.zeros((2, 1, 5, 8)), names=("keypoints",)), ""),
    "flat keypoints": (outputs(np.zeros((2, 1, 2)), names=("keypoints",)), ""),
    "an image from 0 to 1": (outputs(WIDE), "images"),
    "an image from -1 to 1": (outputs(WIDE * 2 - 1), "images"),
    "an image of bytes": (outputs(WIDE * 255.0), "images"),
    "an image twice as large": (outputs(WIDE, size=(1, 8, 4)), "images"),
    "an image half as large": (outputs(WIDE, size=(3, 32, 32)), ""),
    "a hardly varying image": (outputs(WIDE * 0.2), ""),
    "an image a little beyond its range": (outputs(WIDE * 1.09 - 0.045), "images"),
    "an image far beyond its range": (outputs(WIDE * 1.5 - 1.2), ""),
    "values beyond every range": (outputs(WIDE * 600), ""),
    "an image of two channels": (outputs(WIDE[:, :, :2], size=(2, 16, 16)), "masks"),
    "two images": (outputs(WIDE, WIDE), ""),
    "vectors of length one": (outputs(UNIT), "embeddings"),
    "vectors of another length": (outputs(UNIT * 1.01), ""),
    "vectors without a minus": (outputs(np.full((2, 1, 16), 0.25)), "embeddings"),
    "certain probabilities": (outputs(UNIT * -1), ""),
    "few numbers of length one": (outputs(UNIT[..., :15] * 1.0), ""),
    "named embeddings": (outputs(UNIT * 9, names=("embeddings",)), "embeddings"),
    "named embeddings per token": (outputs(MAP[:, :, :, :, 0], names=("embed",)), ""),
    "named whole embeddings": (outputs(np.zeros((2, 1, 16), np.int64), names=("embed",)), ""),
    "logarithms of probabilities": (outputs(LOGS), "sequences"),
    "logarithms of more": (outputs(LOGS + 0.01), ""),
    "one step": (outputs(LOGS[:, :, :1]), ""),
    "one token": (outputs(LOGS[..., :1] * 0), ""),
    "named tokens": (outputs(LOGS + 5, names=("token_logits",)), "sequences"),
    "a number": (outputs(np.zeros((2, 1, 1))), "regression"),
    "two numbers": (outputs(np.zeros((2, 1, 2))), ""),
    "a number per sample of a batch": (outputs(np.zeros((2, 4))), "regression"),
    "a whole number": (outputs(np.zeros((2, 1, 1), np.int64)), ""),
    "two outputs of a number": (outputs(np.zeros((2, 1, 1)), np.zeros((2, 1, 1))), ""),
}


@pytest.mark.parametrize("name", RECOGNISED)
def test_a_task_is_recognised_where_outputs_can_be_nothing_else(name: str) -> None:
    """One thing that does not fit, and nothing is said."""
    example, task = RECOGNISED[name]
    assert next((task for task, module in TASKS.items() if module.detect(example)), "") == task


def test_samples_and_batches_are_one_axis() -> None:
    """Floats are widened; other numbers stay as they are."""
    stacked = merged_measured_outputs(np.zeros((3, 2, 5), np.float32))
    assert stacked.shape == (6, 5)
    assert stacked.dtype == np.float64
    assert merged_measured_outputs(np.zeros((3, 2, 5), np.int32)).dtype == np.int32


def masked(*weights: tuple[float, float]) -> tuple[Array, Array]:
    """Return eight boxes, of which the first are sure and have masks of two prototypes: left and right."""
    y = np.zeros((1, 1, 4 + 1 + 2, 8))
    y[0, 0, :4] = np.array([16, 16, 32, 32])[:, None]
    for column, pair in enumerate(weights):
        y[0, 0, 4:, column] = 0.9, *pair
    prototypes = np.full((1, 1, 2, 8, 8), -1.0)
    prototypes[0, 0, 0, :, :4] = prototypes[0, 0, 1, :, 4:] = 1
    return y, prototypes


def test_masks_of_prototypes_are_compared_within_their_boxes() -> None:
    """The left half of a box is not its right half; the coordinates count in pixels of the photo."""
    example = outputs(*masked((1, 0)), size=(3, 32, 32))
    assert TASKS["boxes"].detect(example)
    assert measure("boxes", example, *masked((3, 0))).detail.endswith("masks by at least 1.00")
    assert measure("boxes", example, *masked((0, 1))).detail.endswith("masks by at least 0.00")
    assert measure("boxes", example, *masked((1, 1.5))).detail.endswith("masks by at least 0.00")
    assert measure("boxes", example, *masked((1, 0), (1, 0))).detail.startswith("1 kept, 0 lost, 1 new")


def test_points_that_follow_a_box_stay_within_a_tenth_of_its_diagonal() -> None:
    """One of two points of a box whose diagonal is 50 pixels moves by four pixels, the other by six."""
    y = np.zeros((1, 1, 5 + 2 * 3, 12))
    y[0, 0, :, 0] = 50, 50, 30, 40, 0.9, 40, 40, 0.8, 60, 60, 0.7
    example = outputs(y, size=(3, 96, 96))
    assert TASKS["boxes"].detect(example)
    moved = y.copy()
    moved[0, 0, 5, 0] += 4
    assert measure("boxes", example, moved).detail.endswith("100% of a box's points or more stay")
    moved[0, 0, 9, 0] += 6
    assert measure("boxes", example, moved).detail.endswith("50% of a box's points or more stay")


def test_rows_of_a_head_without_suppression_are_detections() -> None:
    """Corners in pixels, a score and the number of a class; a row of another class is lost and new."""
    rows = np.array([[[[0, 0, 10, 10, 0.9, 3], [20, 0, 30, 10, 0.8, 1], [0, 0, 1, 1, 0.0, 0]]]])
    example = outputs(rows, size=(3, 64, 64))
    assert TASKS["boxes"].detect(example)
    other = rows.copy()
    other[..., 1, 5] = 2
    assert measure("boxes", example, other).detail.startswith("1 kept, 1 lost, 1 new")
    assert not TASKS["boxes"].detect(outputs(rows + 0.5, size=(3, 64, 64)))
