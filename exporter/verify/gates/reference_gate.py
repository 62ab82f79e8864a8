"""The reference must prove something: equality with a broken or constant model means nothing."""

from __future__ import annotations

import numpy as np

from exporter.records import Array
from exporter.verify.channels import CONSTANT_SHARE
from exporter.verify.compare_outputs import compare_not_finite
from exporter.verify.observation import Observation
from exporter.verify.reference_io import ReferenceIO


def reference_gate(observation: Observation) -> str:
    """Fail a model whose own outputs prove nothing: NaN, constant throughout, or untrained.

    One output that moves with the input is enough: constants beside it are compared as constants, and what
    is small, or hardly moves, is judged against its own scale and variation. An untrained network moves
    nowhere, or its signal fades from layer to layer.
    """
    references = observation.references
    if problem := compare_not_finite("The original model", references.reference):
        return problem
    if references.untrained_norm:
        largest = _largest_in_reference_gate(references)
        return (
            f"The original model's outputs are never larger than {largest:.1e}, "
            f"and what reaches its batch norm {references.untrained_norm!r} is a thousand times smaller than "
            "the statistics there: it looks randomly initialised, and equality would mean nothing."
        )
    pairs = zip(references.reference, references.edge_reference, strict=True)
    if any(_reference_gate_moves(real, edge) for real, edge in pairs):
        return ""
    return (
        "The original model's output hardly depends on its input: on every input given it is the same "
        "but for rounding, and equality would mean nothing."
    )


def _largest_in_reference_gate(references: ReferenceIO) -> float:
    return max((_reference_gate_scale(real) for real in references.reference), default=0.0)


def _reference_gate_moves(real: Array, edge: Array) -> bool:
    """Return whether an output differs between inputs by more than float32 can by rounding."""
    both = (
        np.concatenate([real, edge[[bool(np.isfinite(item).all()) for item in edge]]]) if len(edge) else real
    )
    if both.dtype.kind not in "fc":
        return bool((both != both[:1]).any())
    return float(np.abs(both - both[:1]).max(initial=0.0)) > CONSTANT_SHARE * _reference_gate_scale(both)


def _reference_gate_scale(array: Array) -> float:
    return float(np.abs(array).max(initial=0.0)) if array.dtype.kind in "fc" else 0.0
