"""Reads the detections, and the masks or points with them, from the outputs that detectors have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from exporter.records import Array
from exporter.verify.reference_io import Stacks
from exporter.verify.tasks.measured_outputs import MeasuredOutputs, merged_measured_outputs

SCORES = ("score", "prob", "conf", "class", "logit", "cls")
ROW = 6
"""Values of a row of a head that chooses its boxes: corners, score and class."""
UNORDERED = 0.01
"""More boxes than this share that end before they begin show that the four numbers mean something else."""
NEAR = 0.1
"""Points on a body are where they were if they moved by less than this share of their box's diagonal."""

TIED = 1e-3
"""Scores that differ by less than this share of the largest are equal: rounding decides which is larger."""


@dataclass(frozen=True, eq=False)
class Masks:
    """Masks as YOLACT and Ultralytics give them: each is a weighted sum of a photo's prototypes."""

    weights: Array
    """[n, boxes, prototypes]."""
    prototypes: Array
    """[n, prototypes, height, width]."""
    photo: tuple[int, int]
    """(height, width) of the photo, in whose pixels boxes are."""

    def mask(self, sample: int, row: int, box: Array) -> Array:
        """Return which pixels of the prototypes' grid belong to a detection, within `box`."""
        sums = np.tensordot(self.weights[sample, row], self.prototypes[sample], axes=1)
        height, width = sums.shape
        x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
        low_x, high_x = box[[0, 2]] * width / self.photo[1]
        low_y, high_y = box[[1, 3]] * height / self.photo[0]
        inside = ((y >= low_y) & (y <= high_y))[:, None] & ((x >= low_x) & (x <= high_x))
        mask: Array = (sums > 0) & inside
        return mask


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector gives for all samples: corners [n, boxes, 4], scores and classes [n, boxes]."""

    corners: Array
    scores: Array
    classes: Array
    masks: Masks | None = None
    points: Array | None = None
    """[n, boxes, points, 2] in pixels; None for a detector without points."""
    chosen: bool = False
    """Whether the head chose these boxes among more, by their scores."""

    def likeness(self, other: Detections, sample: int, row: int, column: int) -> float:
        """Return how alike the masks or points of two detections are: from 0 to 1, the same with neither."""
        box = self.corners[sample, row]
        if self.masks and other.masks:
            own, its = self.masks.mask(sample, row, box), other.masks.mask(sample, column, box)
            either = int((own | its).sum())
            return int((own & its).sum()) / either if either else 1.0
        if self.points is not None and other.points is not None:
            moved = np.linalg.norm(self.points[sample, row] - other.points[sample, column], axis=-1)
            near = moved <= NEAR * np.linalg.norm(box[2:] - box[:2])
            return float(near.mean())
        return 1.0


Reader = Callable[[MeasuredOutputs, Stacks], Detections]
"""Reads the detections from the model's outputs or an artifact's."""


def reader_of_boxes(outputs: MeasuredOutputs) -> Reader | None:
    """Return the function that reads detections from such outputs; None where they are no detector's."""
    if (pair := pair_of_box_outputs(outputs)) is not None:
        boxes = outputs.reference[pair[0]]
        return _read_pair_of_boxes if are_box_corners(boxes) or _are_box_centres(boxes) else None
    y = outputs.reference[0] if outputs.reference else None
    if y is None or y.ndim != 4 or y.dtype.kind != "f":
        return None
    alone = len(outputs.reference) == 1
    if alone and _are_chosen_boxes(y):
        return _read_chosen_boxes
    if y.shape[3] <= y.shape[2] or y[:, :, :4].max() <= 2:
        return None
    if alone and _are_joint_box_scores(y[:, :, 4:]):
        return _read_joint_boxes
    if alone and _are_boxes_with_points(y):
        return _read_boxes_with_points
    masks = _prototypes_of_boxes(outputs.reference)
    if masks and _are_joint_box_scores(y[:, :, 4:-masks]):
        return _read_boxes_with_masks
    return None


def reader_of_joint_boxes(outputs: MeasuredOutputs) -> Reader | None:
    """Return the function that reads a box and its scores from each column of the first output.

    The values need not show that they are boxes: the user may have said so. None where they cannot be.
    """
    if pair_of_box_outputs(outputs) is not None:
        return None
    y = outputs.reference[0]
    return _read_joint_boxes if y.ndim == 4 and y.shape[2] > 4 else None


def pair_of_box_outputs(outputs: MeasuredOutputs) -> tuple[int, int] | None:
    """Return the numbers of the outputs that are named boxes and scores."""
    boxes, scores = outputs.find("box"), outputs.find(*SCORES)
    if boxes is None or scores is None or boxes == scores:
        return None
    shape, other = outputs.reference[boxes].shape, outputs.reference[scores].shape
    fits = len(shape) >= 3 and shape[-1] == 4 and other[: len(shape) - 1] == shape[:-1]
    return (boxes, scores) if fits else None


def are_box_corners(boxes: Array) -> bool:
    """Tell whether [..., 4] are two corners of boxes: those of a centre and a size are seldom in order."""
    return _share_of_unordered_boxes(boxes[..., 2:] < boxes[..., :2]) <= UNORDERED


def _are_box_centres(boxes: Array) -> bool:
    """Tell whether [..., 4] can be a centre and a size; distances from anchors are often negative."""
    return _share_of_unordered_boxes(boxes[..., 2:] < 0) <= UNORDERED


def _share_of_unordered_boxes(sides: Array) -> float:
    return float(sides.any(axis=-1).mean()) if sides.size else 0.0


def box_corners_from_centres(boxes: Array) -> Array:
    """Return the corners of boxes that are given as a centre and a size: [..., 4]."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def are_box_probabilities(scores: Array) -> bool:
    """Tell whether scores of classes are probabilities, and no logits."""
    return not scores.size or bool(scores.min() >= 0 and scores.max() <= 1)


def box_probabilities_from_logits(scores: Array) -> Array:
    """Return the softmax over the last dimension."""
    exponents = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probabilities: Array = exponents / exponents.sum(axis=-1, keepdims=True)
    return probabilities


def _are_joint_box_scores(y: Array) -> bool:
    return y.shape[2] > 0 and are_box_probabilities(y)


def _are_boxes_with_points(y: Array) -> bool:
    """Tell whether a score follows the box, and then triples of x, y in pixels and a probability."""
    triples = y.shape[2] - 5
    if triples < 3 or triples % 3:
        return False
    return _are_joint_box_scores(y[:, :, [4, *range(7, y.shape[2], 3)]]) and bool(y[:, :, 5:].max() > 2)


def _are_chosen_boxes(y: Array) -> bool:
    """Tell whether each row has corners in pixels, a score and the number of a class."""
    if y.shape[3] != ROW or y.shape[2] < 2:
        return False
    places, scores, classes = y[..., :4], y[..., 4], y[..., 5]
    ordered = (places[..., :2] <= places[..., 2:]).mean() > 0.9
    whole = bool((classes == np.round(classes)).all() and classes.min() >= 0)
    return bool(ordered and places.max() > 2 and whole and scores.min() >= 0 and scores.max() <= 1)


def _prototypes_of_boxes(stacks: Stacks) -> int:
    """Return how many prototypes of masks the second of two outputs holds; 0 where it holds none."""
    if len(stacks) != 2 or stacks[1].ndim != 5:
        return 0
    count = stacks[1].shape[2]
    return count if 0 < count < stacks[0].shape[2] - 4 else 0


def _read_pair_of_boxes(outputs: MeasuredOutputs, stacks: Stacks) -> Detections:
    pair = pair_of_box_outputs(outputs)
    assert pair is not None
    corners, scores = (merged_measured_outputs(stacks[i]) for i in pair)
    corners = corners.reshape(len(corners), -1, 4)
    if not are_box_corners(outputs.reference[pair[0]]):
        corners = box_corners_from_centres(corners)
    named = outputs.find("label", "categor")
    by_class = scores.reshape(*corners.shape[:2], -1)
    if by_class.shape[-1] > 1:
        if not are_box_probabilities(outputs.reference[pair[1]]):
            by_class = box_probabilities_from_logits(by_class)
        return Detections(corners, by_class.max(axis=-1), _surest_class_of_boxes(by_class))
    scores = by_class[..., 0]
    classes = (
        merged_measured_outputs(stacks[named]).reshape(scores.shape)
        if named is not None
        else np.zeros(scores.shape)
    )
    return Detections(corners, scores, classes)


def _surest_class_of_boxes(scores: Array) -> Array:
    """Return the first class whose score is the largest, or equal to it but for rounding.

    Args:
        scores: [n, boxes, classes]. In float32, several classes of a sure box have a score of exactly 1.
    """
    largest = scores.max(axis=-1, keepdims=True)
    classes: Array = (scores >= largest - TIED * np.abs(largest)).argmax(axis=-1)
    return classes


def _columns_of_boxes(stacks: Stacks) -> tuple[Array, Array]:
    """Return the corners of each column's box, and what follows its centre and size: [n, boxes, values]."""
    y = merged_measured_outputs(stacks[0]).transpose(0, 2, 1)
    return box_corners_from_centres(y[..., :4]), y[..., 4:]


def _read_joint_boxes(_: MeasuredOutputs, stacks: Stacks) -> Detections:
    corners, scores = _columns_of_boxes(stacks)
    return Detections(corners, scores.max(axis=-1), _surest_class_of_boxes(scores))


def _read_boxes_with_masks(outputs: MeasuredOutputs, stacks: Stacks) -> Detections:
    corners, rest = _columns_of_boxes(stacks)
    prototypes = merged_measured_outputs(stacks[1])
    scores, weights = np.split(rest, [-prototypes.shape[1]], axis=-1)
    height, width = outputs.inputs[0].shape[-2:]
    masks = Masks(weights, prototypes, (height, width))
    return Detections(corners, scores.max(axis=-1), _surest_class_of_boxes(scores), masks)


def _read_boxes_with_points(_: MeasuredOutputs, stacks: Stacks) -> Detections:
    corners, rest = _columns_of_boxes(stacks)
    scores = rest[..., 0]
    points = rest[..., 1:].reshape(*scores.shape, -1, 3)[..., :2]
    return Detections(corners, scores, np.zeros(scores.shape), points=points)


def _read_chosen_boxes(_: MeasuredOutputs, stacks: Stacks) -> Detections:
    rows = merged_measured_outputs(stacks[0])
    return Detections(rows[..., :4], rows[..., 4], rows[..., 5], chosen=True)
