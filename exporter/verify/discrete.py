"""Compares class numbers, indices, masks and counts by equality and by what they index, never in decibels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from exporter.records import Array
from exporter.verify.reference_io import Stacks

MAX_CLASSES = 1000
"""An output with more different values does not hold classes, but positions, counts or times."""
MIN_VALUES = 10
"""A class must occur this often in the reference for its loss to be significant."""
MIN_KEPT = 0.5
"""At least this share of a class's values must keep it."""


@dataclass(frozen=True, eq=False)
class DiscreteOutput:
    """One output that is not a float, compared value by value."""

    output: int
    values: int
    """Values that rounding does not decide."""
    unstable: int
    """Values that rounding decides: they are not compared."""
    different: int
    """Compared values that are neither equal nor point at something equal."""
    first: str
    """Where the first of them is, in words."""
    lost: str
    """The class that is kept worst, in words, when it is as good as lost; else empty."""
    shares: Array
    """[N] the share of compared values that are right in each sample; 1 where none is compared."""

    @property
    def share(self) -> float:
        """The share of compared values that are right."""
        return 1 - self.different / self.values if self.values else 1.0


def is_discrete(array: Array) -> bool:
    return array.dtype.kind not in "fc"


def are_all_discrete(outputs: Stacks) -> bool:
    """Tell whether a model has no output of floats: nothing of it has a signal-to-noise ratio."""
    return all(is_discrete(output) for output in outputs)


def compare_discrete(
    reference: Stacks, actual: Stacks, unstable: Stacks = (), tolerances: tuple[float, ...] = ()
) -> tuple[DiscreteOutput, ...]:
    """Compare every output that is neither float nor complex.

    Args:
        reference: Per output [N, *shape].
        actual: The artifact's outputs.
        unstable: Per output, which values rounding decides; empty where that is not known.
        tolerances: Per output, how far apart floats may be and still be equal.
    """
    return tuple(
        _compare_discrete(index, reference, actual, unstable, tolerances)
        for index, y in enumerate(reference)
        if is_discrete(y)
    )


def _compare_discrete(
    index: int, reference: Stacks, actual: Stacks, unstable: Stacks, tolerances: tuple[float, ...]
) -> DiscreteOutput:
    y, a = reference[index], actual[index]
    shaky = unstable[index] if unstable else np.zeros(y.shape, bool)
    wrong = (y != a) & ~shaky
    for scores, axis in _discrete_indices(y, reference):
        tolerance = tolerances[scores] if tolerances else 0.0
        wrong &= ~_discrete_points_at_equals(y, a, reference[scores], axis, tolerance)
    return DiscreteOutput(
        output=index,
        values=int(y.size - shaky.sum()),
        unstable=int(shaky.sum()),
        different=int(wrong.sum()),
        first=_first_discrete(wrong, y, a),
        lost=_lost_discrete_class(y, wrong, ~shaky),
        shares=1 - _discrete_by_sample(wrong) / np.maximum(_discrete_by_sample(~shaky), 1),
    )


def _discrete_by_sample(where: Array) -> Array:
    counts: Array = where.reshape(len(where), -1).sum(axis=1)
    return counts


def _discrete_indices(y: Array, reference: Stacks) -> Iterator[tuple[int, int]]:
    """Yield (output, axis) of floats that an output's values index: it holds their argmax, top-k or order."""
    if y.dtype.kind == "b" or not y.size:
        return
    for index, scores in enumerate(reference):
        if scores.dtype.kind == "f":
            for axis in range(1, scores.ndim):
                if _is_discrete_index_of(y, scores, axis):
                    yield index, axis


def _is_discrete_index_of(y: Array, scores: Array, axis: int) -> bool:
    indices = _along_discrete(y, scores, axis)
    if indices is None or indices.min() < 0 or indices.max() >= scores.shape[axis]:
        return False
    picked = np.take_along_axis(scores, indices, axis)
    steps, first = np.diff(picked, axis=axis), picked.take([0], axis)
    largest = bool((steps <= 0).all() and (first == scores.max(axis, keepdims=True)).all())
    return largest or bool((steps >= 0).all() and (first == scores.min(axis, keepdims=True)).all())


def _along_discrete(y: Array, scores: Array, axis: int) -> Array | None:
    """Return the indices with the scores' axes; None where the shapes do not fit."""
    if y.ndim == scores.ndim - 1:
        y = np.expand_dims(y, axis)
    rest = [i for i in range(scores.ndim) if i != axis]
    if y.ndim != scores.ndim or any(y.shape[i] != scores.shape[i] for i in rest):
        return None
    indices: Array = y.astype(np.int64)
    return indices if y.shape[axis] <= scores.shape[axis] else None


def _discrete_points_at_equals(y: Array, a: Array, scores: Array, axis: int, tolerance: float) -> Array:
    """Return where another index points at a score that is equal but for rounding, and no index is twice."""
    mine, theirs = _along_discrete(a, scores, axis), _along_discrete(y, scores, axis)
    assert mine is not None
    assert theirs is not None
    valid = (mine >= 0) & (mine < scores.shape[axis])
    picked = np.take_along_axis(scores, np.where(valid, mine, 0), axis)
    equal = valid & (np.abs(picked - np.take_along_axis(scores, theirs, axis)) <= tolerance)
    twice = (np.diff(np.sort(mine, axis=axis), axis=axis) == 0).any(axis, keepdims=True)
    unique: Array = (equal & ~twice).reshape(y.shape)
    return unique


def _first_discrete(wrong: Array, y: Array, a: Array) -> str:
    if not wrong.any():
        return ""
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"input {place[0]}: {a[place]} instead of {y[place]}"


def _lost_discrete_class(y: Array, wrong: Array, compared: Array) -> str:
    classes, counts = np.unique(y[compared], return_counts=True)
    if len(classes) > MAX_CLASSES:
        return ""
    worst, kept_share = "", MIN_KEPT
    for value, count in zip(classes, counts, strict=True):
        if count < MIN_VALUES:
            continue
        intact = int(((y == value) & compared & ~wrong).sum())
        if intact < kept_share * count:
            worst, kept_share = f"{value} is kept in {intact} of {count} values", intact / count
    return worst
