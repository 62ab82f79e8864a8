"""Compares the infinite values of outputs by equality, so that the finite ones beside them can be measured.

A network that masks scores gives -Inf on purpose, and a right artifact gives the same. An infinite value has
no error in decibels: where an artifact has the model's, both are replaced by one finite value.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from exporter.records import Array
from exporter.verify.reference_io import Lowering, ReferenceIO, Stacks, named_reference_io_output
from exporter.verify.simulation_io import Simulation

NAMES = {1.0: "Inf", -1.0: "-Inf"}


def references_without_infinite(references: ReferenceIO) -> ReferenceIO:
    """Return the references with the model's infinite values replaced."""
    return replace(
        references,
        reference=without_infinite(references.reference, references.reference),
        edge_reference=without_infinite(references.edge_reference, references.edge_reference),
    )


def lowering_without_infinite(references: ReferenceIO, lowering: Lowering) -> Lowering:
    """Return a quantised program's outputs, with the model's infinite values replaced."""
    edges = {
        name: _edge_without_infinite(references, name, outputs) for name, outputs in lowering.edges.items()
    }
    return replace(lowering, outputs=without_infinite(references.reference, lowering.outputs), edges=edges)


def simulation_without_infinite(references: ReferenceIO, simulation: Simulation) -> Simulation:
    """Return a simulation's outputs, with the model's infinite values replaced."""
    edges = {
        name: tuple(y[None] for y in _edge_without_infinite(references, name, tuple(y[0] for y in outputs)))
        for name, outputs in simulation.edges.items()
    }
    return replace(
        simulation, outputs=without_infinite(references.reference, simulation.outputs), edges=edges
    )


def _edge_without_infinite(references: ReferenceIO, name: str, outputs: Stacks) -> Stacks:
    """Replace infinite values on one edge input, by the same finite ones as in the stack of all of them."""
    reference = references.edge_reference
    if name not in references.edge_names or [y.shape[1:] for y in reference] != [a.shape for a in outputs]:
        return outputs
    index = references.edge_names.index(name)
    stacks = tuple(y.astype(a.dtype) for y, a in zip(reference, outputs, strict=True))
    for stack, output in zip(stacks, outputs, strict=True):
        stack[index] = output
    return tuple(stack[index] for stack in without_infinite(reference, stacks))


def without_infinite(reference: Stacks, actual: Stacks) -> Stacks:
    """Replace the infinite values that equal the reference's: -Inf by its smallest finite value of an output.

    Others stay, and fail as such. So do outputs of another shape or number than the reference's.
    """
    if [y.shape for y in reference] != [a.shape for a in actual]:
        return actual
    return tuple(_without_infinite(y, a) for y, a in zip(reference, actual, strict=True))


def _without_infinite(reference: Array, actual: Array) -> Array:
    if not _may_be_infinite(reference, actual):
        return actual
    infinite = np.isinf(reference)
    same = infinite & (reference == actual)
    if not same.any():
        return actual
    finite = reference[np.isfinite(reference)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    replaced: Array = np.where(same, np.where(reference < 0, low, high), actual).astype(actual.dtype)
    return replaced


def _may_be_infinite(reference: Array, actual: Array) -> bool:
    return reference.dtype.kind == actual.dtype.kind == "f" and bool(np.isinf(reference).any())


def different_infinite(references: ReferenceIO, outputs: Stacks, edge_outputs: Stacks) -> str:
    """Return where an artifact lacks an infinite value of the model; an empty string when it has them all."""
    for reference, actual, where in (
        (references.reference, outputs, ""),
        (references.edge_reference, edge_outputs, " on the edge inputs"),
    ):
        if [y.shape for y in reference] != [a.shape for a in actual]:
            continue
        for index, (y, a) in enumerate(zip(reference, actual, strict=True)):
            if not _may_be_infinite(y, a):
                continue
            lacking = np.isinf(y) & (y != a)
            if lacking.any():
                first = np.argwhere(lacking)[0]
                value, given = y[tuple(first)], a[tuple(first)]
                return (
                    f"Its {_infinite_name(references, index)} lacks "
                    f"{int(lacking.sum())} of the model's infinite values"
                    f"{where}: it has {given:g} for {NAMES[float(np.sign(value))]}."
                )
    return ""


def _infinite_name(references: ReferenceIO, index: int) -> str:
    names = references.output_names
    return named_reference_io_output(names[index] if index < len(names) else str(index))
