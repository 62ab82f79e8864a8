"""A quantised artifact must compute what its quantised program computes, as a whole and in every channel."""

from __future__ import annotations

import math

from exporter.records import Limits, Variant
from exporter.verify.compare_outputs import compare_sqnr_db
from exporter.verify.discrete import are_all_discrete
from exporter.verify.observation import Observation
from exporter.verify.program_channels import ROUNDING_MARGIN_DB, program_channel_fault
from exporter.verify.reference_io import Lowering, ReferenceIO

ROUNDS_IN_INTEGERS = frozenset({"htp"})
"""Backends, without their generation, that round every activation in integers of their own.

The program rounds in float32. Where the NPU's result falls on the other side of a step, the layers after it
amplify that as they do the program's own rounding. So the errors of the two are of one size and, at worst,
independent."""
INDEPENDENT = 2.0
"""Energy of the difference of two independent errors, as a multiple of one's."""


LOWERING_FAULT = "a fault of the lowering, not of the quantisation."


def lowering_gate_limit(
    lowering: Lowering, limits: Limits, variant: Variant, references: ReferenceIO
) -> float:
    """Return the fixed limit, or the program's own rounding noise less a margin where that is louder.

    However many ties a deep network amplifies, they can at most draw all of its rounding anew: two
    independent roundings of the model are `INDEPENDENT` times as far from each other as one is from the
    model, and no artifact may be further. A backend that rounds otherwise may always be as far.
    `benchmarks/npu.py` measures how far it is.
    """
    pairs = zip(references.reference, lowering.outputs, strict=True)
    own = [compare_sqnr_db(y, program) for y, program in pairs if y.dtype.kind == "f"]
    independent = min(own, default=math.inf) - 10 * math.log10(INDEPENDENT)
    ties = lowering.rounding_floor_db - ROUNDING_MARGIN_DB
    if lowering_gate_rounds_in_integers(variant):
        return min(limits.lowering_min_sqnr_db, ties, independent)
    return min(limits.lowering_min_sqnr_db, max(ties, independent) if own else ties)


def lowering_gate_rounds_in_integers(variant: Variant) -> bool:
    """Tell whether a variant's backend rounds every activation in integers of its own."""
    return variant.backend.partition("-")[0] in ROUNDS_IN_INTEGERS


def lowering_gate(observation: Observation) -> str:
    """Fail a quantised artifact that differs from its own quantised program, or a channel of which does.

    Of a backend that rounds in integers of its own, the whole is judged alone.
    """
    comparison = observation.against_program
    if comparison is None:
        return ""
    # A program turns ties in its own way and does not say what was equal: the model's outputs decide.
    if not comparison.problem and are_all_discrete(observation.references.reference):
        return ""
    if comparison.problem:
        return comparison.problem
    otherwise = lowering_gate_rounds_in_integers(observation.variant)
    channel = "" if otherwise else program_channel_fault(observation)
    expected = observation.limits["lowering_min_sqnr_db"]
    if comparison.sqnr_db >= expected:
        return f"Its {channel}: {LOWERING_FAULT}" if channel else ""
    worst = observation.worst_channel
    channel = worst.fault if worst and worst.fault else f"Its {channel}." if channel else ""
    return (
        f"It differs from its own quantised program ({comparison.sqnr_db:.1f} dB, expected {expected:.1f}): "
        f"{LOWERING_FAULT} {channel}"
    ).rstrip()
