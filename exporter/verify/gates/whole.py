"""Each output as a whole must be as close to the float64 model's as its precision allows."""

from __future__ import annotations

from exporter.records import Comparison
from exporter.verify.discrete import is_discrete
from exporter.verify.observation import Observation


def check(observation: Observation) -> str:
    """Fail float outputs that are further from the reference than the precision's limits."""
    if all(is_discrete(output) for output in observation.evidence.reference):
        return ""
    if observation.precision == "fp32":
        reason = _fp32_reason(observation.comparison, observation.limits["max_error"])
    else:
        reason = _lossy_reason(observation)
    worst = observation.worst_channel
    return f"{reason} {worst.fault}".rstrip() if reason and worst else reason


def _fp32_reason(comparison: Comparison, limit: float) -> str:
    if comparison.max_error <= limit:
        return ""
    return f"Its largest error is {comparison.max_error:.1e} of the output's scale; the limit is {limit:.1e}."


def _lossy_reason(observation: Observation) -> str:
    comparison, limits = observation.comparison, observation.limits
    half = observation.precision == "fp16"
    loud = comparison.sqnr_db < limits["min_sqnr_db"]
    apart = comparison.agreement is not None and comparison.agreement < limits["min_agreement"]
    unknown = comparison.agreement is None
    # fp16 must keep both; quantised artifacts need one of the two.
    bad = loud or apart if half else loud and (apart or unknown)
    if not bad and comparison.sqnr_db >= 0:
        return ""
    if not bad:  # a network that answers one class for nearly everything agrees with any other that does
        return (
            f"Its error is louder than its output ({comparison.sqnr_db:.1f} dB SQNR), whatever the agreement."
        )
    agrees = "" if unknown else f" and {comparison.agreement:.1%} agreement"
    return (
        f"It reaches {comparison.sqnr_db:.1f} dB SQNR{agrees} with the float64 model; the limit is "
        f"{limits['min_sqnr_db']:g} dB {'and' if half else 'or'} {limits['min_agreement']:.0%}."
    )
