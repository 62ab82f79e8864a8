"""Print an inspection, an audit, the targets, or the doctor's findings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from exporter.report import text
from exporter.report.terminal import STYLES, folded_terminal_table, terminal_on_arm

if TYPE_CHECKING:
    from rich.console import Console

    from exporter.cli.doctor.findings import Finding
    from exporter.config.targets import Target
    from exporter.pipeline.audit import Audit, AuditFinding
    from exporter.pipeline.inspect import Inspection

CONTENTS_SHOWN = 12
STATES = {"ok": "green", "missing": "red", "limited": "yellow"}


def list_inspection(inspection: Inspection, console: Console) -> None:
    """Print what is in the file, which network it is and why, its size and its inputs."""
    rows = [
        ("file", f"{inspection.file}, {text.scaled_text(inspection.size_bytes, 'B')}, {inspection.kind}"),
        ("sha256", inspection.sha256),
        ("network", inspection.architecture or f"unknown. {inspection.problem}"),
        ("parameters", f"{inspection.parameters:,}"),
        *([] if inspection.architecture is None else [("FLOPs", _flops_cell_of_listing(inspection))]),
        *(("input", text.tensor_text(spec)) for spec in inspection.inputs),
        *(
            []
            if inspection.architecture is None
            else [("preprocessing", text.preprocessing_text(inspection.preprocessing))]
        ),
        *(("why" if i == 0 else "", note) for i, note in enumerate(inspection.notes)),
        *(("warning", warning) for warning in inspection.warnings),
    ]
    _print_listing(rows, console)
    console.print()
    shown = inspection.contents[:CONTENTS_SHOWN]
    _print_listing(
        [("holds" if i == 0 else "", f"{key}: {value}") for i, (key, value) in enumerate(shown)], console
    )
    if len(inspection.contents) > len(shown):
        console.print(f"  … and {len(inspection.contents) - len(shown)} more; --json lists all.", style="dim")


def _flops_cell_of_listing(inspection: Inspection) -> str:
    return "not countable" if inspection.flops is None else f"{text.scaled_text(inspection.flops, '')} a call"


def list_audit(audit: Audit, console: Console) -> None:
    """Print one line per artifact: its claimed status, its status now, and the reason for a difference."""
    from rich.text import Text

    on_arm = any(finding.arm64 for finding in audit.findings)
    headings = ("artifact", "claimed", "now", "max error", *(["arm64 (emulated)"] if on_arm else []), "")
    table = folded_terminal_table(*headings)
    for finding in audit.findings:
        table.add_row(
            Text(finding.name),
            text.status_text(finding.claimed, finding.claimed_by),
            Text(text.status_text(finding.found, finding.found_by), STYLES[finding.found]),
            text.sig3_text(finding.max_error),
            *([terminal_on_arm(finding.arm64)] if on_arm else []),
            Text(_listing_reason(finding)),
        )
    if audit.findings:
        console.print(table)
    for fact in audit.facts:
        console.print(Text(fact, "dim"))
    if audit.unproven:
        console.print(Text(f"Only a signature can vouch for: {', '.join(audit.unproven)}.", "dim"))
    for problem in audit.problems:
        console.print(Text(problem, "red"))
    verdict = "Every claim holds." if audit.holds else "Some of its claims do not hold."
    console.print(Text(verdict, "bold green" if audit.holds else "bold red"))


def _listing_reason(finding: AuditFinding) -> str:
    """Return why an artifact is not what is claimed, here or on emulated Arm."""
    if finding.found != "passed" or finding.is_shown_by_less:
        return finding.reason
    return finding.arm64.reason if finding.arm64 else ""


def list_targets(targets: Iterable[Target], console: Console) -> None:
    """Print each target's hardware, what it runs, and why not the rest."""
    from rich.text import Text

    for target in targets:
        console.print(Text(f"{target.name}  {target.title}, {target.soc}", "bold"))
        clusters = ", ".join(
            f"{c.count}x {c.core}" + (f" {c.max_mhz / 1000:.2f} GHz" if c.max_mhz else "")
            for c in target.clusters
        )
        emitted = [name for name in target.variants if name not in target.runnable]
        rows = [
            ("CPU", f"{clusters}; {' '.join(target.instruction_sets)}"),
            ("GPU, NPU", f"{target.gpu}; {target.npu}"),
            ("runs", ", ".join(target.runnable)),
            ("emitted too", ", ".join(emitted)),
            *(
                ("why not" if i == 0 else "", f"{n}: {why}")
                for i, (n, why) in enumerate(_list_targets_by_refusal(target))
            ),
        ]
        _print_listing([row for row in rows if row[1]], console, indent=2)
        console.print()


def _list_targets_by_refusal(target: Target) -> list[tuple[str, str]]:
    """List each reason once, with all the names that it applies to."""
    names: dict[str, list[str]] = {}
    for name, why in target.why_not.items():
        names.setdefault(why, []).append(name)
    return [(", ".join(group), why) for why, group in names.items()]


def list_findings_of_doctor(findings: Iterable[Finding], console: Console) -> None:
    """Print one line per finding; below it, the command that fixes it."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for finding in findings:
        detail = Text(finding.detail)
        if finding.fix:
            detail.append(f"\n{finding.fix}", "bold")
        table.add_row(Text(finding.state, STATES[finding.state]), Text(finding.what), detail)
    console.print(table)


def _print_listing(rows: Iterable[tuple[str, str]], console: Console, indent: int = 0) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    console.print(Padding(table, (0, 0, 0, indent)))
