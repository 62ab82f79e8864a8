"""Inputs at the edge of what a model accepts: zeros, saturated, tiny. Each is judged on its own scale."""

from __future__ import annotations

import numpy as np

from exporter.verify.observation import Observation


def check(observation: Observation) -> str:
    """Fail the first edge input whose outputs are wrong, by its name."""
    reasons = (_reason(observation, index, name) for index, name in enumerate(observation.edges))
    return next((reason for reason in reasons if reason), "")


def _reason(observation: Observation, index: int, name: str) -> str:
    comparison = observation.edges[name]
    if comparison.problem:
        broken = not all(_finite(y[index]) for y in observation.evidence.edge_reference)
        return "" if broken else f"On the edge input '{name}': {comparison.problem}"
    if observation.precision == "fp32" and comparison.max_error > observation.limits["edge_max_error"]:
        error = comparison.max_error
        return f"On the edge input '{name}' its largest error is {error:.1e} of the output's scale."
    return ""


def _finite(array: np.ndarray) -> bool:
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())
