"""Computes the floor of a reference: the error of eager float32, which no artifact's limit lies below."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from exporter.capture.sigmoids import ERROR as SIGMOID_ERROR
from exporter.records import Sample
from exporter.verify.compare_outputs import compare_max_error
from exporter.verify.infinite import without_infinite
from exporter.verify.reference_io import stack_reference_io

MAX_FLOOR = 1e-3
"""The largest error of eager float32 that an artifact's limit may be derived from.

A network whose float32 is further from its float64 than this is ill-conditioned, or jumps: its floor would
excuse nearly any artifact.
"""


def reference_floor(
    expected: Sequence[Sample], actual: Sequence[Sample], sigmoids: Sequence[bool] = ()
) -> float:
    """Return float32's largest error as a share of its output's scale.

    Args:
        expected: The outputs of the reference.
        actual: Those of eager float32.
        sigmoids: Per output, whether it holds what a sigmoid gives; empty where that is not known.
    """
    reference, single = stack_reference_io(expected), stack_reference_io(actual)
    stacks = zip(without_infinite(reference, reference), without_infinite(reference, single), strict=True)
    pairs = [(y, a) for y, a in stacks if y.dtype.kind in "fc"]
    if not all(np.isfinite(array).all() for pair in pairs for array in pair):
        return math.inf
    small = [
        min(SIGMOID_ERROR / float(np.abs(y).max(initial=SIGMOID_ERROR)), MAX_FLOOR)
        for y, sigmoid in zip(reference, sigmoids, strict=False)
        if sigmoid and y.dtype.kind == "f"
    ]
    return max((*(compare_max_error(y, a) for y, a in pairs), *small), default=0.0)


def bound_reference_floor(floor: float) -> float:
    """Return the floor, at most `MAX_FLOOR`. A reference with NaN has none; a gate refuses what it judges."""
    return min(floor, MAX_FLOOR) if math.isfinite(floor) else MAX_FLOOR


def note_on_reference_floor(floor: float) -> tuple[str, ...]:
    if floor <= MAX_FLOOR:
        return ()
    return (
        f"Eager float32 itself is {floor:.1e} of the output's scale away from float64: the network is "
        f"ill-conditioned, or jumps. Limits are derived from {MAX_FLOOR:g} at most.",
    )
