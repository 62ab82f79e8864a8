"""The reference must prove something: equality with a broken or constant model means nothing."""

from __future__ import annotations

import numpy as np

from exporter.records import Array
from exporter.verify.channels import CONSTANT_SHARE
from exporter.verify.compare_outputs import compare_not_finite
from exporter.verify.observation import Observation

MIN_SCALE = 1e-6
"""Below this the largest output is noise: a trained network's outputs are not (random MobileNetV2: 1e-9)."""


def reference_gate(observation: Observation) -> str:
    """Fail a model whose own outputs prove nothing: NaN, constant throughout, or untrained.

    One output that moves with the input is enough: constants beside it are compared as constants, and what
    hardly moves is judged against its own small variation. An untrained network moves nowhere, or is noise.
    """
    evidence = observation.evidence
    if problem := compare_not_finite("The original model", evidence.reference):
        return problem
    pairs = list(zip(evidence.reference, evidence.edge_reference, strict=True))
    moving = [real for real, edge in pairs if _reference_gate_moves(real, edge)]
    if any(real.dtype.kind not in "fc" or _reference_gate_scale(real) >= MIN_SCALE for real in moving):
        return ""
    scale = max((_reference_gate_scale(real) for real in evidence.reference), default=0.0)
    if scale < MIN_SCALE:
        return (
            f"The original model's outputs are never larger than {scale:.1e}: "
            "it looks randomly initialised, and equality would mean nothing."
        )
    return (
        "The original model's output hardly depends on its input: on every input given it is the same "
        "but for rounding, and equality would mean nothing."
    )


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
