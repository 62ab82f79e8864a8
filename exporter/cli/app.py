"""The application, the options that commands share, and where they print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

DEFAULT_COMMAND = "export"
ORDER = (
    DEFAULT_COMMAND,
    "bench",
    "nightly",
    "history",
    "release",
    "verify",
    "diff",
    "inspect",
    "devices",
    "runner",
    "targets",
    "doctor",
)
"""Of the commands in --help."""


class CheckpointFirst(TyperGroup):
    """Lets the checkpoint come first: `export-mobile model.ckpt …` is `export-mobile export model.ckpt …`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {"--help", "--version", "--install-completion", "--show-completion"}
        if args and args[0] not in own and args[0] not in self.commands:
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=ORDER.index)


app = typer.Typer(
    cls=CheckpointFirst,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=(
        "From a trained PyTorch checkpoint to mobile artifacts that are proven equal to it.\n\n"
        "  [bold]export-mobile CKPT --target snapdragon865 --calibration photos/[/bold]\n\n"
        "reads the checkpoint safely, finds out what network it is, emits ExecuTorch, TorchScript, ONNX and "
        "Core ML variants, runs each in its own runtime against the float64 original, times them here and "
        "chooses the one to ship. All its options: export-mobile export --help.\n\n"
        "With a phone on the cable, [bold]export-mobile bench OUT[/bold] says if it meets the budget."
    ),
)

Checkpoint = Annotated[
    Path,
    typer.Argument(metavar="CKPT", help="The trained checkpoint, any kind of file; or a model card (.toml)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Unpickle whole modules: runs whatever code the checkpoint names.")
]
Arch = Annotated[
    str | None,
    typer.Option(help="torchvision/resnet18 or mypkg.nets:make_net. Inferred when left out."),
]
ArchArg = Annotated[
    list[str] | None, typer.Option(metavar="K=V", help="An argument for --arch; may be given again.")
]
IgnoreKey = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN", help="Leave the file's tensors of this name out, as head.*; may be given again."
    ),
]
WeightsFromArch = Annotated[
    bool,
    typer.Option(
        "--weights-from-arch", help="Keep the weights that --arch's function made where CKPT has none."
    ),
]
Expect = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PHOTO=CLASS",
        help="The network must give this photo this class, a number or label; may be given again.",
    ),
]
InputShape = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SHAPE",
        help="1x3x224x224, or name=1x16:int64; once per input, in order. Inferred when left out.",
    ),
]
Preprocess = Annotated[
    str | None, typer.Option(help="imagenet, unit (0..1), symmetric (-1..1) or bytes (0..255).")
]
Mean = Annotated[str | None, typer.Option(metavar="M,M,M", help="Per-channel mean, for white = 1.")]
Std = Annotated[str | None, typer.Option(metavar="S,S,S", help="Per-channel standard deviation.")]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from importlib import metadata

        typer.echo(metadata.version("export-mobile"))
        raise typer.Exit


def console() -> Any:
    from rich.console import Console

    return Console()


def watch(quiet: bool) -> Any:
    """Progress on standard error, or nowhere."""
    from exporter.cli.console import progress

    return progress.watch(quiet)
