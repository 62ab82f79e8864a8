"""The artifact's outputs must have the model's number, shapes and types, and hold numbers."""

from __future__ import annotations

from exporter.verify.observation import Observation


def check(observation: Observation) -> str:
    """Fail outputs that cannot be compared at all: other shapes or types, NaN, Inf."""
    return observation.comparison.problem
