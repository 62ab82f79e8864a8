"""Points on a body or a face: the share that stays where it was."""

from __future__ import annotations

import numpy as np

from exporter.records import Array, TaskMeasure
from exporter.verify.tasks.measured_outputs import MeasuredOutputs, merged_measured_outputs

EXACT, LOSSY = 0.99, 0.95
NEAR = 0.05
"""A point stays where it was within this share of the extent of its sample's points."""
MIN_HEATMAP_SIDE = 8
NAMES = ("keypoint", "landmark", "joint")


def detect_keypoint_task(outputs: MeasuredOutputs) -> bool:
    """Take an output named after keypoints, of two or three coordinates each or a heatmap each."""
    index = outputs.find(*NAMES)
    if index is None or outputs.reference[index].ndim < 4:
        return False
    sides = outputs.reference[index].shape[-2:]
    is_map = "heatmap" in outputs.names[index].lower() and min(sides) >= MIN_HEATMAP_SIDE
    return sides[-1] in {2, 3} or is_map


def measure_keypoint_task(outputs: MeasuredOutputs) -> TaskMeasure | None:
    """Return the share of points within `NEAR` of the model's."""
    index = outputs.find(*NAMES)
    if index is None:
        index = next((i for i, y in enumerate(outputs.reference) if y.ndim >= 4), None)
    if index is None:
        return None
    y, a = (
        _keypoints_of_task(merged_measured_outputs(stack[index]))
        for stack in (outputs.reference, outputs.actual)
    )
    extents = np.linalg.norm(y.max(axis=1) - y.min(axis=1), axis=-1)
    distances = np.linalg.norm(a - y, axis=-1) / np.maximum(extents, np.finfo(np.float64).tiny)[:, None]
    value = float((distances <= NEAR).mean())
    limit = outputs.limit(EXACT, LOSSY)
    detail = f"within {NEAR:.0%} of the extent; the furthest is off by {distances.max():.1%}"
    return TaskMeasure("keypoints", "PCK", value, "", limit, value >= limit, detail)


def _keypoints_of_task(y: Array) -> Array:
    """Return [samples, points, 2]: coordinates as they are, or the peaks of heatmaps."""
    if y.shape[-1] in {2, 3}:
        points: Array = y.reshape(len(y), -1, y.shape[-1])[..., :2]
        return points
    peaks = y.reshape(len(y), -1, y.shape[-2] * y.shape[-1]).argmax(axis=-1)
    return np.stack(np.unravel_index(peaks, y.shape[-2:]), axis=-1).astype(np.float64)
