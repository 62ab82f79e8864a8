"""Run an export, print its report, and exit by what it chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import typer

from exporter.cli import parts_export
from exporter.cli.app import (
    app_console,
    watch_app_command,
)
from exporter.config.request import Request
from exporter.errors import (
    FixedSizesError,
    InconclusiveError,
    NothingPassedError,
    RequirementError,
    SeveralPartsError,
    UsageError,
)
from exporter.records import Report


def print_export_report(request: Request, require: Sequence[str], as_json: bool, last: bool) -> None:
    from exporter import pipeline
    from exporter.pipeline import buckets, variants
    from exporter.report import manifest, terminal

    variants.check_required_variants(request, require)
    names: tuple[str, ...] = ()
    sizes = () if request.several_parts else buckets.buckets_of_request(request)
    if sizes and not last:
        raise UsageError("--bench measures one export.", "Leave it out, then: export-mobile bench OUT/SIZE.")
    with watch_app_command(as_json) as observer:
        try:
            report = None if sizes else pipeline.run_pipeline(request, observer)
        except SeveralPartsError as error:
            if not error.parts:
                raise
            if not last:
                raise UsageError(
                    "--bench measures one export.", "Leave it out, then: export-mobile bench OUT/PART."
                ) from error
            report, names = None, error.parts
        except FixedSizesError as error:
            if not last:
                raise
            sizes = buckets.buckets_in_place_of_ranges(request, error)
            report, request = None, replace(request, input_shapes=())
            typer.echo(f"{error.message} Each size becomes an export of its own.", err=True)
        if sizes:
            parts_export.export_and_print_buckets(request, sizes, require, as_json, observer)
            return
        if report is None:
            parts_export.export_and_print_parts(request, names, require, as_json, observer)
            return
    if as_json and last:  # one document: the bench prints the manifest it completes
        typer.echo(manifest.dump_manifest(report))
    elif not as_json:
        terminal.print_terminal_report(report, app_console())
        app_console().print(f"[dim]Everything is in[/dim] {request.destination}", highlight=False)
    _exit_by_export_report(report, require, request.allow_inconclusive)


def _exit_by_export_report(report: Report, require: Sequence[str], allow_inconclusive: bool) -> None:
    for name in require:
        matching = [
            a for a in report.artifacts if name in (a.variant.format, a.variant.precision, a.variant.name)
        ]
        statuses = ", ".join(f"{a.variant.name} {a.status}" for a in matching)
        seen = {a.status for a in matching}
        if "passed" in seen or (allow_inconclusive and "inconclusive" in seen):
            continue
        if "inconclusive" in seen:
            raise InconclusiveError(
                f"--require {name}: too few scenes were seen to decide ({statuses}).", "The report says why."
            )
        raise RequirementError(f"--require {name}: none passed ({statuses}).", "The report says why.")
    if report.selected is None and report.numerics == "inconclusive":
        raise InconclusiveError(f"Nothing can be shipped. {report.selection_reason}")
    if report.selected is None:
        raise NothingPassedError(f"Nothing can be shipped. {report.selection_reason}")
