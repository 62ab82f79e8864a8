"""Measures objects in boxes: the detections that the artifact keeps, matched by class and overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exporter.records import Array, TaskMeasure
from exporter.verify.tasks.measured_outputs import MeasuredOutputs
from exporter.verify.tasks.read_boxes import TIED, Detections, reader_of_boxes, reader_of_joint_boxes

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
    """Return the harmonic mean of the shares of detections that were kept and that are the model's.

    Where scores are cut (the surest 300, those of a certain score, the rows that a head chooses), rounding
    decides about the detections whose score is that of the cut. These are neither lost nor new. None where
    all of them are: an untrained network gives every box the same score.
    """
    read = reader_of_boxes(outputs) or reader_of_joint_boxes(outputs)
    if read is None:
        return None
    expected, actual = read(outputs, outputs.reference), read(outputs, outputs.actual)
    if not expected.scores.size:
        return None
    largest = float(expected.scores.max())
    threshold, tie = CONFIDENT * largest, TIED * abs(largest)
    kept, found = _Tally([]), _Tally([])
    for i in range(len(expected.scores)):
        kept = kept + _match_boxes_of_task(expected, actual, i, threshold, tie)
        found = found + _match_boxes_of_task(actual, expected, i, threshold, tie)
    if not kept.decided and not found.decided:
        return None
    shares = [len(tally.pairs) / tally.decided if tally.decided else 1.0 for tally in (kept, found)]
    value = 2 * shares[0] * shares[1] / sum(shares) if any(shares) else 0.0
    limit = outputs.limit(EXACT, LOSSY)
    detail = _detail_of_boxes(expected, kept, found)
    return TaskMeasure("boxes", "detections", value, "F1", limit, value >= limit, detail)


def _detail_of_boxes(expected: Detections, kept: _Tally, found: _Tally) -> str:
    overlap, likeness = (
        min([1.0, *values])
        for values in ([pair.overlap for pair in kept.pairs], [pair.likeness for pair in kept.pairs])
    )
    detail = (
        f"{len(kept.pairs)} kept, {kept.missing} lost, {found.missing} new; "
        f"scores drift by up to {max([0.0, *(pair.drift for pair in kept.pairs)]):.3f}, "
        f"boxes overlap by at least {overlap:.2f}"
    )
    if expected.masks:
        detail += f", masks by at least {likeness:.2f}"
    if expected.points is not None:
        detail += f", {likeness:.0%} of a box's points or more stay"
    if kept.tied:
        detail += f"; {kept.tied} more have the score at which detections are cut off, and do not count"
    return detail


@dataclass(frozen=True)
class _Pair:
    """A detection, and the other side's that was matched with it."""

    drift: float
    """How far their scores differ."""
    overlap: float
    likeness: float
    """How alike their masks or points are; 1 without these."""


@dataclass(frozen=True)
class _Tally:
    """What became of one side's detections."""

    pairs: list[_Pair]
    missing: int = 0
    """Detections that the other side does not have."""
    tied: int = 0
    """Detections whose score is that of the cut, which rounding chose."""

    @property
    def decided(self) -> int:
        return len(self.pairs) + self.missing

    def __add__(self, other: _Tally) -> _Tally:
        return _Tally(self.pairs + other.pairs, self.missing + other.missing, self.tied + other.tied)


def _match_boxes_of_task(
    own: Detections, other: Detections, sample: int, threshold: float, tie: float
) -> _Tally:
    """Match one sample's detections, the surest first, each with the free one that overlaps most.

    Args:
        own: The side whose detections are counted.
        other: The side among whose detections they are looked for, down to just below the cut.
        sample: Which of the inputs.
        threshold: The least score of a detection.
        tie: How far apart two scores may be and still be equal.
    """
    scores = own.scores[sample]
    order = np.argsort(-scores, kind="stable")
    cut = max(threshold, float(scores[order[MOST]]) if len(order) > MOST else threshold)
    if own.chosen:
        cut = max(cut, float(scores.min()))
    sure = order[:MOST][scores[order[:MOST]] >= threshold]
    left = sure[scores[sure] > cut + tie]
    right = np.flatnonzero(other.scores[sample] >= cut - tie)
    tied = len(sure) - len(left)
    if not len(left) or not len(right):
        return _Tally([], len(left), tied)
    overlaps = overlap_of_boxes_in_task(own.corners[sample, left], other.corners[sample, right])
    same = own.classes[sample, left][:, None] == other.classes[sample, right][None]
    overlaps = np.where(same, overlaps, 0.0)
    pairs = []
    for row in range(len(left)):
        column = int(overlaps[row].argmax())
        if overlaps[row, column] >= OVERLAP:
            mine, its = left[row], right[column]
            drift = abs(own.scores[sample, mine] - other.scores[sample, its])
            likeness = own.likeness(other, sample, mine, its)
            pairs.append(_Pair(float(drift), float(overlaps[row, column]), likeness))
            overlaps[:, column] = 0.0
    return _Tally(pairs, len(left) - len(pairs), tied)


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
