"""Each output as a whole must be as close to the float64 model's as its precision allows.

float32 is judged by its largest error. All others are judged by figures over scenes, and these by their
bounds: an artifact passes when a lower bound meets the limit, fails when the upper bound misses it, and is
inconclusive between. fp16 must keep SQNR and agreement. Its SQNR carries the bound, which few scenes tell
well; its agreement must meet the limit as measured, as it follows from the SQNR but for ties. Quantised
artifacts need one of the two.
"""

from __future__ import annotations

from typing import Literal

from exporter.records import Bounds, Comparison
from exporter.verify import intervals
from exporter.verify.discrete import are_all_discrete
from exporter.verify.observation import Observation

Side = Literal["met", "open", "missed"]


def whole_output_gate(observation: Observation) -> str:
    """Fail a float output that is further from the reference than its precision allows."""
    if are_all_discrete(observation.references.reference):
        return ""
    if observation.precision == "fp32":
        reason = _whole_output_fp32_reason(observation.comparison, observation.limits["max_error"])
    else:
        reason = _whole_output_lossy_reason(observation)
    worst = observation.worst_channel
    return f"{reason} {worst.fault}".rstrip() if reason and worst else reason


def whole_output_doubt(observation: Observation) -> str:
    """Return why the scenes are too few to pass or fail an artifact; an empty string when they are not."""
    if observation.precision == "fp32" or _side_of_whole_output(observation) != "open":
        return ""
    return (
        f"{observation.comparison.scenes} scene(s) cannot decide: {_whole_output_figures(observation)}; "
        f"{_whole_output_limit(observation)} is the limit. {_scenes_to_decide_whole_output(observation)}"
    )


def _whole_output_fp32_reason(comparison: Comparison, limit: float) -> str:
    if comparison.max_error <= limit:
        return ""
    return f"Its largest error is {comparison.max_error:.1e} of the output's scale; the limit is {limit:.1e}."


def _whole_output_lossy_reason(observation: Observation) -> str:
    comparison = observation.comparison
    if comparison.sqnr_db < 0:  # a network that answers one class for nearly everything agrees with any such
        return (
            f"Its error is louder than its output ({comparison.sqnr_db:.1f} dB SQNR), whatever the agreement."
        )
    if _side_of_whole_output(observation) != "missed":
        return ""
    figures, limit = _whole_output_figures(observation), _whole_output_limit(observation)
    return f"It reaches {figures} with the float64 model; the limit is {limit}."


def _side_of_whole_output(observation: Observation) -> Side:
    """Tell on which side of the limits an artifact that is not float32 is."""
    sqnr, agreement = sides_of_whole_output(observation)
    if are_all_discrete(observation.references.reference):
        return agreement
    if observation.precision == "fp16":
        if "missed" in (sqnr, agreement):
            return "missed"
        return "met" if sqnr == "met" and _whole_output_agrees(observation) else "open"
    if "met" in (sqnr, agreement):
        return "met"
    return "open" if "open" in (sqnr, agreement) else "missed"


def sides_of_whole_output(observation: Observation) -> tuple[Side, Side]:
    """Return the sides of SQNR and of agreement; what has no agreement misses it, but for fp16."""
    comparison, limits = observation.comparison, observation.limits
    sqnr = side_of_whole_output_figure(comparison.sqnr_bounds_db, comparison.sqnr_db, limits["min_sqnr_db"])
    if comparison.agreement is None:
        return sqnr, "met" if observation.precision == "fp16" else "missed"
    agreement = side_of_whole_output_figure(
        comparison.agreement_bounds, comparison.agreement, limits["min_agreement"]
    )
    return sqnr, agreement


def side_of_whole_output_figure(bounds: Bounds | None, estimate: float, limit: float) -> Side:
    """Return whether a figure meets its limit, misses it, or may do either.

    Where scenes were not counted, so that it has no bounds, the figure itself decides.
    """
    low, high = bounds or (estimate, estimate)
    if low >= limit:
        return "met"
    return "missed" if high < limit else "open"


def _whole_output_agrees(observation: Observation) -> bool:
    agreement = observation.comparison.agreement
    return agreement is None or agreement >= observation.limits["min_agreement"]


def _whole_output_limit(observation: Observation) -> str:
    sqnr_db, agreement = (observation.limits[name] for name in ("min_sqnr_db", "min_agreement"))
    if are_all_discrete(observation.references.reference):
        return f"{agreement:.0%}"
    return f"{sqnr_db:g} dB {'and' if observation.precision == 'fp16' else 'or'} {agreement:.0%}"


def _whole_output_figures(observation: Observation) -> str:
    comparison = observation.comparison
    figures = [f"{comparison.sqnr_db:.1f} dB SQNR{_whole_output_bounds_text(comparison.sqnr_bounds_db, 1)}"]
    if are_all_discrete(observation.references.reference):
        figures = []
    if comparison.agreement is not None:
        figures.append(
            f"{comparison.agreement:.1%} "
            f"agreement{_whole_output_bounds_text(comparison.agreement_bounds, 100)}"
        )
    return " and ".join(figures)


def _whole_output_bounds_text(bounds: Bounds | None, scale: float) -> str:
    return f" ({scale * bounds[0]:.1f} to {scale * bounds[1]:.1f})" if bounds else ""


def _scenes_to_decide_whole_output(observation: Observation) -> str:
    """Say how many more scenes would decide."""
    comparison, limits = observation.comparison, observation.limits
    needed = []
    if comparison.sqnr_bounds_db is not None:
        needed.append(
            intervals.scenes_for_decibel_interval(
                comparison.sqnr_db, limits["min_sqnr_db"], comparison.scenes, comparison.sqnr_bounds_db
            )
        )
    if comparison.agreement is not None and comparison.agreement_bounds is not None:
        needed.append(
            intervals.scenes_for_share_interval(
                comparison.agreement,
                limits["min_agreement"],
                comparison.scenes,
                comparison.agreement_bounds,
            )
        )
    counts = [count - comparison.scenes for count in needed if count is not None]
    more = min((count for count in counts if count > 0), default=None)
    if more is None:
        return "The figures are at the limit: no number of scenes like these would decide."
    return f"About {more} more scene{'' if more == 1 else 's'} like these would decide."
