"""Turn weights into a network that runs: identify it, build it, and settle its inputs.

torchvision's networks are found by their tensors' names and shapes; a folder's settings name its network. To
add a family, write a module with functions like `infer_torchvision` and `torchvision_by_name`, and let
`_network_of_architecture` try it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from exporter.architectures import (
    factory,
    huggingface,
    network_inputs,
    packaged_networks,
    pickled_detectors,
    preprocessing,
    self_contained,
    timm_networks,
    torchvision,
    torchvision_detectors,
    torchvision_identification,
    ultralytics_networks,
    weight_readings,
)
from exporter.architectures import input_values as input_values_of_network
from exporter.architectures.built_network import Built, literals_of_built_network
from exporter.architectures.weight_readings import Weights
from exporter.errors import UsageError
from exporter.records import Checkpoint, Model, Preprocessing, TensorSpec

if TYPE_CHECKING:
    import torch


def build_architecture(
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
    ignore_keys: tuple[str, ...] = (),
    input_values: Mapping[str, str] = MappingProxyType({}),
    weights_from_arch: bool = False,
    part: str = "",
    trust: bool = False,
    rows: Path | None = None,
) -> Model:
    """Make the network that a checkpoint belongs to, with its weights.

    Args:
        checkpoint: The checkpoint that was read.
        arch: "torchvision/resnet18", "transformers/BertModel" or "mypkg.nets:make_net"; None infers it from
            the settings beside the tensors, or from the tensors.
        arch_args: Arguments of the builder or function as text, parsed as Python literals where possible.
        input_shapes: Override the inputs; an empty name is matched by position.
        preprocess: "imagenet", "unit" (0..1), "symmetric" (-1..1) or "bytes" (0..255).
        mean: One value per channel, or one for all, in the units of `preprocess`.
        std: Standard deviations, given like `mean`.
        whole: The whole preprocessing, which replaces the three before.
        labels: Labels of the classes, which replace the known ones.
        ignore_keys: Patterns of tensors in the file to leave out, such as `head.*`.
        input_values: Values of inputs that are no tensors, as text, parsed as Python literals where possible.
        weights_from_arch: Keep the weights that `arch`'s function creates where the file has none.
        part: The part of a network of several to export: encoder, decoder, text, vision, detector, masks, …
        trust: Whether code in the checkpoint's folder may run.
        rows: A `.npz` of calibration rows, which have the inputs' shapes where nothing else says them.

    Returns:
        The network in eval mode, float32, on the CPU, without gradients; how it was inferred is in `notes`.

    Raises:
        ArchitectureError: No known network fits, or the named one does not.
        UsageError: An argument cannot be used.
    """
    if huggingface.is_built_by_huggingface(checkpoint, arch):
        built = _pretrained_architecture(
            checkpoint, arch, arch_args, input_shapes, ignore_keys, weights_from_arch, part, trust
        )
    elif arch is None and not part and ultralytics_networks.is_ultralytics_network(checkpoint):
        if arch_args or weights_from_arch:
            option = "--arch-arg" if arch_args else "--weights-from-arch"
            raise UsageError(f"{option} has no effect: the file says how its network is made.")
        readings = _architecture_readings(checkpoint, ignore_keys)
        built = ultralytics_networks.build_ultralytics_network(checkpoint, readings, input_shapes)
    else:
        size = _architecture_size(input_shapes)
        built = _network_of_architecture(
            checkpoint, arch, arch_args, size, ignore_keys, weights_from_arch, part
        )
    _check_asked_part(built, part, input_shapes)
    if input_values:
        module = input_values_of_network.with_input_values(
            built.module, literals_of_built_network(input_values)
        )
        fixed = ", ".join(f"{name}={value}" for name, value in input_values.items())
        built = replace(built, module=module, notes=(*built.notes, f"constants, as asked: {fixed}"))
    module = _ready_architecture(built.module)
    if any("." in spec.name for spec in input_shapes):
        from exporter.architectures.dictionary_inputs import with_dictionary_inputs

        module, input_shapes = with_dictionary_inputs(module, input_shapes)
    shapes = input_shapes or (() if rows else built.usual_inputs)
    specs = built.inputs or network_inputs.resolve_network_inputs(
        module, built.photo, checkpoint.example, shapes, rows
    )
    wishes = preprocessing.PreprocessingWishes(preprocess, mean, std, whole)
    pictures = built.earlier.inputs if built.earlier else specs
    prepared, notes = preprocessing.resolve_preprocessing(built.photo, pictures, wishes)
    return Model(
        module=module,
        architecture=built.architecture,
        inputs=specs,
        preprocessing=None if built.earlier else prepared,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        notes=built.notes + notes,
        labels=labels or built.labels,
        warnings=built.warnings,
        codes=built.codes,
        reader=built.reader,
        earlier=replace(built.earlier, preprocessing=prepared) if built.earlier else None,
    )


def _check_asked_part(built: Built, part: str, input_shapes: tuple[TensorSpec, ...]) -> None:
    """Refuse a part of a network that has none, and other shapes than a photo's for what a detector gives.

    Raises:
        UsageError: An option cannot be used.
    """
    if part and not built.architecture.endswith(f":{part}"):
        raise UsageError(
            f"--part {part}: {built.architecture} is one network, without parts. Networks of transformers "
            "have them, from a folder with a config.json, and torchvision's Mask and Keypoint R-CNN.",
            "Leave --part out.",
        )
    if built.earlier and input_shapes and _architecture_size(input_shapes) is None:
        raise UsageError(
            f"--input-shape is the photo's for --part {part}: its inputs follow from that.",
            "Give --input-shape 1x3x320x320; --arch-arg box_detections_per_img=20 sets the number of boxes.",
            code="EM-INPUT-SHAPE",
        )


def _pretrained_architecture(
    checkpoint: Checkpoint,
    arch: str | None,
    arch_args: Mapping[str, str],
    input_shapes: tuple[TensorSpec, ...],
    ignore_keys: tuple[str, ...],
    weights_from_arch: bool,
    part: str,
    trust: bool,
) -> Built:
    if arch_args or weights_from_arch:
        option = "--arch-arg" if arch_args else "--weights-from-arch"
        raise UsageError(f"{option} has no effect: the folder's config.json says how the network is made.")
    return huggingface.build_huggingface(
        checkpoint,
        _architecture_readings(checkpoint, ignore_keys)[0],
        wanted=(arch or "").removeprefix(huggingface.PREFIX),
        part=part,
        asked=input_shapes,
        trust=trust,
    )


def _network_of_architecture(
    checkpoint: Checkpoint,
    arch: str | None,
    arch_args: Mapping[str, str],
    size: tuple[int, int] | None,
    ignore_keys: tuple[str, ...],
    weights_from_arch: bool,
    part: str,
) -> Built:
    arguments = literals_of_built_network(arch_args)
    if weights_from_arch and (arch is None or arch.startswith((torchvision.PREFIX, timm_networks.PREFIX))):
        raise UsageError(
            "--weights-from-arch needs a function that makes the weights.",
            "Name it: --arch mypkg.nets:make_net.",
        )
    if arch is None and checkpoint.module is not None:
        if arguments or ignore_keys:
            option = "--arch-arg" if arguments else "--ignore-key"
            raise UsageError(f"{option} has no effect: the checkpoint brings its own network.")
        title = self_contained.self_contained_name(checkpoint.kind, checkpoint.module)
        detector = pickled_detectors.pickled_detector(checkpoint.module, title, size, part)
        return detector or self_contained.build_self_contained(checkpoint)
    readings = _architecture_readings(checkpoint, ignore_keys)
    said = timm_networks.find_stated_timm_network(checkpoint)
    if arch is None and said is not None:
        return timm_networks.timm_network_by_name(said.name, readings, checkpoint, arguments, said)
    if arch is not None and arch.startswith(timm_networks.PREFIX):
        name = arch.removeprefix(timm_networks.PREFIX)
        return timm_networks.timm_network_by_name(name, readings, checkpoint, arguments)
    is_named = arch is not None and arch.startswith(torchvision.PREFIX)
    if (arch is None or is_named) and torchvision_detectors.is_torchvision_detector(readings):
        name = (arch or "").removeprefix(torchvision.PREFIX)
        built = torchvision_detectors.torchvision_detector(
            readings, checkpoint.sha256, size, name, arguments, part, checkpoint.stated_networks
        )
        if built is not None:
            return built
    if arch is None:
        packaged = None
        if torchvision_identification.identify_torchvision(readings) is None:
            packaged = packaged_networks.infer_packaged_network(readings, checkpoint, arguments)
        return packaged or torchvision.infer_torchvision(readings, checkpoint, arguments, size)
    if arch.startswith(torchvision.PREFIX):
        name = arch.removeprefix(torchvision.PREFIX)
        return torchvision.torchvision_by_name(name, readings, checkpoint.sha256, arguments, size)
    return factory.build_by_factory(arch, readings, arguments, weights_from_arch)


def _architecture_readings(checkpoint: Checkpoint, ignore_keys: tuple[str, ...]) -> tuple[Weights, ...]:
    if checkpoint.module is None:
        return weight_readings.weight_readings(checkpoint, ignore_keys)
    own = self_contained.self_contained_weights(checkpoint.module)
    held = replace(checkpoint, tensors=own.tensors, module=None, layer_versions=own.layer_versions)
    return weight_readings.weight_readings(held, ignore_keys)


def _architecture_size(input_shapes: tuple[TensorSpec, ...]) -> tuple[int, int] | None:
    if len(input_shapes) == 1 and len(input_shapes[0].shape) == 4:
        return input_shapes[0].shape[2], input_shapes[0].shape[3]
    return None


def _ready_architecture(module: torch.nn.Module) -> torch.nn.Module:
    # A graph from torch.export has its mode traced into it, and refuses to be asked for another.
    with contextlib.suppress(NotImplementedError):
        module.eval()
    for parameter in module.float().cpu().parameters():
        parameter.requires_grad_(False)
    _lay_architecture_out_plainly(module)
    return module


def _lay_architecture_out_plainly(module: torch.nn.Module) -> None:
    """Lay every tensor out in C order: a network kept in channels_last cannot be lowered to ExecuTorch."""
    import torch

    if isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule):
        return
    for tensor in (*module.parameters(), *module.buffers()):
        plain = torch.empty(tensor.shape, dtype=tensor.dtype)
        # A size of 1 hides its stride from is_contiguous.
        if not tensor.is_sparse and tensor.stride() != plain.stride():
            tensor.data = plain.copy_(tensor)
