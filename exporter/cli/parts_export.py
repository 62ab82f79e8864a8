"""Export several parts or sizes of a network, and print what became of them and of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from exporter.cli.app import app_console
from exporter.config.request import Request
from exporter.errors import NothingPassedError, RequirementError

if TYPE_CHECKING:
    from exporter.config.buckets import Bucket
    from exporter.pipeline.context import Observer
    from exporter.pipeline.parts_record import PartsExport


def export_and_print_parts(
    request: Request, names: Sequence[str], require: Sequence[str], as_json: bool, observer: Observer
) -> None:
    """Export the parts, print a table for each and a line for each variant of all.

    Raises:
        RequirementError: A required variant passed in every part, but not together.
        NothingPassedError: No variant passed together.
    """
    from exporter.pipeline.parts import export_parts

    _finish_parts_export(export_parts(request, names, observer), request, require, as_json)


def export_and_print_buckets(
    request: Request, buckets: Sequence[Bucket], require: Sequence[str], as_json: bool, observer: Observer
) -> None:
    """Export every size, print a table for each and a line for each variant of all.

    Raises:
        RequirementError: A required variant did not pass at every size.
        NothingPassedError: No variant passed at every size.
    """
    from exporter.pipeline.buckets import export_buckets

    _finish_parts_export(export_buckets(request, buckets, observer), request, require, as_json)


def _finish_parts_export(
    result: PartsExport, request: Request, require: Sequence[str], as_json: bool
) -> None:
    from exporter.pipeline.parts_record import PARTS

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
    for note in result.notes:
        console.print(note, highlight=False)
    if merged := result.merged:
        console.print(
            f"Ship {merged.file} ({result.selected}): {', '.join(merged.methods.values())} in "
            f"{merged.size_bytes / 1e6:.2f} MB, {merged.separate_bytes / 1e6:.2f} MB as files of their own.",
            highlight=False,
        )
    elif result.selected:
        files = " and ".join(result.files.values())
        console.print(f"Ship {files} ({result.selected}).", highlight=False)
    if result.choice:
        console.print(f"{' and '.join(result.choice)} choose the size in an app.", highlight=False)
    console.print(f"[dim]Everything is in[/dim] {request.destination}", highlight=False)
