"""Computes accuracy on labelled samples: counts, intervals, and what an artifact lost. Pure.

The same samples go through float32 and through the artifact, so the drop is a difference of paired shares:
only samples that one of the two gets right and the other wrong count. Its interval is Newcombe's
"square-and-add" for paired data (method 10 of Statistics in Medicine 17, 1998, 2635-2650), which stays true
for few samples and for shares near 1, where the usual normal interval is empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from exporter.errors import CalibrationError
from exporter.records import Accuracy, Array

Z = 1.959963984540054
"""Standard normal quantile of a two-sided 95 % interval."""
TOP1 = "top-1"
"""The measure of class numbers, as messages name it."""
UNREAD = -1
"""Stands in place of a prediction for a sample that could not be read."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of one model: the five most likely classes of every sample, the likeliest first."""

    ranked: Array
    """int32 [samples, up to 5]; a row of `UNREAD` for a sample that could not be read."""


def rank_for_accuracy(outputs: Array) -> Array:
    """Return the five largest classes of each row, int32; of equal scores the lower class first, NaN last.

    Args:
        outputs: [rows, classes].
    """
    scores = np.where(np.isnan(outputs), -np.inf, outputs.astype(np.float64))
    return np.argsort(-scores, axis=1, kind="stable")[:, :5].astype(np.int32)


def count_accuracy(labels: Array, predictions: Predictions, reference: Predictions, classes: int) -> Accuracy:
    """Count where a model is right, and where it differs from float32.

    Args:
        labels: [samples] class of each.
        predictions: The model's predictions.
        reference: Eager float32's predictions for the same samples.
        classes: Number of the model's classes; with five or fewer, being among the first five means nothing.
    """
    read = reference.ranked[:, 0] != UNREAD
    wanted, mine, floats = labels[read], predictions.ranked[read], reference.ranked[read]
    right, before = mine[:, 0] == wanted, floats[:, 0] == wanted
    among = (mine == wanted[:, None]).any(axis=1)
    return Accuracy(
        count=int(read.sum()),
        right=int(right.sum()),
        right5=int(among.sum()) if classes > 5 else None,
        lost=int((before & ~right).sum()),
        gained=int((right & ~before).sum()),
        same=int((mine[:, 0] == floats[:, 0]).sum()),
    )


def accuracy_share(right: int, of: int) -> float:
    return right / of if of else math.nan


def accuracy_interval(right: int, of: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share, from 0 to 1."""
    if of == 0:
        return 0.0, 1.0
    p, z2 = right / of, Z * Z
    middle = (p + z2 / (2 * of)) / (1 + z2 / of)
    half = Z / (1 + z2 / of) * math.sqrt(p * (1 - p) / of + z2 / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def accuracy_drop(counts: Accuracy) -> float:
    """Return the points of top-1 that were lost against float32; negative when some were gained."""
    return 100 * (counts.lost - counts.gained) / counts.count if counts.count else math.nan


def accuracy_drop_interval(counts: Accuracy) -> tuple[float, float]:
    """Return the 95 % interval of the drop in points: Newcombe's for paired shares."""
    n, lost, gained = counts.count, counts.lost, counts.gained
    if n == 0:
        return -100.0, 100.0
    before, after = counts.right + lost - gained, counts.right
    both = after - gained
    neither = n - both - lost - gained
    first, second = before / n, after / n
    low1, high1 = accuracy_interval(before, n)
    low2, high2 = accuracy_interval(after, n)
    phi = _accuracy_phi(both, lost, gained, neither)
    difference = first - second
    down = _accuracy_root(
        (first - low1) ** 2 - 2 * phi * (first - low1) * (high2 - second) + (high2 - second) ** 2
    )
    up = _accuracy_root(
        (high1 - first) ** 2 - 2 * phi * (high1 - first) * (second - low2) + (second - low2) ** 2
    )
    return 100 * max(-1.0, difference - down), 100 * min(1.0, difference + up)


def _accuracy_phi(both: int, lost: int, gained: int, neither: int) -> float:
    """Return the correlation of the two predictions, its numerator with Newcombe's continuity correction."""
    product = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    if product == 0:
        return 0.0
    numerator = both * neither - lost * gained
    if numerator > 0:
        numerator = max(numerator - (both + lost + gained + neither) / 2, 0)  # type: ignore[assignment]
    return numerator / math.sqrt(product)


def _accuracy_root(value: float) -> float:
    return math.sqrt(max(value, 0.0))


def needed_for_accuracy(max_drop: float) -> int:
    """Return how many samples make one of them no more than the allowed drop; 1 when nothing may be lost."""
    return math.ceil(100 / max_drop) if max_drop > 0 else 1


def check_enough_for_accuracy(samples: int, max_drop: float) -> None:
    """Refuse to judge a drop that one sample more or less decides.

    Raises:
        CalibrationError: One sample is more than `max_drop` points.
    """
    if samples < needed_for_accuracy(max_drop):
        raise CalibrationError(
            f"--eval has {samples} labelled sample(s): one of them is {100 / max(samples, 1):.3g} points of "
            f"top-1, more than the {max_drop:g} that may be lost.",
            f"Give {needed_for_accuracy(max_drop)} or more, or a larger --max-drop.",
            code="EM-FEW-SAMPLES",
        )
