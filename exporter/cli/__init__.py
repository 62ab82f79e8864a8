"""The command line: the only place that prints or exits."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from android_harness.errors import HarnessError
from exporter.cli import device, estimate, export, history, inspect_and_verify, nightly, release  # noqa: F401 - they register themselves
from exporter.cli.app import app
from exporter.cli.standard_output import patient_standard_output
from exporter.errors import INTERRUPTED_EXIT_CODE, TROUBLESHOOTING, ExportError, brief_error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a failure prints one message and sets the exit code, --debug adds a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with patient_standard_output():
        _run_command_line(given)


def _run_command_line(given: list[str]) -> None:
    try:
        app(args=given, prog_name="export-mobile")
    except (ExportError, HarnessError) as error:
        if "--debug" in given:
            raise
        _print_command_error(error)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as ended:
        # Typer has turned Ctrl-C into an exit that says nothing.
        if isinstance(ended, SystemExit) and ended.code != INTERRUPTED_EXIT_CODE:
            raise
        night = given[:1] == ["nightly"]
        left = "the next start resumes this night" if night else "nothing was left behind"
        typer.echo(f"Interrupted; {left}.", err=True)
        sys.exit(INTERRUPTED_EXIT_CODE)
    except Exception as error:
        if "--debug" in given:
            raise
        unexpected = ExportError(f"Unexpected {type(error).__name__}: {error}.", "--debug shows where.")
        _print_command_error(unexpected)
        sys.exit(unexpected.exit_code)


def _print_command_error(error: ExportError | HarnessError) -> None:
    typer.secho(f"export-mobile: {brief_error(error.message)}", fg="red", err=True)
    if error.hint:
        typer.echo(brief_error(error.hint), err=True)
    typer.secho(f"See {TROUBLESHOOTING}#{error.code.lower()}", dim=True, err=True)
