"""The options that name a checkpoint and its network. `model_command` adds them to a command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exporter.cli.composed_options import compose_command
from exporter.config import options
from exporter.config.request import ModelRequest

Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CKPT",
        help="The trained checkpoint in any format, a folder of save_pretrained, or a model card (.toml).",
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Unpickle whole modules and run a folder's own code. This runs any code in CKPT.",
    ),
]
Base = Annotated[
    Path | None,
    typer.Option(help="CKPT is a LoRA adapter, and this its base network, into which it is merged."),
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
        help="Export only some parts (A,B) of a network: encoder, decoder, text, vision; detector, masks or "
        "keypoints; prefill, decode of a language model. All parts, verified together, when left out.",
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
        help="Shape of an input: 1x3x224x224, name=1x16:int64, or batch.image=1x3x8x8 within a dictionary; "
        "once per input, in order. "
        "Inferred when left out.",
    ),
]
InputValue = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Value of an input that is a number, a flag or a text, such as sr=16000; repeatable.",
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


def model_from_options(
    checkpoint: Checkpoint,
    base: Base = None,
    arch: Arch = None,
    arch_arg: ArchArg = None,
    part: Part = "",
    ignore_key: IgnoreKey = None,
    weights_from_arch: WeightsFromArch = False,
    expect: Expect = None,
    input_shape: InputShape = None,
    input_value: InputValue = None,
    preprocess: Preprocess = None,
    mean: Mean = None,
    std: Std = None,
    trust: Trust = False,
) -> ModelRequest:
    """Build the request for a model from the options.

    Raises:
        UsageError: A value cannot be read.
    """
    return ModelRequest(
        checkpoint=checkpoint,
        trust=trust,
        base=base,
        arch=arch,
        arch_args=options.parse_pairs_option("--arch-arg", arch_arg or []),
        part=part,
        ignore_keys=tuple(ignore_key or ()),
        weights_from_arch=weights_from_arch,
        expect=options.parse_pairs_option("--expect", expect or []),
        input_shapes=options.parse_shapes_option(input_shape or []),
        input_values=options.parse_pairs_option("--input-value", input_value or []),
        preprocess=preprocess,
        mean=options.parse_numbers_option("--mean", mean),
        std=options.parse_numbers_option("--std", std),
    )


model_command = compose_command("model", model_from_options)
"""Gives a command these options, and passes it the request as `model`."""
