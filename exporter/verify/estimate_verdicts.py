"""Reads estimated latencies: verdicts in words of their own, and the choice among estimates. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from exporter.records import Artifact, DeviceLatency, EstimatedLatency

TIED = 0.5
"""Estimates of which one follows from FLOPs cannot be told apart from this share of the narrower interval."""
EstimateVerdict = Literal["estimated within", "estimated over", "uncertain"]


def best_estimate_verdict(artifact: Artifact) -> EstimatedLatency | None:
    """Return the estimate on the number of threads that is faster; None without any.

    Small cores do not count: they are where Android puts an app in the background, not where one measures.
    """
    fastest_cores = [item for item in artifact.estimates if not item.core]
    return min(fastest_cores, key=lambda item: item.p50_ms, default=None)


def estimate_verdict(estimate: EstimatedLatency, budget_ms: float) -> EstimateVerdict:
    """Compare an estimate's whole interval with a budget, which only measurements meet or miss."""
    if estimate.high_ms < budget_ms:
        return "estimated within"
    return "estimated over" if estimate.low_ms > budget_ms else "uncertain"


def estimate_verdicts_overlap(first: EstimatedLatency, second: EstimatedLatency) -> float:
    """Return which share of the narrower of two intervals lies in the other: 0 where they are apart."""
    low, high = max(first.low_ms, second.low_ms), min(first.high_ms, second.high_ms)
    narrower = min(first.high_ms - first.low_ms, second.high_ms - second.low_ms)
    if narrower <= 0:
        return float(low <= high)
    return max(0.0, high - low) / narrower


def estimate_verdict_text(estimate: EstimatedLatency) -> str:
    """Format an estimate: "9.1 ms, 7.4 to 11.2 (estimated)"; one without counts says that it has none."""
    how = "estimated" if estimate.basis == "counts" else "estimated from the graph"
    return f"{_estimate_verdict_interval(estimate)} ({how})"


def _estimate_verdict_interval(estimate: EstimatedLatency) -> str:
    p50, low, high = (f"{value:.3g}" for value in (estimate.p50_ms, estimate.low_ms, estimate.high_ms))
    return f"{p50} ms, {low} to {high}"


def tied_estimate_verdicts(best: Artifact, estimated: Sequence[Artifact]) -> list[Artifact]:
    """Return the artifacts whose estimates cannot be told from the best one's, and that one.

    FLOPs are the network's: they do not tell what each runtime's kernels execute. Counted instructions do.
    """
    return [item for item in estimated if item is best or _is_estimate_verdict_tied(best, item)]


def _is_estimate_verdict_tied(best: Artifact, item: Artifact) -> bool:
    first, other = best_estimate_verdict(best), best_estimate_verdict(item)
    if not first or not other or item.executor != best.executor:
        return False
    return "graph" in {first.basis, other.basis} and estimate_verdicts_overlap(first, other) >= TIED


def estimate_verdict_tie_reason(best: Artifact, tied: Sequence[Artifact]) -> str:
    """Say why an artifact is chosen whose estimate cannot be told from others', and how they overlap."""
    estimate = best_estimate_verdict(best)
    assert estimate is not None
    return (
        f"The target's first choice of {len(tied)} passed artifacts whose estimates cannot be told apart "
        f"without counted instructions ({estimate_verdict_text(estimate)}, {estimate.where}; "
        f"{_estimate_verdict_next_overlap(best, estimate, tied)})"
    )


def estimate_verdict_choice_reason(best: Artifact, candidates: Sequence[Artifact]) -> str:
    """Say why an artifact is chosen by its estimate, and by how much the next one's interval overlaps."""
    estimate = best_estimate_verdict(best)
    assert estimate is not None
    estimated = sum(bool(item.estimates) for item in candidates)
    reason = (
        f"The fastest on the phone's CPU by estimate ({estimate_verdict_text(estimate)}, {estimate.where}) "
        f"of {estimated} passed artifacts that the target runs"
    )
    if overlap := _estimate_verdict_next_overlap(best, estimate, candidates):
        reason += f"; {overlap}"
    if left := len(candidates) - estimated:
        reason += f"; {left} without an estimate {'was' if left == 1 else 'were'} left out"
    return reason


def _estimate_verdict_next_overlap(
    best: Artifact, estimate: EstimatedLatency, candidates: Sequence[Artifact]
) -> str:
    """Say by how much an interval overlaps with that of the fastest other artifact; empty without others."""
    others = [
        (item, other) for item in candidates if item is not best and (other := best_estimate_verdict(item))
    ]
    if not others:
        return ""
    second, other = min(others, key=lambda pair: pair[1].p50_ms)
    share = estimate_verdicts_overlap(estimate, other)
    return f"its interval overlaps by {share:.0%} with that of {second.variant.name} ({other.p50_ms:.3g} ms)"


def estimate_verdict_bound(estimate: EstimatedLatency) -> str:
    """Return what takes most of the time, with its share: "arithmetic 55 %, loads 30 %"."""
    largest = sorted(estimate.shares.items(), key=lambda item: -item[1])[:2]
    return ", ".join(f"{name} {share:.0%}".replace("%", " %") for name, share in largest)


def estimate_verdict_compared(latency: DeviceLatency, estimates: Sequence[EstimatedLatency]) -> str:
    """Compare a real phone's measurement with the estimate on as many threads; empty where there is none."""
    same = [item for item in estimates if item.threads == latency.device.get("threads") and not item.core]
    if latency.evidence != "measured" or not same:
        return ""
    estimate = same[0]
    inside = estimate.low_ms <= latency.p50_ms <= estimate.high_ms
    change = latency.p50_ms / estimate.p50_ms - 1 if estimate.p50_ms else 0.0
    direction = "more" if change >= 0 else "less"
    return (
        f"measured {latency.p50_ms:.3g} ms p50, {abs(change):.0%} {direction} than the estimate of "
        f"{_estimate_verdict_interval(estimate)}, {'inside' if inside else 'outside'} its interval"
    )
