"""Resolves the limits that an artifact is held to: as a whole, in its channels, between equal scores."""

from __future__ import annotations

import math

import numpy as np

from exporter.records import Array, Comparison, Limits, Precision, Variant
from exporter.verify.discrete import is_discrete
from exporter.verify.gates import edges_gate, lowering_gate, whole_output
from exporter.verify.reference_io import Lowering, ReferenceIO
from exporter.verify.tolerance import Tolerance

HALF_STEP = 2.0**-10
"""float16's step, as a share of the largest value."""


def limits_to_judge_by(
    variant: Variant, limits: Limits, references: ReferenceIO, program: Lowering | None
) -> dict[str, float]:
    """Resolve the limits that hold for an artifact to figures."""
    own: dict[str, float] = {}
    if program:
        own["lowering_min_sqnr_db"] = lowering_gate.lowering_gate_limit(program, limits, variant, references)
    precision = variant.precision
    if precision == "fp32":
        on_edges = edges_gate.edges_gate_limits(references, limits).values()
        edge = {"edge_max_error": max(on_edges)} if on_edges else {}
        return own | _fp32_limit_to_judge_by("max_error", limits, references.floor) | edge
    if precision == "fp16":
        return own | {"min_sqnr_db": limits.fp16_min_sqnr_db, "min_agreement": limits.fp16_min_agreement}
    return own | {"min_sqnr_db": limits.int8_min_sqnr_db, "min_agreement": limits.int8_min_agreement}


def _fp32_limit_to_judge_by(name: str, limits: Limits, floor: float) -> dict[str, float]:
    """Return the fixed limit, or ten times eager float32's own error where that is larger; both are shown."""
    measured = limits.fp32_floor_factor * floor
    return {name: max(limits.fp32_max_error, measured), f"{name}_from_eager_floor": measured}


def tolerance_to_judge_by(
    precision: Precision, comparison: Comparison, limits: Limits, typical_sqnr_db: float
) -> Tolerance:
    """Return what a precision may cost a channel.

    The limits for the whole hold for its channels; float32 may be ten times as far off, as errors are shared
    out unevenly. An artifact that passes by its agreement, or that the scenes are too few to fail, is held to
    its median channel's figure. A constant must be as exact as the precision stores numbers.
    """
    if precision == "fp32":
        sqnr_db = -20 * math.log10(10 * limits.fp32_max_error)
        return Tolerance(sqnr_db, limits.fp32_floor_factor, limits.fp32_max_error)
    half = precision == "fp16"
    limit_db = limits.fp16_min_sqnr_db if half else limits.int8_min_sqnr_db
    agrees = comparison.agreement is not None and comparison.agreement >= limits.int8_min_agreement
    lower = (agrees and not half) or _judge_undecided(comparison, limit_db, limits.int8_min_agreement, half)
    sqnr_db = min(limit_db, typical_sqnr_db) if lower else limit_db
    if half:
        return Tolerance(sqnr_db, limits.fp32_floor_factor, 2.0**-10, 2.0**-11)
    return Tolerance(sqnr_db, limits.fp32_floor_factor, 1 / 7 if precision == "w4" else 2 / 127)


def _judge_undecided(comparison: Comparison, limit_db: float, min_agreement: float, half: bool) -> bool:
    """Tell whether an artifact misses its SQNR, but the scenes are too few to fail it as a whole."""
    if comparison.sqnr_db >= limit_db:
        return False
    agreement = comparison.agreement
    may_agree = (
        not half
        and agreement is not None
        and whole_output.side_of_whole_output_figure(comparison.agreement_bounds, agreement, min_agreement)
        != "missed"
    )
    return (
        may_agree
        or whole_output.side_of_whole_output_figure(comparison.sqnr_bounds_db, comparison.sqnr_db, limit_db)
        != "missed"
    )


def tie_widths_to_judge_by(
    references: ReferenceIO, limits: Limits, precision: Precision
) -> tuple[float, ...]:
    """Return for each output how far apart its values may be and still be equal but for rounding.

    In float16 two values that are next to each other may change places.
    """
    errors = references.eager_errors or tuple(
        np.asarray(references.floor * np.abs(y).max(initial=0.0)) for y in references.reference
    )
    apart = HALF_STEP if precision == "fp16" else 0.0
    return tuple(
        max(
            limits.fp32_floor_factor * float(np.max(error, initial=0.0)),
            apart * _largest_magnitude_to_judge(y),
        )
        for error, y in zip(errors, references.reference, strict=True)
    )


def _largest_magnitude_to_judge(output: Array) -> float:
    return 0.0 if is_discrete(output) else float(np.abs(output).max(initial=0.0))
