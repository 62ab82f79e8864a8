"""Computes how far an artifact's outputs are from the original model's. Pure: arrays in, figures out.

All errors are relative to the output's scale, so that a network whose outputs are about 1e-9 cannot pass by
being small. `judge.py` decides what the figures mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from exporter.records import Array, Bounds, Comparison
from exporter.verify import intervals
from exporter.verify.channel_groups import group_channels
from exporter.verify.discrete import compare_discrete, is_discrete
from exporter.verify.reference_io import Stacks

REPEAT_TOLERANCE = 1e-6
"""A second run in another order may differ by this share of the scale (thread scheduling), not more."""
UNIT_WIDTH = 16
"""Fewer numbers than these may have length one by chance."""
UNIT = 1e-3
"""How far from one a vector's length, or its sum, may be."""


def compare_max_error(reference: Array, actual: Array) -> float:
    """Return max|a - y| / max|y| over everything; 0 for equal arrays."""
    y, a = _wide_to_compare(reference), _wide_to_compare(actual)
    worst, scale = float(np.abs(a - y).max(initial=0.0)), float(np.abs(y).max(initial=0.0))
    return 0.0 if worst == 0 else worst / scale if scale else math.inf


def compare_sqnr_db(reference: Array, actual: Array) -> float:
    """Return 10 log10(sum |y|² / sum |a - y|²): signal-to-quantisation-noise ratio; inf for equal arrays."""
    y, a = _wide_to_compare(reference), _wide_to_compare(actual)
    noise, signal = float((np.abs(a - y) ** 2).sum()), float((np.abs(y) ** 2).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def compare_typical_sqnr_db(reference: Array, actual: Array) -> float:
    """Return the SQNR as it is with the median channel's noise in every channel of the third axis.

    A few channels that are wrong do not lower it, so that they cannot lower what they are judged by.
    """
    if reference.ndim < 3 or not reference.size:
        return compare_sqnr_db(reference, actual)
    y, a = _wide_to_compare(reference), _wide_to_compare(actual)
    rest = tuple(i for i in range(y.ndim) if i != 2)
    errors = np.sort((np.abs(a - y) ** 2).mean(axis=rest))
    noise, signal = float(errors[(len(errors) - 1) // 2]), float((np.abs(y) ** 2).mean())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def _wide_to_compare(array: Array) -> Array:
    wide: Array = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    return wide


def compare_agreement(reference: Array, actual: Array, tied: float = 0.0) -> Array | None:
    """Return each sample's share of right classes, [N]; None where the output has no classes.

    Classes that are equally large in the artifact share one sample's answer, so that no tie is won by luck.
    An axis whose channels are unlike each other (boxes and scores) holds no classes, nor does a vector of
    length one (an embedding): which of its numbers is the largest tells nothing.

    Args:
        reference: [N, batch, classes, ...] (samples stacked in front).
        actual: The same shape.
        tied: Reference scores that differ by this or less are equally right.
    """
    if reference.ndim < 3 or reference.shape[2] < 2 or reference.dtype.kind != "f" or not reference.size:
        return None
    if _compares_unlike_channels(reference) or compare_unit_vectors(reference):
        return None
    return np.array([_compare_agreement_share(y, a, tied) for y, a in zip(reference, actual, strict=True)])


def compare_unit_vectors(reference: Array) -> bool:
    """Return whether an output is of vectors that all have length one.

    Probabilities that are all 0 and 1 have length one, too, and a sum of one.
    """
    if reference.ndim != 3 or reference.shape[2] < UNIT_WIDTH or reference.dtype.kind != "f":
        return False
    y = reference.reshape(-1, reference.shape[2])
    if not np.isfinite(y).all() or (np.abs(np.linalg.norm(y, axis=1) - 1) >= UNIT).any():
        return False
    return bool((y < 0).any() or (np.abs(y.sum(axis=1) - 1) >= UNIT).any())


def _compares_unlike_channels(reference: Array) -> bool:
    """Return whether the third axis has several groups of channels; a few odd classes make no group."""
    rest = tuple(i for i in range(reference.ndim) if i != 2)
    low, high = reference.min(axis=rest), reference.max(axis=rest)
    groups = group_channels(low, high, len(reference), idle=np.ones(len(low), bool))
    return len(np.unique(groups)) > 1


def _compare_agreement_share(y: Array, a: Array, tied: float) -> float:
    right = y >= y.max(axis=1, keepdims=True) - tied
    answered = a >= a.max(axis=1, keepdims=True)
    return float(((right & answered).sum(axis=1) / answered.sum(axis=1)).mean())


def compare_outputs(
    reference: Stacks,
    actual: Stacks,
    unstable: Stacks = (),
    tolerances: tuple[float, ...] = (),
    scenes: Array | None = None,
) -> Comparison:
    """Compare stacked outputs; the worst output of the model counts for each figure.

    Outputs that are no floats count for the agreement only. Where there are no others, the largest error is
    the share of wrong values.

    Args:
        reference: Per output [N, *shape], usually float64.
        actual: Per output [N, *shape] from the artifact.
        unstable: See `ReferenceIO.eager_errors`; empty where it is not known.
        tolerances: Per output, how far apart floats may be and still be equal.
        scenes: [N] number of each sample's scene; None leaves out the bounds.
    """
    samples = len(reference[0])
    problem = (
        _compare_shapes(reference, actual)
        or compare_not_finite("The original model", reference)
        or compare_not_finite("The artifact", actual)
    )
    if problem:
        return Comparison(samples, math.inf, -math.inf, None, problem)
    choices = compare_discrete(reference, actual, unstable, tolerances)
    allowed = tolerances or (0.0,) * len(reference)
    triples = [t for t in zip(reference, actual, allowed, strict=True) if not is_discrete(t[0])]
    each = [(y, compare_agreement(y, a, tied)) for y, a, tied in triples]
    shares = [float(by_sample.mean()) for _, by_sample in each if by_sample is not None]
    wrong = max((1 - choice.share for choice in choices), default=0.0)
    comparison = Comparison(
        samples=samples,
        max_error=max((compare_max_error(y, a) for y, a, _ in triples), default=wrong),
        sqnr_db=min((compare_sqnr_db(y, a) for y, a, _ in triples), default=math.nan if wrong else math.inf),
        agreement=min([*shares, *(choice.share for choice in choices)], default=None),
    )
    if scenes is None:
        return comparison
    answers = [(by_sample, y[0].size // y.shape[2]) for y, by_sample in each if by_sample is not None]
    answers += [(choice.shares, reference[choice.output][0].size) for choice in choices]
    return replace(
        comparison,
        scenes=len(np.unique(scenes)),
        sqnr_bounds_db=_lowest_compared([_compare_sqnr_bounds(y, a, scenes) for y, a, _ in triples]),
        agreement_bounds=_lowest_compared(
            [intervals.agreement_interval(by_sample, number, scenes) for by_sample, number in answers]
        ),
    )


def _compare_sqnr_bounds(reference: Array, actual: Array, scenes: Array) -> Bounds:
    y, a = (_wide_to_compare(array).reshape(len(array), -1) for array in (reference, actual))
    return intervals.sqnr_db_interval((np.abs(y) ** 2).sum(axis=1), (np.abs(a - y) ** 2).sum(axis=1), scenes)


def _lowest_compared(bounds: Sequence[Bounds]) -> Bounds | None:
    """Return the lowest of all lower and of all upper bounds: the worst output counts."""
    return (min(low for low, _ in bounds), min(high for _, high in bounds)) if bounds else None


def _compare_shapes(reference: Stacks, actual: Stacks) -> str:
    if len(reference) != len(actual):
        return f"It has {len(actual)} outputs, the model has {len(reference)}."
    for index, (y, a) in enumerate(zip(reference, actual, strict=True)):
        if y.shape != a.shape:
            return f"Output {index} has shape {list(a.shape[1:])}, the model's has {list(y.shape[1:])}."
        if _compared_kind(y) != _compared_kind(a):
            return f"Output {index} is {a.dtype}, the model's is {y.dtype}."
    return ""


def _compared_kind(array: Array) -> str:
    return "i" if array.dtype.kind == "u" else array.dtype.kind


def compare_not_finite(whose: str, outputs: Stacks) -> str:
    """Return a sentence when an output has NaN or Inf, else an empty string."""
    for index, array in enumerate(outputs):
        bad = int(array.size - np.isfinite(array).sum()) if array.dtype.kind in "fc" else 0
        if bad:
            return f"{whose} gives NaN or Inf: {bad} of {array.size} values of output {index}."
    return ""


def compare_repeats(first: Stacks, again: Stacks) -> str:
    """Return a sentence when the same inputs in another order gave other outputs, else an empty string."""
    worst = max((compare_max_error(f, a) for f, a in zip(first, again, strict=True)), default=0.0)
    if worst <= REPEAT_TOLERANCE:
        return ""
    return f"The same inputs in another order gave other outputs (by {worst:.1e} of their scale)."
