"""Judges integer outputs that are rounded quantities: pictures of bytes, positions in whole pixels.

Rounding decides the last level of such a value, so float32 may be off by one level where it does, and what is
narrower is judged as the quantity that it is, in decibels. `exporter.capture.rounded_outputs` tells them from
class numbers, indices, masks and counts, which are compared by equality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from exporter.records import Array, Limits
from exporter.verify.reference_io import Lowering, ReferenceIO, Stacks
from exporter.verify.simulation_io import Simulation

FEWEST_LEVELS = 16
"""What has fewer levels is a class that was rounded to, and no quantity."""
UNSEEN_SHARE = 0.5
"""As many further values as this share of those that a few trials turned may turn for an artifact, too."""


def are_rounded_quantities(references: ReferenceIO) -> tuple[bool, ...]:
    """Tell for each output whether it is a rounded quantity: the graph says so, and it has many levels."""
    rounded = references.rounded or (False,) * len(references.reference)
    return tuple(
        is_rounded and y.dtype.kind in "iu" and _levels_of_rounded_quantity(y) >= FEWEST_LEVELS
        for is_rounded, y in zip(rounded, references.reference, strict=True)
    )


def level_of_rounded_quantity(reference: Array) -> float:
    """Return the distance between two levels: 1, or more where the integers were multiplied."""
    values = np.unique(reference).astype(object) if reference.dtype == np.uint64 else np.unique(reference)
    steps = np.diff(values.astype(np.int64))
    return float(np.gcd.reduce(steps)) if steps.size else 1.0


def _levels_of_rounded_quantity(reference: Array) -> float:
    if not reference.size:
        return 0.0
    spread = float(reference.max()) - float(reference.min())
    return spread / level_of_rounded_quantity(reference) + 1


def rounded_quantity_fault(reference: Array, actual: Array, unstable: Array, limits: Limits) -> str:
    """Return how a float32 artifact's rounded quantity is wrong; an empty string where rounding explains it.

    Args:
        reference: The model's integers.
        actual: The artifact's.
        unstable: Which values other roundings of the model change.
        limits: What float32 may be off by before it is rounded.

    Returns:
        The predicate of a sentence.
    """
    level, values = level_of_rounded_quantity(reference), reference.astype(np.float64)
    off = np.abs(actual.astype(np.float64) - values)
    inexact = limits.fp32_max_error * float(np.abs(values).max(initial=0.0))
    if float(off.max(initial=0.0)) > level + inexact:
        return f"differs by up to {off.max() / level:.0f} levels, where rounding explains one"
    turned = int(((off > 0) & ~unstable).sum())
    if turned > 1 + UNSEEN_SHARE * int(unstable.sum()) + inexact / level * off.size:
        return f"differs by a level in {turned} of {off.size} values that rounding does not decide"
    return ""


def floats_of_rounded_quantities(stacks: Stacks, rounded: Sequence[bool]) -> Stacks:
    """Return the outputs with rounded quantities as floats; what is no integer stays."""
    if len(stacks) != len(rounded):
        return stacks
    return tuple(
        stack.astype(np.float64) if is_rounded and stack.dtype.kind in "iu" else stack
        for stack, is_rounded in zip(stacks, rounded, strict=True)
    )


def references_of_rounded_quantities(
    references: ReferenceIO, rounded: Sequence[bool], limits: Limits
) -> ReferenceIO:
    """Return the references with rounded quantities as floats, each value of which may be off by a level."""
    floors = tuple(
        np.asarray(level_of_rounded_quantity(y) / limits.fp32_floor_factor) if is_rounded else None
        for y, is_rounded in zip(references.reference, rounded, strict=True)
    )

    def errors(stacks: Stacks) -> Stacks:
        return tuple(
            stack if floor is None else np.full(y.shape[1:], floor, np.float32)
            for stack, floor, y in zip(stacks, floors, references.reference, strict=False)
        )

    return replace(
        references,
        reference=floats_of_rounded_quantities(references.reference, rounded),
        edge_reference=floats_of_rounded_quantities(references.edge_reference, rounded),
        eager_errors=errors(references.eager_errors),
        edge_unstable=errors(references.edge_unstable),
    )


def lowering_of_rounded_quantities(lowering: Lowering, rounded: Sequence[bool]) -> Lowering:
    """Return a quantised program's outputs with rounded quantities as floats."""
    return replace(
        lowering,
        outputs=floats_of_rounded_quantities(lowering.outputs, rounded),
        edges={name: floats_of_rounded_quantities(o, rounded) for name, o in lowering.edges.items()},
    )


def simulation_of_rounded_quantities(simulation: Simulation, rounded: Sequence[bool]) -> Simulation:
    """Return a simulation's outputs with rounded quantities as floats."""
    return replace(
        simulation,
        outputs=floats_of_rounded_quantities(simulation.outputs, rounded),
        edges={name: floats_of_rounded_quantities(o, rounded) for name, o in simulation.edges.items()},
    )
