"""The measure of networks that make or repair images: the peak signal-to-noise ratio."""

from __future__ import annotations

import math

import numpy as np

from exporter.records import Array, TaskMeasure
from exporter.verify.tasks.measured_outputs import MeasuredOutputs, merged_measured_outputs

EXACT, LOSSY = 40.0, 30.0
RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
HIGHEST = 200.0
"""What equal images are said to reach: no file holds an infinity."""
SLACK = 0.05
"""Share of a range that a network may overshoot it by."""


def detect_image_task(outputs: MeasuredOutputs) -> bool:
    """Take a single output that is an image like the input, or an enlarged one, in a range of pixels."""
    if len(outputs.reference) != 1 or not outputs.inputs:
        return False
    x, y = outputs.inputs[0], outputs.reference[0]
    if not (x.ndim == y.ndim == 5 and y.dtype.kind == "f" and y.shape[2] in {1, 3} and x.shape[2] in {1, 3}):
        return False
    enlarged = all(big % small == 0 for big, small in zip(y.shape[3:], x.shape[3:], strict=True))
    return enlarged and _image_task_range(y) is not None


def _image_task_range(y: Array) -> float | None:
    """Return the width of the narrowest range of pixels that holds all values, and is used."""
    low, high = float(y.min()), float(y.max())
    for bottom, top in RANGES:
        slack = SLACK * (top - bottom)
        if low >= bottom - slack and high <= top + slack and high - low > (top - bottom) / 4:
            return top - bottom
    return None


def measure_image_task(outputs: MeasuredOutputs) -> TaskMeasure | None:
    """Return the worst sample's peak signal-to-noise ratio."""
    index = outputs.first_float(5)
    if index is None:
        return None
    y, a = (merged_measured_outputs(stack[index]) for stack in (outputs.reference, outputs.actual))
    peak = _image_task_range(y) or float(y.max() - y.min())
    errors = ((a - y) ** 2).reshape(len(y), -1).mean(axis=1)
    worst = int(np.argmax(errors))
    value = 10 * math.log10(peak**2 / errors[worst]) if errors[worst] and peak else math.inf
    limit = outputs.limit(EXACT, LOSSY)
    return TaskMeasure(
        "images", "PSNR", min(value, HIGHEST), "dB", limit, value >= limit, f"of sample {worst}, the worst"
    )
