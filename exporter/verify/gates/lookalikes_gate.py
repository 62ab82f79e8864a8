"""A half-precision artifact must not be a file of a network that the model is easily mistaken for.

GELU's two forms differ by less than float16's rounding, so the size of the error cannot tell them apart. Its
direction can: the error of such a file holds the whole difference between the two networks, and rounding
holds a part of it by chance alone. What is measured is the projection of the artifact's difference from the
simulation on the difference between the networks: 0 for the model, 1 for the other network.

What rounds in other places than the simulation (sums in half precision, batch norms folded before weights are
rounded) has an error of its own that is the same for every sample, and is not judged.
"""

from __future__ import annotations

import math

import numpy as np

from exporter.records import Array
from exporter.verify.gates.simulated import may_sum_in_half
from exporter.verify.observation import Observation

HALFWAY = 0.5
"""Projections beyond this are nearer to the other network."""
SURE = 5.0
"""Times its standard error that a projection must be."""
FEWEST_SAMPLES = 8
"""The standard error of fewer samples is too uncertain to fail anything."""


def lookalikes_gate(observation: Observation) -> str:
    """Fail an output that is nearer to another network's than to the model's."""
    simulation = observation.simulation
    if simulation is None or may_sum_in_half(observation):
        return ""
    for what, differences in simulation.lookalikes.items():
        arrays = zip(simulation.outputs, observation.outputs, differences, strict=False)
        for index, (s, a, d) in enumerate(arrays):
            if not _is_comparable_in_lookalikes_gate(s, a, d):
                continue
            share, error = lookalikes_gate_projection(a.astype(np.float64) - s, d.astype(np.float64))
            if abs(share) > max(HALFWAY, SURE * error):
                return (
                    f"Output {index} is that of a network with {what}: it has {share:.2f} of the difference "
                    f"between the two (standard error {error:.2f}), of which the model has none."
                )
    return ""


def _is_comparable_in_lookalikes_gate(*arrays: Array) -> bool:
    simulated = arrays[0]
    same = len({array.shape for array in arrays}) == 1 and len(simulated) >= FEWEST_SAMPLES
    return same and all(a.dtype.kind == "f" and np.isfinite(a).all() for a in arrays)


def lookalikes_gate_projection(error: Array, difference: Array) -> tuple[float, float]:
    """Project an artifact's error on the difference between two networks.

    Args:
        error: The artifact's outputs less the simulation's, [N, *shape].
        difference: The other network's outputs less the model's.

    Returns:
        The share of the difference that the error has, and its standard error. The samples are independent of
        each other, the values of one are not: a hidden value's rounding is in all of them.
    """
    products, energies = (
        np.array([float((row * other).sum()) for row, other in zip(rows, difference, strict=True)])
        for rows in (error, difference)
    )
    energy = float(energies.sum())
    if not energy:
        return 0.0, math.inf
    share = float(products.sum()) / energy
    residual = products - share * energies
    return share, math.sqrt(float((residual**2).sum()) * len(products) / (len(products) - 1)) / energy
