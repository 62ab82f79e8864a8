"""Inputs at the ends of what a model can meet, and a little beyond: each is judged on its own, by its name.

float32 must be right to its limit. float16 may be coarse there, down to 20 dB or the noise of real inputs. A
quantised artifact clips what its ranges do not cover, so it must do what its quantised program does. Where
rounding alone decides the outputs, every precision must give finite numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from exporter.records import Array, Limits
from exporter.verify.discrete import compare_discrete, is_discrete
from exporter.verify.gates.lowering_gate import INDEPENDENT, lowering_gate_rounds_in_integers
from exporter.verify.observation import Observation
from exporter.verify.reference_io import ReferenceIO, Stacks
from exporter.verify.rounded_quantities import rounded_quantity_fault

HALF_MIN_DB = 20.0
"""float16 has no range to be calibrated: far from the real inputs it loses some bits to large values only."""
SINGLE_DB = 10.0
"""A quantised artifact may be so much further from its program than on average: an edge is a single input,
and off the calibrated range more values are on a rounding tie."""
NOISE_FACTOR = 4.0
"""An error's energy on a single input, against what the limit allows on average over the real ones."""


def edges_gate_limits(references: ReferenceIO, limits: Limits) -> dict[str, float]:
    """Return float32's largest error on each edge input, by name: the fixed one, or ten times eager's own.

    Where rounding alone decides the outputs, there is none.
    """
    floors = references.edge_floors or (references.edge_floor,) * len(references.edge_names)
    return {
        name: max(limits.fp32_max_error, limits.fp32_floor_factor * max(floor, references.floor))
        for name, floor in zip(references.edge_names, floors, strict=True)
        if not math.isinf(floor)
    }


def edges_gate_unstable_rows(references: ReferenceIO, index: int) -> Stacks:
    """Return which values of one edge input rounding decides.

    The errors of floats are those of all edge inputs together: they have no row, a number's not even an axis.
    """
    return tuple(
        stack[index : index + 1] if is_discrete(y) else stack
        for y, stack in zip(references.edge_reference, references.edge_unstable, strict=False)
    )


def edges_gate(observation: Observation) -> str:
    """Fail an edge input on which the outputs are wrong: each is judged on its own and named."""
    reasons = (_edges_gate_reason(observation, index, name) for index, name in enumerate(observation.edges))
    return next((reason for reason in reasons if reason), "")


def _edges_gate_reason(observation: Observation, index: int, name: str) -> str:
    comparison = observation.edges[name]
    if comparison.problem:
        broken = not all(_edges_gate_finite(y[index]) for y in observation.references.edge_reference)
        return "" if broken else f"On the edge input '{name}': {comparison.problem}"
    if name in observation.references.undecided_edges:
        return ""
    if observation.precision == "fp32":
        return _edges_gate_fp32_reason(
            name, comparison.max_error, observation.edge_limits[name]
        ) or _edges_gate_choice_reason(observation, index, name)
    return _edges_gate_lossy_reason(observation, index, name)


def _edges_gate_fp32_reason(name: str, error: float, limit: float) -> str:
    if error <= limit:
        return ""
    return (
        f"On the edge input '{name}' its largest error is {error:.1e} of the output's scale; "
        f"the limit is {limit:.1e}."
    )


def _edges_gate_choice_reason(observation: Observation, index: int, name: str) -> str:
    """Return a reason when a class number, mask or index differs that rounding does not decide."""
    references = observation.references
    reference, outputs = (
        tuple(stack[index : index + 1] for stack in stacks)
        for stacks in (references.edge_reference, observation.edge_ordered)
    )
    unstable = edges_gate_unstable_rows(references, index)
    for choices in compare_discrete(reference, outputs, unstable, observation.tied_within):
        output = observation.output_name(choices.output)
        if observation.is_rounded(choices.output):
            y, a = reference[choices.output], outputs[choices.output]
            shaky = unstable[choices.output] if unstable else np.zeros(y.shape, bool)
            if fault := rounded_quantity_fault(y, a, shaky, observation.given_limits):
                return f"On the edge input '{name}' its {output} {fault}."
        elif choices.different:
            return (
                f"On the edge input '{name}' its {output} differs in {choices.different} of "
                f"{choices.values} values."
            )
    return ""


def _edges_gate_lossy_reason(observation: Observation, index: int, name: str) -> str:
    """Compare float16 with the model, and a quantised artifact with its program, which clips as it must."""
    references, program = observation.references, observation.lowering
    if observation.precision == "fp16":
        expected: Sequence[Array] = [y[index] for y in references.edge_reference]
        outputs = observation.edge_ordered
        real, least, usual = references.reference, HALF_MIN_DB, observation.limits["min_sqnr_db"]
    elif program and name in program.edges:
        usual, outputs = observation.limits["lowering_min_sqnr_db"], observation.edge_outputs
        expected, real, least = program.edges[name], program.outputs, usual - SINGLE_DB
    else:
        return ""
    share = NOISE_FACTOR * 10 ** (-usual / 10)
    otherwise = lowering_gate_rounds_in_integers(observation.variant)
    for position, (whole, edge, stack) in enumerate(zip(real, expected, outputs, strict=True)):
        if is_discrete(edge):
            continue
        signal, noise = _edges_gate_energy(edge), _edges_gate_energy(stack[index] - edge)
        # On a flat input every place is rounded alike, and nothing averages out.
        own = _edges_gate_energy(edge - references.edge_reference[position][index]) if otherwise else 0.0
        if noise > max(signal * 10 ** (-least / 10), share * _edges_gate_energy(whole), INDEPENDENT * own):
            decibels = 10 * math.log10(signal / noise) if signal else -math.inf
            whose = "the model" if observation.precision == "fp16" else "its own quantised program"
            return (
                f"On the edge input '{name}' its {observation.output_name(position)} reaches "
                f"{decibels:.1f} dB SQNR with {whose}; the limit is {least:.1f} dB."
            )
    return ""


def _edges_gate_energy(array: Array) -> float:
    if not array.size:
        return 0.0
    return float((np.abs(array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)) ** 2).mean())


def _edges_gate_finite(array: Array) -> bool:
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())
