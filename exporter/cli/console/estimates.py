"""Print estimated latencies."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from exporter.emulated.run import BACKENDS
from exporter.pipeline import count_stage
from exporter.pipeline.cache import default_cache_root
from exporter.report import text
from exporter.report.terminal import folded_terminal_table, plain_terminal_text
from exporter.verify import estimate_verdicts

if TYPE_CHECKING:
    from rich.console import Console

    from exporter.records import Report


def print_estimates(report: Report, console: Console) -> None:
    """Print a line per artifact and number of threads, the choice, and why intervals are wide."""
    against = f"against {report.budget_ms:g} ms"
    table = folded_terminal_table("artifact", "on", "p50", against, "bound by")
    for artifact in report.artifacts:
        for estimate in artifact.estimates:
            cells = (
                artifact.variant.name,
                estimate.where,
                estimate_verdicts.estimate_verdict_text(estimate),
                estimate_verdicts.estimate_verdict(estimate, report.budget_ms),
                estimate_verdicts.estimate_verdict_bound(estimate),
            )
            table.add_row(*map(plain_terminal_text, cells))
    console.print(table)
    for line in printed_estimate_remarks(report):
        console.print(plain_terminal_text(line, "dim"))
    chosen = text.choice_text(report)
    if chosen:
        console.print(plain_terminal_text(f"Ship {chosen.file}. {report.selection_reason}", "bold"))


def printed_estimate_remarks(report: Report) -> tuple[str, ...]:
    """Return what has no estimate, and what makes intervals wide, a sentence each."""
    remarks = text.estimate_notes_text(report)
    countable = (row for row in report.artifacts if row.variant.backend in BACKENDS)
    by_graph = any(item.basis == "graph" for row in countable for item in row.estimates)
    if by_graph and (command := count_stage.missing_for_count_stage(default_cache_root())):
        remarks = (*remarks, f"To count what artifacts execute, run {command}, then estimate again.")
    return remarks


def printed_estimates_as_json(report: Report) -> dict[str, Any]:
    """Return the estimates by artifact, each with its verdict in words."""
    return {
        "budget_ms": report.budget_ms,
        "selected": report.selected,
        "selection_reason": report.selection_reason,
        "artifacts": {
            artifact.variant.name: [
                asdict(item) | {"verdict": estimate_verdicts.estimate_verdict(item, report.budget_ms)}
                for item in artifact.estimates
            ]
            for artifact in report.artifacts
        },
    }
