"""Decides how many calibration samples are enough, by int8 quality against their number. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.records import CurvePoint

NEAR_DB = 0.5
"""A smaller gain in SQNR is not worth more samples: another choice of them changes as much."""


def sweep_decision_counts(samples: int) -> tuple[int, ...]:
    """Return the counts to try: 1, 2, 4, … and all of them."""
    doubled = [2**power for power in range(samples.bit_length()) if 2**power < samples]
    return (*doubled, samples) if samples else ()


def enough_by_sweep_decision(points: Sequence[CurvePoint]) -> CurvePoint:
    """Return the fewest samples that come within `NEAR_DB` of the best number of them."""
    best = max(point.sqnr_db for point in points)
    return next(point for point in points if point.sqnr_db >= best - NEAR_DB)


def is_sweep_decision_rising(points: Sequence[CurvePoint]) -> bool:
    """Tell whether the last doubling still gained more than `NEAR_DB`, so that more samples may help."""
    return len(points) > 1 and points[-1].sqnr_db > max(p.sqnr_db for p in points[:-1]) + NEAR_DB


def sweep_decision_sentence(points: Sequence[CurvePoint]) -> str:
    """Describe the curve in a sentence."""
    fewest, best = enough_by_sweep_decision(points), max(points, key=lambda point: point.sqnr_db)
    beaten = "" if best is fewest else f", at most {best.sqnr_db:.1f} dB with {best.count}"
    reached = f"int8 reaches {fewest.sqnr_db:.1f} dB with them"
    return f"{fewest.count} calibration sample(s) are enough: {reached}{beaten}."


def sweep_decision_warning(points: Sequence[CurvePoint]) -> str:
    """Return a sentence when more samples would help, else an empty string."""
    if not is_sweep_decision_rising(points):
        return ""
    before, last = points[-2:]
    return (
        f"int8 still gains from more calibration samples: {before.sqnr_db:.1f} dB with {before.count}, "
        f"{last.sqnr_db:.1f} dB with {last.count}. Give more, and a larger --samples."
    )
