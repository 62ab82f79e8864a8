"""What devices' latencies say about a budget. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.records import BudgetVerdict, DeviceLatency

BADNESS: dict[BudgetVerdict, int] = {"fail": 3, "inconclusive": 2, "pass": 1, "not_measured": 0}
"""A phone's answer always counts before what was only simulated: that says nothing about a budget."""


def worst(found: Sequence[DeviceLatency], budget_ms: float) -> DeviceLatency | None:
    """The latency that counts: the worst verdict against this budget, then the slowest."""
    same = [item for item in found if item.budget_ms in {None, budget_ms}]
    return max(same, key=lambda item: (BADNESS[item.verdict], item.p90_ms), default=None)


def budget_verdict(found: Sequence[DeviceLatency], budget_ms: float) -> BudgetVerdict:
    """Whether the budget is met; "not_measured" without a real phone, always."""
    counts = worst(found, budget_ms)
    return counts.verdict if counts and counts.evidence == "measured" else "not_measured"


def required_soc(target_soc: str) -> str | None:
    """The SoC a device must have for this target: "SM8250"; None where the target stands for many."""
    return target_soc if target_soc.startswith("SM") else None


def contradiction(found: DeviceLatency, budget_ms: float, target_soc: str) -> str:
    """Why its verdict cannot follow from what it says itself; an empty string when it can."""
    soc = required_soc(target_soc)
    if found.verdict == "pass" and soc not in {None, found.device.get("soc")}:
        return f"the verdict is pass, but its SoC is not the target's {soc}"
    budget = found.budget_ms or budget_ms
    low, high = found.p90_ci_ms
    if found.verdict == "pass" and found.problem:
        return f"the verdict is pass, but {found.problem}"
    if found.verdict == "pass" and not high < budget:
        return f"the verdict is pass, but p90 may be {high:g} ms with a budget of {budget:g} ms"
    if found.verdict == "fail" and not found.problem and not low > budget:
        return f"the verdict is fail, but p90 may be {low:g} ms with a budget of {budget:g} ms"
    return ""
