"""The command line: the only place that prints or exits."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from exporter import options
from exporter.errors import (
    INTERRUPTED_EXIT_CODE,
    ArchitectureError,
    ExportError,
    NothingPassedError,
    RequirementError,
    VerificationError,
)
from exporter.records import Report
from exporter.request import ModelRequest, Request

DEFAULT_COMMAND = "export"


class CheckpointFirst(TyperGroup):
    """Lets the checkpoint come first: `export-mobile model.ckpt …` is `export-mobile export model.ckpt …`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {"--help", "--version", "--install-completion", "--show-completion"}
        if args and args[0] not in own and args[0] not in self.commands:
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)


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
        "chooses the one to ship. All its options: export-mobile export --help."
    ),
)

Checkpoint = Annotated[Path, typer.Argument(metavar="CKPT", help="The trained checkpoint; any kind of file.")]
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
        from exporter import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command(DEFAULT_COMMAND)
def export_command(
    checkpoint: Checkpoint,
    target: Annotated[str, typer.Option("--target", "-t", help="The phone; see export-mobile targets.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the result. CKPT-TARGET when left out.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Folder of photos or .npz of arrays; half calibrates, the other half verifies."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Calibration inputs, and as many to verify on.")] = 64,
    formats: Annotated[
        str, typer.Option(metavar="A,B", help="Only these: executorch, torchscript, onnx, coreml.")
    ] = "",
    precisions: Annotated[
        str, typer.Option(metavar="A,B", help="Only these: fp32, fp16, int8, w8, w4.")
    ] = "",
    require: Annotated[
        str, typer.Option(metavar="A,B", help="Formats, precisions or artifacts that must pass (exit 7).")
    ] = "",
    limits: Annotated[
        str, typer.Option(metavar="K=V,…", help="Change verification limits, as int8_min_sqnr_db=15.")
    ] = "",
    budget: Annotated[float, typer.Option(min=0.001, help="Latency budget in ms on the device.")] = 15.0,
    arch: Arch = None,
    arch_arg: ArchArg = None,
    input_shape: InputShape = None,
    preprocess: Preprocess = None,
    mean: Mean = None,
    std: Std = None,
    torchscript: Annotated[
        str,
        typer.Option(
            help="auto traces, and scripts where tracing would lose control flow; or trace, script."
        ),
    ] = "auto",
    trust: Trust = False,
    allow_synthetic: Annotated[
        bool, typer.Option("--allow-synthetic", help="Let int8 calibrated without real inputs be chosen.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export in OUT.")] = False,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Only build. Nothing passes, so nothing is chosen (exit 6).")
    ] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Neither read nor write the build cache.")
    ] = False,
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs", "-j", min=0, help="Worker processes. As many as cores, at most 4, when left out."
        ),
    ] = 0,
    threads: Annotated[
        int,
        typer.Option(min=0, help="Runtime threads when timing. As many as cores, at most 4, when left out."),
    ] = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Export CKPT for a target: build, verify, time, choose, report.

    Exit codes: 0 something was chosen, 2 usage, 3 unreadable checkpoint, 4 unknown network, 5 it does not
    run, 6 nothing passed, 7 a --require did not pass, 8 OUT cannot be written, 11 unusable calibration data,
    130 interrupted.
    """
    request = Request(
        **_model_fields(checkpoint, trust, arch, arch_arg, input_shape, preprocess, mean, std),
        calibration=calibration,
        samples=samples,
        torchscript=options.one_of("--torchscript", torchscript, ("auto", "trace", "script")),
        target=target,
        out=out,
        formats=options.names(formats),
        precisions=options.names(precisions),
        limits=options.limits(limits),
        budget_ms=budget,
        allow_synthetic=allow_synthetic,
        verify=not no_verify,
        cache=not no_cache,
        force=force,
        jobs=jobs,
        threads=threads,
    )
    _export(request, options.names(require), as_json)


def _export(request: Request, require: Sequence[str], as_json: bool) -> None:
    from exporter import pipeline
    from exporter.report import manifest, terminal

    pipeline.check_required(request, require)
    with _progress(as_json) as observer:
        report = pipeline.run(request, observer)
    if as_json:
        typer.echo(manifest.dump(report))
    else:
        terminal.print_report(report, _console())
        _console().print(f"[dim]Everything is in[/dim] {request.destination}", highlight=False)
    _refuse_unshippable(report, require)


def _refuse_unshippable(report: Report, require: Sequence[str]) -> None:
    for name in require:
        matching = [
            a for a in report.artifacts if name in (a.variant.format, a.variant.precision, a.variant.name)
        ]
        if not any(a.status == "passed" for a in matching):
            found = ", ".join(f"{a.variant.name} {a.status}" for a in matching)
            raise RequirementError(f"--require {name}: none passed ({found}).", "The report says why.")
    if report.selected is None:
        raise NothingPassedError(f"Nothing may be shipped. {report.selection_reason}")


@app.command()
def inspect(
    checkpoint: Checkpoint,
    arch: Arch = None,
    arch_arg: ArchArg = None,
    input_shape: InputShape = None,
    preprocess: Preprocess = None,
    mean: Mean = None,
    std: Std = None,
    trust: Trust = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what is in CKPT: its contents, which network, how that was inferred, parameters, FLOPs, inputs."""
    from exporter import inspection
    from exporter.report import listings

    fields = _model_fields(checkpoint, trust, arch, arch_arg, input_shape, preprocess, mean, std)
    found = inspection.inspect_checkpoint(ModelRequest(**fields))
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
    else:
        listings.print_inspection(found, _console())
    if found.architecture is None:
        raise ArchitectureError("No known network fits the weights.", "Name it with --arch.")


@app.command()
def verify(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that an export made.")],
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=0, help="Worker processes.")] = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check OUT again from its files alone: every hash, then every artifact in its runtime. Exit 9 if not."""
    from exporter import audit, pipeline
    from exporter.report import listings

    with _progress(as_json) as observer:
        found = audit.verify_export(out, jobs or pipeline.worker_count(), observer)
    if as_json:
        typer.echo(json.dumps({"holds": found.holds} | asdict(found), indent=2))
    else:
        listings.print_audit(found, _console())
    if not found.holds:
        raise VerificationError(f"{out} does not hold what its manifest claims.", "Export it again.")


@app.command()
def targets(as_json: Json = False, debug: Debug = False) -> None:
    """List the phones: cores, instruction sets, GPU, NPU, what they run, and why not the rest."""
    from exporter.report import listings
    from exporter.targets import TARGETS

    if as_json:
        typer.echo(json.dumps({target.name: asdict(target) for target in TARGETS}, indent=2))
    else:
        listings.print_targets(TARGETS, _console())


@app.command()
def doctor(as_json: Json = False, debug: Debug = False) -> None:
    """Say what is installed, which runtimes execute here, what is missing and the command that fixes it."""
    from exporter import doctor as examination
    from exporter.report import listings

    findings = examination.examine()
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        listings.print_doctor(findings, _console())
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


def _model_fields(
    checkpoint: Path,
    trust: bool,
    arch: str | None,
    arch_arg: list[str] | None,
    input_shape: list[str] | None,
    preprocess: str | None,
    mean: str | None,
    std: str | None,
) -> dict[str, Any]:
    return {
        "checkpoint": checkpoint,
        "trust": trust,
        "arch": arch,
        "arch_args": options.pairs("--arch-arg", arch_arg or []),
        "input_shapes": options.shapes(input_shape or []),
        "preprocess": preprocess,
        "mean": options.numbers("--mean", mean),
        "std": options.numbers("--std", std),
    }


def _console() -> Any:
    from rich.console import Console

    return Console()


def _progress(quiet: bool) -> Any:
    from exporter.report import progress

    return progress.watch(quiet)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: one message and the right exit code, a traceback only with --debug."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=given, prog_name="export-mobile")
    except ExportError as error:
        if "--debug" in given:
            raise
        _complain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("Interrupted; nothing was left behind.", err=True)
        sys.exit(INTERRUPTED_EXIT_CODE)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        if "--debug" in given:
            raise
        unexpected = ExportError(f"Unexpected {type(error).__name__}: {error}.", "--debug shows where.")
        _complain(unexpected)
        sys.exit(unexpected.exit_code)


def _complain(error: ExportError) -> None:
    typer.secho(f"export-mobile: {error.message}", fg="red", err=True)
    if error.hint:
        typer.echo(error.hint, err=True)


if __name__ == "__main__":
    main()
