"""The artifact's outputs must have the model's number, shapes and types, and hold numbers."""

from __future__ import annotations

from exporter.verify.observation import Observation


def comparable_gate(observation: Observation) -> str:
    """Fail outputs of another number, shape or type than the model's, NaN, Inf."""
    return observation.comparison.problem
