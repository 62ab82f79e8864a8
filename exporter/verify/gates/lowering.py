"""A quantised artifact must compute what its quantised program computes."""

from __future__ import annotations

from exporter.records import Limits
from exporter.verify.discrete_outputs import are_all_discrete
from exporter.verify.observation import Observation
from exporter.verify.reference_io import Lowering

ROUNDING_MARGIN_DB = 3.0
"""How much further than its program's own rounding noise an artifact may be: half the energy again."""


def lowering_gate_limit(lowering: Lowering, limits: Limits) -> float:
    """Return the fixed limit, or the program's own rounding noise less a margin where that is louder."""
    return min(limits.lowering_min_sqnr_db, lowering.rounding_floor_db - ROUNDING_MARGIN_DB)


def lowering_gate(observation: Observation) -> str:
    """Fail a quantised artifact that differs from its own quantised program."""
    comparison = observation.against_program
    if comparison is None:
        return ""
    # A program turns ties in its own way and does not say what was equal: the model's outputs decide.
    if not comparison.problem and are_all_discrete(observation.evidence.reference):
        return ""
    if comparison.problem:
        return comparison.problem
    expected = observation.limits["lowering_min_sqnr_db"]
    if comparison.sqnr_db >= expected:
        return ""
    worst = observation.worst_channel
    return (
        f"It differs from its own quantised program ({comparison.sqnr_db:.1f} dB, expected {expected:.1f}):"
        f" a fault of the lowering, not of the quantisation. {worst.fault if worst else ''}"
    ).rstrip()
