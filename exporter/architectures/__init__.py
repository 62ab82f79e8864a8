"""From weights to a network that runs: which it is, how it is built, what it takes.

Known networks are torchvision's, found by their tensors' names and shapes. To add a family, write a module
with `infer` and `by_name` like `torchvision`, and let `_network` try it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from exporter.architectures import factory, inputs, preprocessing, self_contained, torchvision
from exporter.architectures.built import Built, literals
from exporter.errors import UsageError
from exporter.records import Checkpoint, Model, Preprocessing, TensorSpec

if TYPE_CHECKING:
    import torch


def build(
    checkpoint: Checkpoint,
    *,
    arch: str | None = None,
    arch_args: Mapping[str, str] = MappingProxyType({}),
    input_shapes: tuple[TensorSpec, ...] = (),
    preprocess: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    whole: Preprocessing | None = None,
    labels: tuple[str, ...] = (),
) -> Model:
    """Make the network that a checkpoint belongs to, with its weights.

    Args:
        checkpoint: As read.
        arch: "torchvision/resnet18" or "mypkg.nets:make_net"; None infers it from the tensors.
        arch_args: Arguments of the builder or function, as text: Python literals where possible.
        input_shapes: Override the inputs; an empty name means by position.
        preprocess: "imagenet", "unit" (0..1), "symmetric" (-1..1) or "bytes" (0..255).
        mean: Per channel, or one value for all, in the units of `preprocess`.
        std: Like `mean`.
        whole: All of the preprocessing, in place of the three before.
        labels: Of the classes, in place of those that are known.

    Returns:
        The network in eval mode, float32, on the CPU, without gradients; how it was inferred is in `notes`.

    Raises:
        ArchitectureError: No known network fits, or the named one does not.
        UsageError: An argument cannot be used.
    """
    built = _network(checkpoint, arch, arch_args, _size(input_shapes))
    module = _ready(built.module)
    specs = inputs.resolve(module, built.photo, checkpoint.example, input_shapes)
    wishes = preprocessing.Wishes(preprocess, mean, std, whole)
    prepared, notes = preprocessing.resolve(built.photo, specs, wishes)
    return Model(
        module=module,
        architecture=built.architecture,
        inputs=specs,
        preprocessing=prepared,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        notes=built.notes + notes,
        labels=labels or built.labels,
    )


def _network(
    checkpoint: Checkpoint, arch: str | None, arch_args: Mapping[str, str], size: tuple[int, int] | None
) -> Built:
    arguments = literals(arch_args)
    if arch is None and checkpoint.module is not None:
        if arguments:
            raise UsageError("--arch-arg has no effect: the checkpoint brings its own network.")
        return self_contained.build(checkpoint)
    tensors = _tensors(checkpoint)
    if arch is None:
        return torchvision.infer(tensors, checkpoint.sha256, arguments, size)
    if arch.startswith(torchvision.PREFIX):
        name = arch.removeprefix(torchvision.PREFIX)
        return torchvision.by_name(name, tensors, checkpoint.sha256, arguments, size)
    return factory.build(arch, tensors, arguments)


def _tensors(checkpoint: Checkpoint) -> Mapping[str, torch.Tensor]:
    if checkpoint.tensors is not None:
        return checkpoint.tensors
    assert checkpoint.module is not None, "a checkpoint holds tensors or a module"
    return self_contained.tensors(checkpoint.module)


def _size(input_shapes: tuple[TensorSpec, ...]) -> tuple[int, int] | None:
    if len(input_shapes) == 1 and len(input_shapes[0].shape) == 4:
        return input_shapes[0].shape[2], input_shapes[0].shape[3]
    return None


def _ready(module: torch.nn.Module) -> torch.nn.Module:
    # A graph from torch.export has its mode traced into it, and refuses to be asked for another.
    with contextlib.suppress(NotImplementedError):
        module.eval()
    for parameter in module.float().cpu().parameters():
        parameter.requires_grad_(False)
    return module


__all__ = ["build"]
