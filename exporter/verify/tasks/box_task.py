"""Measures objects in boxes: the detections that the artifact keeps, matched by class and overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exporter.records import Array, TaskMeasure
from exporter.verify.tasks.measured_outputs import MeasuredOutputs
from exporter.verify.tasks.read_boxes import Detections, reader_of_boxes, reader_of_joint_boxes

EXACT, LOSSY = 0.99, 0.9
CONFIDENT = 0.5
"""A detection has a score of at least this share of the model's largest one."""
OVERLAP = 0.5
MOST = 300
"""Detections that are matched in a sample, the surest first."""


def detect_box_task(outputs: MeasuredOutputs) -> bool:
    """Take the outputs of a detector, as `reader_of_boxes` knows them."""
    return reader_of_boxes(outputs) is not None


def measure_box_task(outputs: MeasuredOutputs) -> TaskMeasure | None:
    """Return the harmonic mean of the shares of detections that were kept and that are the model's."""
    read = reader_of_boxes(outputs) or reader_of_joint_boxes(outputs)
    if read is None:
        return None
    expected, actual = read(outputs, outputs.reference), read(outputs, outputs.actual)
    if not expected.scores.size:
        return None
    threshold = CONFIDENT * float(expected.scores.max())
    matched = lost = new = 0
    drifts, overlaps, likenesses = [0.0], [1.0], [1.0]
    for i in range(len(expected.scores)):
        pairs, there, here = _match_boxes_of_task(expected, actual, i, threshold)
        matched, lost, new = matched + len(pairs), lost + there - len(pairs), new + here - len(pairs)
        drifts += [pair.drift for pair in pairs]
        overlaps += [pair.overlap for pair in pairs]
        likenesses += [pair.likeness for pair in pairs]
    value = 2 * matched / (2 * matched + lost + new) if matched + lost + new else 1.0
    limit = outputs.limit(EXACT, LOSSY)
    detail = (
        f"{matched} kept, {lost} lost, {new} new; scores drift by up to {max(drifts):.3f}, "
        f"boxes overlap by at least {min(overlaps):.2f}"
    )
    if expected.masks:
        detail += f", masks by at least {min(likenesses):.2f}"
    if expected.points is not None:
        detail += f", {min(likenesses):.0%} of a box's points or more stay"
    return TaskMeasure("boxes", "detections", value, "F1", limit, value >= limit, detail)


@dataclass(frozen=True)
class _Pair:
    """A detection of the model, and the artifact's that was matched with it."""

    drift: float
    """How far their scores differ."""
    overlap: float
    likeness: float
    """How alike their masks or points are; 1 without these."""


def _match_boxes_of_task(
    expected: Detections, actual: Detections, sample: int, threshold: float
) -> tuple[list[_Pair], int, int]:
    """Match one sample's detections, the surest first, each with the free one that overlaps most.

    Returns:
        Score drift and overlap of each pair, and how many detections each side has.
    """
    left, right = (
        _confident_boxes_of_task(detections, sample, threshold) for detections in (expected, actual)
    )
    if not len(left) or not len(right):
        return [], len(left), len(right)
    overlaps = overlap_of_boxes_in_task(expected.corners[sample, left], actual.corners[sample, right])
    same = expected.classes[sample, left][:, None] == actual.classes[sample, right][None]
    overlaps = np.where(same, overlaps, 0.0)
    pairs = []
    for row in range(len(left)):
        column = int(overlaps[row].argmax())
        if overlaps[row, column] >= OVERLAP:
            own, its = left[row], right[column]
            drift = abs(expected.scores[sample, own] - actual.scores[sample, its])
            likeness = expected.likeness(actual, sample, own, its)
            pairs.append(_Pair(float(drift), float(overlaps[row, column]), likeness))
            overlaps[:, column] = 0.0
    return pairs, len(left), len(right)


def _confident_boxes_of_task(detections: Detections, sample: int, threshold: float) -> Array:
    scores = detections.scores[sample]
    order = np.argsort(-scores, kind="stable")[:MOST]
    sure: Array = order[scores[order] >= threshold]
    return sure


def overlap_of_boxes_in_task(left: Array, right: Array, crowd: bool = False) -> Array:
    """Return intersection over union of all pairs; of a crowd's region, over the left box's own area."""
    low = np.maximum(left[:, None, :2], right[None, :, :2])
    high = np.minimum(left[:, None, 2:], right[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    areas = [np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=-1) for boxes in (left, right)]
    whole = np.broadcast_to(areas[0][:, None], shared.shape)
    union = whole if crowd else whole + areas[1][None] - shared
    shares: Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return shares
