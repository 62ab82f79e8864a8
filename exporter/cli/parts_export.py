"""Export several parts of a network, and print what became of them and of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from exporter.cli.app import app_console
from exporter.config.request import Request
from exporter.errors import NothingPassedError, RequirementError, UsageError

if TYPE_CHECKING:
    from exporter.pipeline.context import Observer
    from exporter.pipeline.parts import PartsExport


def export_and_print_parts(
    request: Request, names: Sequence[str], require: Sequence[str], as_json: bool, observer: Observer
) -> None:
    """Export the parts, print a table for each and a line for each variant of all.

    Raises:
        UsageError: A name is given twice.
        RequirementError: A required variant passed in every part, but not together.
        NothingPassedError: No variant passed together.
    """
    from exporter.pipeline.parts import PARTS, export_parts

    if len(set(names)) < len(names) or not all(names):
        raise UsageError(f"--part {','.join(names)} names a part twice, or none.", "Name each part once.")
    result = export_parts(request, names, observer)
    if as_json:
        typer.echo((request.destination / PARTS).read_text())
    else:
        _print_exported_parts(result, request)
    for name in require:
        if not any(v.status == "passed" and name in [*v.name.split("-"), v.name] for v in result.together):
            raise RequirementError(f"--require {name}: none passed together.", "parts.json says why.")
    if result.selected is None:
        raise NothingPassedError(
            "Nothing can be shipped: no variant that the target runs passed in every part and together."
        )


def _print_exported_parts(result: PartsExport, request: Request) -> None:
    from exporter.report import terminal

    console = app_console()
    for name, report in result.reports.items():
        console.print(f"\n[bold]{name}[/bold]")
        terminal.print_terminal_report(report, console)
    console.print("\n[bold]together[/bold]")
    for verdict in result.together:
        style = "green" if verdict.status == "passed" else "red"
        words = verdict.reason or verdict.measure
        console.print(f"[{style}]{verdict.status}[/{style}] {verdict.name}: {words}", highlight=False)
    if result.selected:
        files = " and ".join(result.files.values())
        console.print(f"Ship {files} ({result.selected}).", highlight=False)
    console.print(f"[dim]Everything is in[/dim] {request.destination}", highlight=False)
