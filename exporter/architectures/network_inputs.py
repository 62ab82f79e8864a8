"""Settle the names and shapes of a network's inputs."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.architectures.built_network import Photo
from exporter.architectures.row_inputs import infer_row_inputs
from exporter.errors import UsageError
from exporter.records import TensorSpec

if TYPE_CHECKING:
    import torch


def resolve_network_inputs(
    module: torch.nn.Module,
    photo: Photo | None,
    example: Sequence[torch.Tensor] | None,
    asked: tuple[TensorSpec, ...],
    rows: Path | None = None,
) -> tuple[TensorSpec, ...]:
    """Settle name, shape and dtype of every input, in forward's order.

    Args:
        module: Its forward gives the names; its `example_inputs`, a tuple of tensors, give the shapes if
            nothing else does.
        photo: The photo that a known architecture takes.
        example: Example inputs from the checkpoint: the shapes that a `torch.export` program insists on.
        asked: The user's shapes, which override all others; an empty name is matched by position.
        rows: A `.npz` of calibration rows, which have the shapes where nothing else says them.

    Raises:
        UsageError: The shapes are unknown, or those asked for do not fit this network.
    """
    names, required = forward_network_input_names(module)
    if asked:
        specs = _order_named_network_inputs(asked, names)
    elif photo and not example:
        specs = (TensorSpec("", (1, photo.channels, *photo.preprocessing.crop)),)
    else:
        given = example or _example_network_inputs(module)
        inferred = infer_row_inputs(module, rows, names, required) if rows and not given else ()
        specs = inferred or _network_inputs_from_example(given, names)
    _check_network_input_count(specs, names, required)
    if photo:
        _check_photo_network_input(specs, photo)
    return tuple(
        dataclasses.replace(spec, name=spec.name or name)
        for spec, name in zip(specs, _network_input_names(names, len(specs)), strict=True)
    )


def forward_network_input_names(module: torch.nn.Module) -> tuple[tuple[str, ...] | None, int]:
    """List the inputs of forward that can be given by position, and how many of them must be.

    Returns:
        None for the names where forward takes any number (`*args`) or cannot be asked.
    """
    import torch

    from exporter.architectures.dictionary_inputs import DictionaryInputs

    if isinstance(module, DictionaryInputs):
        return module.names, len(module.names)
    if isinstance(module, torch.jit.ScriptModule):
        script: Any = module
        arguments = script.forward.schema.arguments[1:]
        return tuple(a.name for a in arguments), sum(not a.has_default_value() for a in arguments)
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return None, 1
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in positional)
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None, required
    return tuple(p.name for p in positional), required


def _order_named_network_inputs(
    asked: tuple[TensorSpec, ...], names: tuple[str, ...] | None
) -> tuple[TensorSpec, ...]:
    """Put named shapes into forward's order."""
    for spec in asked:
        if not spec.shape or min(spec.shape) < 1:
            raise UsageError(
                f"--input-shape {list(spec.shape)} has no elements.",
                "Give sizes of 1 or more.",
                code="EM-INPUT-SHAPE",
            )
    named = [spec.name for spec in asked if spec.name]
    if not named or names is None:
        return asked
    strangers = [name for name in named if name not in names]
    if strangers or len(set(named)) < len(asked):
        given = ", ".join(spec.name or "(none)" for spec in asked)
        raise UsageError(
            f"--input-shape names {given}; the network's inputs are {', '.join(names)}.",
            "Name each input once, or none.",
            code="EM-INPUT-SHAPE",
        )
    return tuple(sorted(asked, key=lambda spec: names.index(spec.name)))


def _network_inputs_from_example(
    example: Sequence[torch.Tensor] | None, names: tuple[str, ...] | None
) -> tuple[TensorSpec, ...]:
    if not example:
        takes = f" It takes {', '.join(names)}." if names else ""
        raise UsageError(
            f"The network does not say what shape its input has.{takes}",
            "Give --input-shape once per input, in order: `--input-shape 1,3,224,224`, or rows that have the "
            "shapes: `--calibration rows.npz`, with an array per input under its name.",
            code="EM-INPUT-SHAPE",
        )
    return tuple(TensorSpec("", tuple(t.shape), str(t.dtype).removeprefix("torch.")) for t in example)


def _example_network_inputs(module: torch.nn.Module) -> Sequence[torch.Tensor] | None:
    import torch

    example: Any = getattr(module, "example_inputs", None)
    example = (example,) if isinstance(example, torch.Tensor) else example
    if isinstance(example, tuple | list) and all(isinstance(item, torch.Tensor) for item in example):
        return example
    return None


def _check_network_input_count(
    specs: tuple[TensorSpec, ...], names: tuple[str, ...] | None, required: int
) -> None:
    if required <= len(specs) and (names is None or len(specs) <= len(names)):
        return
    takes = f"({', '.join(names)})" if names is not None else f"{required} or more inputs"
    raise UsageError(
        f"The network's forward takes {takes}, and {len(specs)} input shape(s) are given.",
        "Give --input-shape once per input, in order; name.0=SHAPE, name.1=SHAPE for tensors within a tuple.",
        code="EM-INPUT-SHAPE",
    )


def _check_photo_network_input(specs: tuple[TensorSpec, ...], photo: Photo) -> None:
    shape = specs[0].shape
    side = photo.fixed_size
    height, width = (side, side) if side else ("height", "width")
    if (
        len(shape) == 4
        and shape[1] == photo.channels
        and side in (None, shape[2])
        and side in (None, shape[3])
    ):
        return
    needed = f"[1, {photo.channels}, {height}, {width}]"
    raise UsageError(
        f"--input-shape {list(shape)} does not fit the weights, which need {needed}.",
        "The position embedding fixes the size." if side else "",
        code="EM-INPUT-SHAPE",
    )


def _network_input_names(names: tuple[str, ...] | None, count: int) -> tuple[str, ...]:
    if names is not None:
        return names[:count]
    return ("input",) if count == 1 else tuple(f"input_{number}" for number in range(count))
