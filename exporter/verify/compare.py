"""How far an artifact's outputs are from the original model's. Pure: arrays in, figures out.

All errors are relative to the output's scale, so that a network whose outputs are about 1e-9 cannot pass by
being small. `judge.py` decides what the figures mean.
"""

from __future__ import annotations

import math

import numpy as np

from exporter.records import Array, Comparison
from exporter.verify.reference_io import Stacks

REPEAT_TOLERANCE = 1e-6
"""A second run in another order may differ by this share of the scale (thread scheduling), not more."""


def max_error(reference: Array, actual: Array) -> float:
    """max|a - y| / max|y| over everything; 0 for equal arrays."""
    y, a = reference.astype(np.float64), actual.astype(np.float64)
    worst, scale = float(np.abs(a - y).max(initial=0.0)), float(np.abs(y).max(initial=0.0))
    return 0.0 if worst == 0 else worst / scale if scale else math.inf


def sqnr_db(reference: Array, actual: Array) -> float:
    """10 log10(sum y² / sum (a - y)²): signal-to-quantisation-noise ratio; inf for equal arrays."""
    y, a = reference.astype(np.float64), actual.astype(np.float64)
    noise, signal = float(((a - y) ** 2).sum()), float((y**2).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def agreement(reference: Array, actual: Array) -> float | None:
    """Share of equal argmax over the class axis; None where the output has no classes.

    Args:
        reference: [N, batch, classes, ...] (samples stacked in front).
        actual: The same shape.
    """
    if reference.ndim < 3 or reference.shape[2] < 2 or not np.issubdtype(reference.dtype, np.floating):
        return None
    return float((reference.argmax(axis=2) == actual.argmax(axis=2)).mean())


def compare(reference: Stacks, actual: Stacks) -> Comparison:
    """Compare stacked outputs; the worst output of the model counts for each figure.

    Args:
        reference: Per output [N, *shape], usually float64.
        actual: Per output [N, *shape] from the artifact.
    """
    samples = len(reference[0])
    if problem := _mismatch(reference, actual) or not_finite("The artifact", actual):
        return Comparison(samples, math.inf, -math.inf, None, problem)
    pairs = list(zip(reference, actual, strict=True))
    shares = [share for y, a in pairs if (share := agreement(y, a)) is not None]
    return Comparison(
        samples=samples,
        max_error=max(max_error(y, a) for y, a in pairs),
        sqnr_db=min(sqnr_db(y, a) for y, a in pairs),
        agreement=min(shares, default=None),
    )


def _mismatch(reference: Stacks, actual: Stacks) -> str:
    if len(reference) != len(actual):
        return f"It has {len(actual)} outputs, the model has {len(reference)}."
    for index, (y, a) in enumerate(zip(reference, actual, strict=True)):
        if y.shape != a.shape:
            return f"Output {index} has shape {list(a.shape[1:])}, the model's has {list(y.shape[1:])}."
        if (y.dtype.kind == "f") != (a.dtype.kind == "f"):
            return f"Output {index} is {a.dtype}, the model's is {y.dtype}."
    return ""


def not_finite(whose: str, outputs: Stacks) -> str:
    """A sentence when an output has NaN or Inf, else an empty string."""
    for index, array in enumerate(outputs):
        bad = int(array.size - np.isfinite(array).sum()) if array.dtype.kind == "f" else 0
        if bad:
            return f"{whose} gives NaN or Inf: {bad} of {array.size} values of output {index}."
    return ""


def repeats(first: Stacks, again: Stacks) -> str:
    """A sentence when the same inputs in another order gave other outputs, else an empty string."""
    worst = max((max_error(f, a) for f, a in zip(first, again, strict=True)), default=0.0)
    if worst <= REPEAT_TOLERANCE:
        return ""
    return f"The same inputs in another order gave other outputs (by {worst:.1e} of their scale)."
