"""A class for every pixel: intersection over union, averaged over the classes."""

from __future__ import annotations

import numpy as np

from exporter.records import Array, TaskMeasure
from exporter.verify.tasks.measured_outputs import MeasuredOutputs, merged_measured_outputs

EXACT, LOSSY = 0.99, 0.9
MIN_SIDE = 8


def detect_mask_task(outputs: MeasuredOutputs) -> bool:
    """Take an output named after masks, or scores of 2 or of 4 to 256 classes at the input's resolution."""
    return _mask_task_index(outputs) is not None


def _mask_task_index(outputs: MeasuredOutputs) -> int | None:
    named = outputs.find("mask", "segm")
    if named is not None and _is_map_of_mask_task(outputs.reference[named]):
        return named
    index = outputs.first_float(5)
    if index is None or not outputs.inputs or outputs.inputs[0].ndim != 5:
        return None
    shape = outputs.reference[index].shape
    same_size = shape[3:] == outputs.inputs[0].shape[3:] and min(shape[3:]) >= MIN_SIDE
    return index if same_size and (shape[2] == 2 or 4 <= shape[2] <= 256) else None


def _is_map_of_mask_task(y: Array) -> bool:
    return y.ndim >= 4 and min(y.shape[-2:]) >= MIN_SIDE


def measure_mask_task(outputs: MeasuredOutputs) -> TaskMeasure | None:
    """Return the mean, over the classes that the model gives, of intersection over union."""
    index = _mask_task_index(outputs)
    if index is None:
        index = next((i for i, y in enumerate(outputs.reference) if _is_map_of_mask_task(y)), None)
    if index is None:
        return None
    y, a = (
        _mask_task_classes(merged_measured_outputs(stack[index]))
        for stack in (outputs.reference, outputs.actual)
    )
    shares = {int(c): _overlap_of_masks_in_task(y == c, a == c) for c in np.unique(y)}
    worst = min(shares, key=lambda c: shares[c])
    value = float(np.mean(list(shares.values())))
    limit = outputs.limit(EXACT, LOSSY)
    detail = f"{len(shares)} classes, class {worst} is the worst with {shares[worst]:.3f}"
    return TaskMeasure("masks", "mIoU", value, "", limit, value >= limit, detail)


def _mask_task_classes(y: Array) -> Array:
    """Return a class per pixel: the likeliest, the sign of a single score, or the numbers themselves."""
    if y.dtype.kind != "f":
        return y
    if y.ndim == 4 and y.shape[1] > 1:
        likeliest: Array = y.argmax(axis=1)
        return likeliest
    middle = 0.5 if y.min() >= 0 and y.max() <= 1 else 0.0
    inside: Array = y > middle
    return inside


def _overlap_of_masks_in_task(y: Array, a: Array) -> float:
    return float((y & a).sum() / (y | a).sum())
