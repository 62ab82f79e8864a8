"""Measures objects in boxes: the detections that the artifact keeps, matched by class and overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exporter.records import Array, TaskMeasure
from exporter.verify.tasks.measured_outputs import MeasuredOutputs, merged_measured_outputs

EXACT, LOSSY = 0.99, 0.9
CONFIDENT = 0.5
"""A detection has a score of at least this share of the model's largest one."""
OVERLAP = 0.5
MOST = 300
"""Detections that are matched in a sample, the surest first."""
SCORES = ("score", "prob", "conf", "class", "logit", "cls")


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector gives for all samples: corners [n, boxes, 4], scores and classes [n, boxes]."""

    corners: Array
    scores: Array
    classes: Array


def detect_box_task(outputs: MeasuredOutputs) -> bool:
    """Take outputs named boxes and scores, or one tensor of four coordinates in pixels and scores."""
    return _pair_of_box_task_outputs(outputs) is not None or _joint_output_of_box_task(outputs) is not None


def _pair_of_box_task_outputs(outputs: MeasuredOutputs) -> tuple[int, int] | None:
    boxes, scores = outputs.find("box"), outputs.find(*SCORES)
    if boxes is None or scores is None or boxes == scores:
        return None
    shape, other = outputs.reference[boxes].shape, outputs.reference[scores].shape
    fits = len(shape) >= 3 and shape[-1] == 4 and other[: len(shape) - 1] == shape[:-1]
    return (boxes, scores) if fits else None


def _joint_output_of_box_task(outputs: MeasuredOutputs) -> int | None:
    """Return the output of shape [4 + classes, boxes]: coordinates in pixels, scores from 0 to 1."""
    if len(outputs.reference) != 1 or outputs.reference[0].ndim != 4:
        return None
    y = outputs.reference[0]
    if y.shape[2] < 5 or y.shape[3] <= y.shape[2]:
        return None
    scores, places = y[:, :, 4:], y[:, :, :4]
    return 0 if scores.min() >= 0 and scores.max() <= 1 and places.max() > 2 else None


def measure_box_task(outputs: MeasuredOutputs) -> TaskMeasure | None:
    """Return the harmonic mean of the shares of detections that were kept and that are the model's."""
    read = [_read_boxes_of_task(outputs, stacks) for stacks in (outputs.reference, outputs.actual)]
    expected, actual = read
    if expected is None or actual is None or not expected.scores.size:
        return None
    threshold = CONFIDENT * float(expected.scores.max())
    matched = lost = new = 0
    drifts, overlaps = [0.0], [1.0]
    for i in range(len(expected.scores)):
        pairs, there, here = _match_boxes_of_task(expected, actual, i, threshold)
        matched, lost, new = matched + len(pairs), lost + there - len(pairs), new + here - len(pairs)
        drifts += [drift for drift, _ in pairs]
        overlaps += [overlap for _, overlap in pairs]
    value = 2 * matched / (2 * matched + lost + new) if matched + lost + new else 1.0
    limit = outputs.limit(EXACT, LOSSY)
    detail = (
        f"{matched} kept, {lost} lost, {new} new; scores drift by up to {max(drifts):.3f}, "
        f"boxes overlap by at least {min(overlaps):.2f}"
    )
    return TaskMeasure("boxes", "detections", value, "F1", limit, value >= limit, detail)


def _read_boxes_of_task(outputs: MeasuredOutputs, stacks: tuple[Array, ...]) -> Detections | None:
    if pair := _pair_of_box_task_outputs(outputs):
        corners, scores = (merged_measured_outputs(stacks[i]) for i in pair)
        corners = corners.reshape(len(corners), -1, 4)
        named = outputs.find("label", "categor")
        by_class = scores.reshape(*corners.shape[:2], -1)
        if by_class.shape[-1] > 1:
            return Detections(corners, by_class.max(axis=-1), by_class.argmax(axis=-1))
        scores = by_class[..., 0]
        classes = (
            merged_measured_outputs(stacks[named]).reshape(scores.shape)
            if named is not None
            else np.zeros(scores.shape)
        )
        return Detections(corners, scores, classes)
    index = 0 if stacks[0].ndim == 4 and stacks[0].shape[2] > 4 else None
    if index is None:
        return None
    y = merged_measured_outputs(stacks[index]).transpose(0, 2, 1)
    centre, size = y[..., :2], y[..., 2:4]
    corners = np.concatenate([centre - size / 2, centre + size / 2], axis=-1)
    return Detections(corners, y[..., 4:].max(axis=-1), y[..., 4:].argmax(axis=-1))


def _match_boxes_of_task(
    expected: Detections, actual: Detections, sample: int, threshold: float
) -> tuple[list[tuple[float, float]], int, int]:
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
            drift = abs(expected.scores[sample, left[row]] - actual.scores[sample, right[column]])
            pairs.append((float(drift), float(overlaps[row, column])))
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
