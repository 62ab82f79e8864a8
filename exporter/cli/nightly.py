"""The command `export-mobile nightly nightly.toml`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from exporter.cli.app import Debug, Json, app, app_console, watch_app_command


@app.command()
def nightly(
    task: Annotated[
        Path,
        typer.Argument(metavar="NIGHTLY", help="The nightly task, a .toml file; scripts/ holds an example."),
    ],
    tensorboard: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write tonight's figures for TensorBoard to this folder."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin a new night even if an earlier one was interrupted.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Export every model for every target, measure on every phone, store, judge, report.

    A killed run resumes where it stopped; nothing is lost or re-measured. One failing model, format or phone
    does not stop the others; each failure is in the report.

    Exit codes, the first that applies: 40 something became slower or worse, 41 over budget, 42 something
    failed, 43 no phone (the gap is stored), 44 inconclusive, 45 not measured on a real phone, 0 all fine.
    46 another night is running, 2 NIGHTLY is invalid, 20 the history cannot be used.
    """
    from exporter.nightly import config, night_run
    from exporter.nightly.records import night_records_as_json as values

    listed = config.load_night_config(task)
    with watch_app_command(as_json) as observer:
        finished = night_run.run_night(listed, observer, fresh=fresh, tensorboard=tensorboard)
    if as_json:
        typer.echo(json.dumps(values(finished.result), indent=2))
    else:
        from exporter.cli.console.nightly import print_nightly

        print_nightly(finished.result, app_console())
        app_console().print(f"[dim]Page, JUnit and summary are in[/dim] {listed.out}", highlight=False)
    if code := finished.result.exit_code:
        raise typer.Exit(code)
