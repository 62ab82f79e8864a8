"""The command that estimates latencies: it changes the report of an export, and measures nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from exporter.cli.app import Debug, Json, app, app_console, watch_app_command
from exporter.cli.prepare import prepare_arm_programs, prepare_what_machine_can


@app.command()
def estimate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder of an export.")],
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=0, help="Worker processes; 0 uses one per core, at most 4.")
    ] = 0,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Count again, and keep no counts in the build cache.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Estimate every CPU artifact's latency on the target Snapdragon, and choose by it. Nothing is measured.

    Counts what each artifact executes in its Arm library under QEMU; the first time, this downloads and
    compiles the programs. Where that cannot be done, as without QEMU, the estimate follows from the graph
    and is less certain.

    Intervals are meant to hold in 90 % of cases. Published latencies of whole models were missed by 3 to
    9 % in the mean, and by 23 % on four threads in float32; no latency of ExecuTorch on a Snapdragon 865 is
    published. docs/explanation/estimates.md has the table, and what it cannot show.
    """
    from exporter.cli.console import estimates as printed
    from exporter.emulated import arm_tools
    from exporter.estimate import qemu_plugin
    from exporter.pipeline import estimate_stage
    from exporter.pipeline.workers.pool import default_pool_size

    estimate_stage.report_of_estimate_stage(out)  # before anything is downloaded for it
    if not qemu_plugin.missing_for_qemu_plugin() and not arm_tools.missing_arm_tools():
        prepare_what_machine_can((prepare_arm_programs,))
    with watch_app_command(as_json) as observer:
        report = estimate_stage.run_estimate_stage_for_command(
            out, jobs or default_pool_size(), observer, cached=not no_cache
        )
    if as_json:
        typer.echo(json.dumps(printed.printed_estimates_as_json(report), indent=2))
    else:
        printed.print_estimates(report, app_console())
