"""The application, the options that commands share, and where they print."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from exporter.cli.help_page import HelpPageCommand

DEFAULT_COMMAND = "export"
ORDER = (
    DEFAULT_COMMAND,
    "bench",
    "nightly",
    "history",
    "release",
    "verify",
    "estimate",
    "diff",
    "inspect",
    "devices",
    "runner",
    "targets",
    "doctor",
)
"""The order of the commands in --help."""
Command = TypeVar("Command", bound=Callable[..., Any])


class CheckpointFirst(TyperGroup):
    """Accept a checkpoint in place of a command: `export-mobile net.pt` is `export-mobile export net.pt`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {"--help", "--version", "--install-completion", "--show-completion"}
        if args and args[0] not in own and args[0] not in self.commands:
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=ORDER.index)


class Application(typer.Typer):
    """A Typer application whose help wraps at the width of the terminal, not at the source's line breaks."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[Command], Command]:
        def register(function: Command) -> Command:
            text = app_help_paragraphs(inspect.getdoc(function) or "")
            return super(Application, self).command(name, cls=HelpPageCommand, help=text, **options)(function)

        return register


def app_help_paragraphs(text: str) -> str:
    """Join the lines of each paragraph."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


app = Application(
    cls=CheckpointFirst,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=(
        "From a trained PyTorch checkpoint to mobile artifacts that are proven equal to it.\n\n"
        "  [bold]export-mobile CKPT --target snapdragon865 --calibration photos/[/bold]\n\n"
        "reads the checkpoint safely, identifies the network, emits ExecuTorch, TorchScript, ONNX and "
        "Core ML variants, verifies each in its own runtime against the float64 original, times them and "
        "chooses the one to ship. Its options: export-mobile export --help.\n\n"
        "With a phone connected, [bold]export-mobile bench OUT[/bold] measures whether it meets the budget."
    ),
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.callback(invoke_without_command=True)
def app_root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from importlib import metadata

        typer.echo(metadata.version("export-mobile"))
        raise typer.Exit


def app_console() -> Any:
    from rich.console import Console

    return Console()


def watch_app_command(quiet: bool) -> Any:
    """Return an observer that shows progress on standard error, or nothing when `quiet`."""
    from exporter.cli.console import progress

    return progress.progress_watcher(quiet)
