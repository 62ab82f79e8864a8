"""Judges a latency budget by devices' latencies. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.records import BudgetVerdict, DeviceLatency

BADNESS: dict[BudgetVerdict, int] = {"fail": 3, "inconclusive": 2, "pass": 1, "not_measured": 0}
"""How bad a verdict is. A phone's counts before a simulated one, which says nothing about a budget."""


def worst(latencies: Sequence[DeviceLatency], budget_ms: float) -> DeviceLatency | None:
    """Return the latency that counts: the worst verdict against this budget, then the slowest."""
    same = [item for item in latencies if item.budget_ms in {None, budget_ms}]
    return max(same, key=lambda item: (BADNESS[item.verdict], item.p90_ms), default=None)


def budget_verdict(latencies: Sequence[DeviceLatency], budget_ms: float) -> BudgetVerdict:
    """Return whether the budget is met; "not_measured" without a real phone, always."""
    counts = worst(latencies, budget_ms)
    return counts.verdict if counts and counts.evidence == "measured" else "not_measured"


def required_soc(target_soc: str) -> str | None:
    """Return the SoC that this target requires: "SM8250"; None where the target stands for many."""
    return target_soc if target_soc.startswith("SM") else None


def contradiction(latency: DeviceLatency, budget_ms: float, target_soc: str) -> str:
    """Return why a latency's verdict contradicts its own figures; an empty string when it does not."""
    soc = required_soc(target_soc)
    if latency.verdict == "pass" and soc not in {None, latency.device.get("soc")}:
        return f"the verdict is pass, but its SoC is not the target's {soc}"
    budget = latency.budget_ms or budget_ms
    low, high = latency.p90_ci_ms
    if latency.verdict == "pass" and latency.problem:
        return f"the verdict is pass, but {latency.problem}"
    if latency.verdict == "pass" and not high < budget:
        return f"the verdict is pass, but p90 may be {high:g} ms with a budget of {budget:g} ms"
    if latency.verdict == "fail" and not latency.problem and not low > budget:
        return f"the verdict is fail, but p90 may be {low:g} ms with a budget of {budget:g} ms"
    return ""
