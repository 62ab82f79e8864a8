"""The command `export-mobile CKPT --target T`."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from exporter.checkpoints import checkpoint_folder
from exporter.cli.app import DEFAULT_COMMAND, Debug, Json, app
from exporter.cli.device import Device, run_bench
from exporter.cli.export_report import print_export_report
from exporter.cli.model_options import model_command
from exporter.config import options
from exporter.config.request import ModelRequest, Request
from exporter.errors import UsageError
from exporter.records import TaskName

CARD_SUFFIX = ".toml"
RENAMED = "--calibration-curve is now --calibration-sweep; the old name goes with the next version."
PIXELS: tuple[Literal["rgb", "rgba"], ...] = ("rgb", "rgba")
OPTION_OF = {
    "arch_args": "arch_arg",
    "budget_ms": "budget",
    "cache": "no_cache",
    "ignore_keys": "ignore_key",
    "input_values": "input_value",
    "input_shapes": "input_shape",
    "memory_gib": "memory",
    "verify": "no_verify",
}
"""Field of a request -> the option that sets it, where their names differ."""


@app.command(DEFAULT_COMMAND)
@model_command
def export_command(
    context: typer.Context,
    *,
    target: Annotated[
        str, typer.Option("--target", "-t", help="The phone to export for; export-mobile targets lists them.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the result; CKPT-TARGET when left out.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Folder of photos, or .npz of arrays. Half of the scenes calibrate int8, the others verify "
            "(with --search, some choose). Near-duplicates, crops and frames of one film are one scene."
        ),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            "--eval",
            help="Labelled data: photos in a folder per class; COCO or YOLO boxes, masks, keypoints, tables "
            "of text or numbers, target images; or .npz with labels. Enables --max-drop.",
        ),
    ] = None,
    max_drop: Annotated[
        float,
        typer.Option(
            min=0,
            max=100,
            help="Points of top-1, or of the task's own measure (dB of PSNR), that an artifact may lose on "
            "--eval; 0 allows no loss.",
        ),
    ] = 1.0,
    search: Annotated[
        bool,
        typer.Option(
            "--search",
            help="Search for mixed precision: keep the cheapest operators in float until --min-sqnr is met.",
        ),
    ] = False,
    min_sqnr: Annotated[
        float,
        typer.Option(min=0, max=200, help="SQNR in dB that --search must reach on the scenes it chooses by."),
    ] = 24.0,
    time_limit: Annotated[
        float,
        typer.Option(
            min=0, help="Seconds after which --search builds no more candidates; a second run continues."
        ),
    ] = 600.0,
    calibration_sweep: Annotated[
        bool,
        typer.Option(
            "--calibration-sweep",
            help="Also measure int8 with 1, 2, 4, … calibration inputs, to see how many are enough.",
        ),
    ] = False,
    calibration_curve: Annotated[bool, typer.Option("--calibration-curve", hidden=True)] = False,
    samples: Annotated[
        int, typer.Option(min=1, help="Number of calibration inputs, and of verification inputs.")
    ] = 64,
    formats: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help="Formats to emit: executorch, torchscript, onnx, coreml, coreai, onnx-qnn; `default` "
            "stands for the target's, which are made when left out.",
        ),
    ] = "",
    precisions: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help="Precisions to emit: fp32, fp16, int8, mixed, w8, w4. The target's when left out.",
        ),
    ] = "",
    require: Annotated[
        str, typer.Option(metavar="A,B", help="Formats, precisions or artifacts that must pass (exit 7).")
    ] = "",
    task: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The model's task, whose measure every artifact must then meet: boxes, masks, keypoints, "
            "images, embeddings, sequences, regression.",
        ),
    ] = "",
    limits: Annotated[
        str, typer.Option(metavar="K=V,…", help="Change verification limits, such as int8_min_sqnr_db=15.")
    ] = "",
    budget: Annotated[float, typer.Option(min=0.001, help="Latency budget on the device in ms.")] = 15.0,
    model: ModelRequest,
    torchscript: Annotated[
        str,
        typer.Option(
            help="How TorchScript is made: auto, trace or script. auto traces, and scripts where tracing "
            "would lose control flow."
        ),
    ] = "auto",
    state: Annotated[
        str,
        typer.Option(
            help="Where buffers that forward changes are: kept in the file, or explicit as further inputs "
            "and outputs."
        ),
    ] = "kept",
    dynamic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHAPE",
            help="Shape of an input with ranges of sizes: x=1x3x{224..640:32}x{224..640:32}, or "
            "ids={batch=1..4}x{length=8..128}:int64; once per input. Calibrated and timed at --input-shape, "
            "or at the largest sizes. Listed sizes (1x3x{side=224,320}x{side}) are each exported for itself.",
        ),
    ] = None,
    embed_preprocessing: Annotated[
        bool,
        typer.Option(
            "--embed-preprocessing",
            help="Normalise pixels within the artifacts, which then take a photo's bytes: uint8 "
            "[N, height, width, channels]. The app resizes and crops, unless --photo-sizes is given.",
        ),
    ] = False,
    pixels: Annotated[
        str,
        typer.Option(
            help="The bytes that --embed-preprocessing takes: rgb, or rgba, whose alpha is ignored."
        ),
    ] = "rgb",
    photo_sizes: Annotated[
        str,
        typer.Option(
            metavar="LOW..HIGH",
            help="With --embed-preprocessing: also resize and crop within the artifacts, which then take "
            "whole photos of any height and width from LOW to HIGH. Left out, the app does.",
        ),
    ] = "",
    image_input: Annotated[
        bool,
        typer.Option(
            "--image-input",
            help="Give Core ML packages a picture as their input, and fold the preprocessing into them.",
        ),
    ] = False,
    allow_inconclusive: Annotated[
        bool,
        typer.Option(
            "--allow-inconclusive",
            help="Allow an artifact to be chosen although too few scenes prove it.",
        ),
    ] = False,
    allow_synthetic: Annotated[
        bool,
        typer.Option(
            "--allow-synthetic", help="Allow int8 that was calibrated on synthetic inputs to be chosen."
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export in OUT.")] = False,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Only build. Nothing passes and nothing is chosen (exit 6).")
    ] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Neither read nor write the build cache.")
    ] = False,
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs", "-j", min=0, help="Worker processes; 0 chooses by cores and memory, at most 4."
        ),
    ] = 0,
    memory: Annotated[
        float,
        typer.Option(
            "--memory",
            min=0,
            help="GiB of memory that all processes may take together; 0 takes what is free. A model that "
            "needs more is refused at once.",
        ),
    ] = 0,
    threads: Annotated[
        int,
        typer.Option(min=0, help="Runtime threads when timing; 0 uses one per core, at most 4."),
    ] = 0,
    estimate: Annotated[
        bool | None,
        typer.Option(
            "--estimate/--no-estimate",
            help="Estimate latencies on the phone's CPU, and choose by them. Done for a Snapdragon when left "
            "out; instructions are counted where the command estimate has prepared that.",
        ),
    ] = None,
    bench: Annotated[
        bool,
        typer.Option(
            "--bench", help="Then measure the chosen artifact on a phone; the exit code is that of bench."
        ),
    ] = False,
    device: Device = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Export CKPT for a target: build, verify, time, choose, report.

    CKPT may also be a model card (a .toml, see models/); options on the command line override it.

    Exit codes: 0 something was chosen, 2 usage, 3 unreadable checkpoint, 4 unknown network, 5 the network
    does not run, 6 nothing passed, 7 a --require did not pass, 8 OUT cannot be written, 11 unusable
    calibration or labelled data, 18 too few scenes to prove an artifact, 130 interrupted.
    """
    model = replace(
        model,
        dynamic=options.parse_dynamic_options(dynamic or []),
        calibration=calibration,
        samples=samples,
        torchscript=options.parse_choice_option("--torchscript", torchscript, ("auto", "trace", "script")),
        state=options.parse_choice_option("--state", state, ("kept", "explicit")),
        embed_preprocessing=_export_option_of_embedded_pixels(embed_preprocessing, pixels),
        photo_sizes=options.parse_photo_sizes_option(photo_sizes),
        image_input=image_input,
    )
    request = Request(
        **vars(model),
        target=target,
        out=out,
        formats=options.parse_names_option(formats),
        precisions=options.parse_names_option(precisions),
        limits=options.parse_limits_option(limits),
        task=options.parse_choice_option("--task", task, get_args(TaskName)),
        budget_ms=budget,
        evaluation=evaluation,
        max_drop=max_drop,
        search=search,
        min_sqnr_db=min_sqnr,
        time_limit_s=time_limit,
        calibration_sweep=calibration_sweep or calibration_curve,
        allow_synthetic=allow_synthetic,
        allow_inconclusive=allow_inconclusive,
        verify=not no_verify,
        cache=not no_cache,
        force=force,
        jobs=jobs,
        memory_gib=memory,
        threads=threads,
        estimate=estimate,
    )
    if calibration_curve:
        typer.echo(RENAMED, err=True)
    required = options.parse_names_option(require)
    if model.checkpoint.suffix == CARD_SUFFIX:
        from exporter.config import cards

        card = cards.load_card(model.checkpoint)
        request = cards.merge_card_with_options(card, request, _given_export_fields(context))
        required = required or card.require
    request = replace(request, checkpoint=checkpoint_folder.find_checkpoint_folder(request.checkpoint))
    _check_export_options(context, request, bench)
    print_export_report(request, required, as_json, last=not bench)
    if bench:
        run_bench(request.destination, tuple(device or ()), None, False, budget, {}, as_json)


def _export_option_of_embedded_pixels(embedded: bool, pixels: str) -> Literal["", "rgb", "rgba"]:
    bytes_taken = options.parse_choice_option("--pixels", pixels, PIXELS)
    return bytes_taken if embedded else ""


def _check_export_options(context: typer.Context, request: Request, bench: bool) -> None:
    """Refuse an option that has no effect without another."""
    for option, words, partner, is_there in (
        ("device", "chooses the phone for", "--bench", bench),
        ("min_sqnr", "is a limit of", "--search", request.search),
        ("time_limit", "is a limit of", "--search", request.search),
        ("max_drop", "is a limit of", "--eval", request.evaluation is not None),
        ("pixels", "is the input of", "--embed-preprocessing", bool(request.embed_preprocessing)),
        ("photo_sizes", "are inputs of", "--embed-preprocessing", bool(request.embed_preprocessing)),
    ):
        if _is_export_option_given(context, option) and not is_there:
            name = f"--{option.replace('_', '-')}"
            raise UsageError(f"{name} {words} {partner}, which is not given.", "Give both, or neither.")


def _given_export_fields(context: typer.Context) -> set[str]:
    """Return the fields of `Request` whose option was given on the command line."""
    names = (field.name for field in fields(Request))
    return {name for name in names if _is_export_option_given(context, OPTION_OF.get(name, name))}


def _is_export_option_given(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name != "DEFAULT"
