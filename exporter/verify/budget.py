"""Judges a latency budget by devices' latencies. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from exporter.records import BudgetVerdict, DeviceLatency

BADNESS: dict[BudgetVerdict, int] = {"fail": 3, "inconclusive": 2, "pass": 1, "not_measured": 0}
"""How bad a verdict is. A phone's counts before a simulated one, which says nothing about a budget."""

MIN_LAUNCHES, MIN_CALLS = 4, 200
"""The launches and timed calls that a PASS needs."""
COVERAGE = 95
"""In how many of 100 simulated sessions an interval holds the true p90: `benchmarks/interval_coverage.py`."""


def judge_by_budget(latency: DeviceLatency, budget_ms: float) -> BudgetVerdict:
    """Judge a device's kept interval against a budget, whatever budget it was measured for.

    Only a real phone has a verdict. Wrong outputs fail every budget, and an interval that is wholly above
    the budget fails also in an unstable session.
    """
    if latency.evidence != "measured":
        return "not_measured"
    low, high = latency.p90_ci_ms
    if latency.problem or latency.exceeded or low > budget_ms:
        return "fail"
    certain = (
        not missing_evidence_for_budget(latency) and not latency.flags and bool(latency.device.get("soc"))
    )
    return "pass" if certain and high < budget_ms else "inconclusive"


def launch_spread_for_budget(latency: DeviceLatency) -> float:
    """Return by how much the launches' medians differ: their standard deviation as a share of their mean."""
    value = latency.device.get("launch_spread", 0.0)
    return float(value) if isinstance(value, int | float) else 0.0


def missing_evidence_for_budget(latency: DeviceLatency) -> str:
    """Return what a PASS lacks besides stability; an empty string when it lacks nothing."""
    if latency.launches < MIN_LAUNCHES or latency.samples < MIN_CALLS:
        return (
            f"{latency.launches} launches with {latency.samples} calls: a PASS needs {MIN_LAUNCHES} launches "
            f"and {MIN_CALLS} calls"
        )
    return ""


def rejudge_by_budget(latency: DeviceLatency, budget_ms: float) -> DeviceLatency:
    """Return the latency with its verdict on another budget."""
    return replace(latency, verdict=judge_by_budget(latency, budget_ms), budget_ms=budget_ms)


def worst_for_budget(latencies: Sequence[DeviceLatency], budget_ms: float) -> DeviceLatency | None:
    """Return the latency that counts: the worst verdict on this budget, then the slowest."""
    return max(
        latencies, key=lambda item: (BADNESS[judge_by_budget(item, budget_ms)], item.p90_ms), default=None
    )


def budget_verdict(latencies: Sequence[DeviceLatency], budget_ms: float) -> BudgetVerdict:
    """Return whether the budget is met; "not_measured" without a real phone, always."""
    counts = worst_for_budget(latencies, budget_ms)
    return judge_by_budget(counts, budget_ms) if counts else "not_measured"


def recorded_budget_verdict(latencies: Sequence[DeviceLatency], budget_ms: float) -> BudgetVerdict:
    """Return the worst verdict that was recorded for this budget, as an earlier manifest states it."""
    verdicts = (item.verdict for item in latencies if item.budget_ms in {None, budget_ms})
    return max(verdicts, key=lambda verdict: BADNESS[verdict], default="not_measured")


def soc_of_budget(target_soc: str) -> str | None:
    """Return the SoC that this target requires: "SM8250"; None where the target stands for many."""
    return target_soc if target_soc.startswith("SM") else None


def budget_contradiction(latency: DeviceLatency, budget_ms: float, target_soc: str) -> str:
    """Return why a latency's verdict contradicts its own figures; an empty string when it does not."""
    soc = soc_of_budget(target_soc)
    if latency.verdict == "pass" and soc not in {None, latency.device.get("soc")}:
        return f"the verdict is pass, but its SoC is not the target's {soc}"
    budget = latency.budget_ms or budget_ms
    low, high = latency.p90_ci_ms
    if latency.verdict == "pass" and (reason := " ".join((latency.problem, *latency.exceeded)).strip()):
        return f"the verdict is pass, but {reason}"
    if latency.verdict == "pass" and not high < budget:
        return f"the verdict is pass, but p90 may be {high:g} ms with a budget of {budget:g} ms"
    if latency.verdict == "fail" and not (latency.problem or latency.exceeded or low > budget):
        return f"the verdict is fail, but p90 may be {low:g} ms with a budget of {budget:g} ms"
    return ""
