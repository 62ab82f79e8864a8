"""The application, the options that commands share, and where they print."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

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
            text = help_paragraphs(inspect.getdoc(function) or "")
            return super(Application, self).command(name, help=text, **options)(function)

        return register


def help_paragraphs(text: str) -> str:
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

Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CKPT",
        help="The trained checkpoint in any format, a folder of save_pretrained, or a model card (.toml).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Unpickle whole modules and run a folder's own code. This runs any code in CKPT.",
    ),
]
Arch = Annotated[
    str | None,
    typer.Option(
        help="The network: torchvision/NAME, timm/NAME, transformers/CLASS or mypkg.nets:make_net. "
        "Inferred when left out."
    ),
]
ArchArg = Annotated[list[str] | None, typer.Option(metavar="K=V", help="An argument for --arch; repeatable.")]
Part = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Export only some parts (A,B) of a network: encoder, decoder, text, vision; prefill, decode "
        "of a language model. All parts, verified together, when left out.",
    ),
]
IgnoreKey = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN", help="Leave out the file's tensors of this name, such as head.*; repeatable."
    ),
]
WeightsFromArch = Annotated[
    bool,
    typer.Option(
        "--weights-from-arch", help="Keep the weights that --arch's function creates where CKPT has none."
    ),
]
Expect = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PHOTO=CLASS",
        help="Require the network to give this photo this class, a number or a label; repeatable.",
    ),
]
InputShape = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SHAPE",
        help="Shape of an input: 1x3x224x224 or name=1x16:int64; once per input, in order. "
        "Inferred when left out.",
    ),
]
Preprocess = Annotated[
    str | None,
    typer.Option(
        help="Pixel range of the input: imagenet, unit (0..1), symmetric (-1..1) or bytes (0..255)."
    ),
]
Mean = Annotated[str | None, typer.Option(metavar="M,M,M", help="Mean of each channel, with white as 1.")]
Std = Annotated[
    str | None, typer.Option(metavar="S,S,S", help="Standard deviation of each channel, with white as 1.")
]


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


def watch_command(quiet: bool) -> Any:
    """Return an observer that shows progress on standard error, or nothing when `quiet`."""
    from exporter.cli.console import progress

    return progress.progress_watcher(quiet)
