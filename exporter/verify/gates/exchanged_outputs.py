"""Outputs of one shape must not stand in each other's place."""

from __future__ import annotations

import numpy as np

from exporter.records import Array
from exporter.verify.observation import Observation

RATIO = 4.0
"""How many times less error the outputs must have in other places. A right artifact has more error there.
Exchanged outputs have so much less once they differ by 1.8 times their own error."""
FEWEST = 16
"""Values of an output, over all samples, below which chance decides where it fits."""
MOST = 64
"""Outputs of one shape that are compared, in pairs; a network with more has them in one tensor."""


def exchanged_outputs_gate(observation: Observation) -> str:
    """Fail outputs that are much nearer to the model's in another order, and say which stands for which."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, y in enumerate(observation.references.reference):
        if y.dtype.kind == "f" and y.size >= FEWEST:
            by_shape.setdefault(y.shape, []).append(index)
    for indices in by_shape.values():
        moved = _exchanged_places(observation, indices[:MOST])
        if moved:
            pairs = [
                f"{observation.output_name(at)} is the model's {observation.output_name(of)}"
                for at, of in moved.items()
            ]
            return f"Its outputs are exchanged: {', '.join(pairs)}."
    return ""


def _exchanged_places(observation: Observation, indices: list[int]) -> dict[int, int]:
    """Return for each output in a wrong place whose values it holds."""
    from scipy.optimize import linear_sum_assignment

    if len(indices) < 2:
        return {}
    errors = np.array([[_exchanged_error(observation, at, of) for of in indices] for at in indices])
    rows, places = linear_sum_assignment(errors)
    moved = {int(at): int(of) for at, of in zip(rows, places, strict=True) if at != of}
    own = sum(errors[at, at] for at in moved)
    if not moved or own <= RATIO * sum(errors[at, of] for at, of in moved.items()):
        return {}
    return {indices[at]: indices[of] for at, of in moved.items()}


def _exchanged_error(observation: Observation, at: int, of: int) -> float:
    """Return the error's energy of one output of the artifact as one of the model's, as a share of it."""
    actual, expected = _exchanged_wide(observation.outputs[at]), observation.references.reference[of]
    energy = float((expected**2).sum())
    return float(((actual - expected) ** 2).sum()) / energy if energy else 0.0


def _exchanged_wide(output: Array) -> Array:
    wide: Array = output.astype(np.float64)
    return wide
