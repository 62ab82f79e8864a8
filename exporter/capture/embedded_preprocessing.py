"""Puts the normalisation of pixels into the network: `--embed-preprocessing`.

The artifact takes a photo's bytes, resized and cropped by the app, or of any size (`--photo-sizes`). The
network with what is done before it is the reference. In the program that is lowered, the first convolution
normalises where that is exact.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from exporter.capture.photo_resize import PhotoResize
from exporter.errors import UsageError
from exporter.records import Model, Preprocessing, TensorSpec

CONVOLUTIONS = (torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding)


def embed_preprocessing(
    model: Model, pixels: Literal["rgb", "rgba"], photo_sizes: tuple[int, int] | None = None
) -> Model:
    """Return the model with the normalisation before it, whose input is a photo's bytes.

    Args:
        model: A network that takes one photo; it is not changed.
        pixels: The bytes of a photo in colours; a grey one has one byte a pixel.
        photo_sizes: The least and the greatest side of photos that are resized and cropped, too; None: the
            app does that.

    Raises:
        UsageError: The network takes no photo whose preprocessing is known, rgba is asked for a grey one, or
            its photos cannot be resized here.
    """
    how = model.preprocessing
    if how is None or len(model.inputs) != 1:
        raise UsageError(
            f"--embed-preprocessing is for networks that take one photo; {model.architecture} takes "
            f"{', '.join(f'{spec.name} {list(spec.shape)}' for spec in model.inputs)}, "
            "and its preprocessing is not known.",
            "Give --preprocess, or --mean and --std, where the input is a photo.",
            code="EM-EMBED-PREPROCESSING",
        )
    (spec,) = model.inputs
    if spec.shape[1] == 1 and pixels == "rgba":
        raise UsageError(
            "--pixels is rgba, but the network takes grey photos.",
            "Leave --pixels out: one byte a pixel is taken.",
            code="EM-EMBED-PREPROCESSING",
        )
    how = replace(how, pixels="gray" if spec.shape[1] == 1 else pixels, photo_sizes=photo_sizes)
    batch = spec.shape[0]
    if photo_sizes and (batch != 1 or how.crop != spec.shape[2:]):
        raise UsageError(
            f"--photo-sizes is for one photo a call, cropped to {how.crop[0]}x{how.crop[1]}; the network "
            f"takes {list(spec.shape)}.",
            "Leave it out: the app resizes.",
            code="EM-EMBED-PREPROCESSING",
        )
    height, width = how.taken.crop if photo_sizes else spec.shape[2:]
    taken = TensorSpec(spec.name, (batch, height, width, 4 if pixels == "rgba" else spec.shape[1]), "uint8")
    sides = "x".join([f"{photo_sizes[0]}..{photo_sizes[1]}"] * 2) if photo_sizes else f"{height}x{width}"
    note = (
        f"{taken.name} is uint8 {batch}x{sides}x{taken.shape[3]}, the {how.pixels} bytes of a photo: the "
        f"artifacts {'resize, crop and ' if photo_sizes else ''}normalise them"
    )
    return replace(
        model,
        module=EmbeddedPreprocessing(model.module, how).eval(),
        inputs=(taken,),
        preprocessing=how,
        notes=(*model.notes, note),
    )


class EmbeddedPreprocessing(nn.Module):
    """Normalises a photo's bytes, [N, height, width, channels], and calls another module with the planes.

    Where `how` has `photo_sizes`, it resizes and crops the photo before.
    """

    def __init__(self, wrapped: nn.Module, how: Preprocessing) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.colours = how.colours
        self.scale = how.scale
        self.photo_sizes = how.photo_sizes or (0, 0)
        self.resize = PhotoResize(how) if how.photo_sizes else None
        self.steps = "normalise"
        """This is "shift" where only the mean, in bytes, is subtracted, and "none" where a layer does all."""
        self.register_buffer("mean", torch.tensor(how.mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(how.std).reshape(1, -1, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, pixels: Tensor) -> Tensor:
        colours = pixels[:, :, :, : self.colours]
        if self.resize is not None:
            return self.normalise_and_call(self.resize(colours.to(self.mean.dtype)))
        return self.normalise_and_call(
            colours.permute(0, 3, 1, 2).to(self.mean.dtype, memory_format=torch.contiguous_format)
        )

    def normalise_and_call(self, planes: Tensor) -> Tensor:
        """Return the wrapped module's output for planes [N, colours, height, width] of 0 to 255."""
        if self.steps == "normalise":
            planes = (planes / 255.0 * self.scale - self.mean) / self.std
        elif self.steps == "shift":
            planes = planes - self.mean
        output: Tensor = self.wrapped(planes)
        return output


def embedded_preprocessing_of(module: nn.Module) -> EmbeddedPreprocessing | None:
    """Return the normalisation within a module; None without one."""
    return next((part for part in module.modules() if isinstance(part, EmbeddedPreprocessing)), None)


def fold_embedded_preprocessing(
    module: nn.Module, program: torch.export.ExportedProgram | None
) -> tuple[nn.Module, str]:
    """Fold the normalisation into the convolution that alone reads the planes.

    The division by `std` is a factor of each input channel of the weight. The mean is a part of the bias, but
    only where no zeros are padded: to the network, a padded zero is a pixel of the mean's colour.

    Args:
        module: `EmbeddedPreprocessing`, perhaps within other modules; it is not changed.
        program: The module's graph.

    Returns:
        The folded copy and a note, or the module itself and an empty text.
    """
    place = place_of_embedded_preprocessing(module)
    name = _first_layer_to_embed_in(module, program, place) if program and place is not None else ""
    if not name or place is None:
        return module, ""
    folded = copy.deepcopy(module)
    embedded = folded.get_submodule(place)
    assert isinstance(embedded, EmbeddedPreprocessing)
    _fold_embedded_preprocessing_into_layer(embedded, folded.get_submodule(name))
    layer = name.partition("wrapped.")[2]
    if embedded.steps == "none":
        return folded, f"the normalisation is folded into the first convolution ({layer})"
    return folded, (
        f"the factors of the normalisation are folded into the first convolution ({layer}); the mean is "
        "subtracted before, as the convolution pads with zeros"
    )


def place_of_embedded_preprocessing(module: nn.Module) -> str | None:
    """Return the path of the normalisation within the module, "" for the module itself; None without one."""
    places = (name for name, part in module.named_modules() if isinstance(part, EmbeddedPreprocessing))
    return next(places, None)


def _first_layer_to_embed_in(module: nn.Module, program: torch.export.ExportedProgram, place: str) -> str:
    """Return the path of the plain convolution that alone reads what was divided by `std`; "" without one."""
    signature = program.graph_signature
    parameters: dict[str, str] = dict(signature.inputs_to_parameters)
    nodes = {node.name: node for node in program.graph.nodes}
    own = f"{place}.std" if place else "std"
    stds = [name for name, path in signature.inputs_to_buffers.items() if path == own]
    for std in (nodes[name] for name in stds):
        readers = list(std.users)
        if len(readers) != 1 or len(readers[0].users) != 1:
            continue
        (layer,) = readers[0].users
        weight = layer.args[1] if layer.target in CONVOLUTIONS else None
        if not isinstance(weight, torch.fx.Node) or len(weight.users) != 1:
            continue
        path, _, attribute = parameters.get(weight.name, "").rpartition(".")
        owner = module.get_submodule(path)
        stored = attribute in owner._parameters  # and not computed by weight norm
        if attribute == "weight" and stored and type(owner) is nn.Conv2d and owner.groups == 1:
            return path
    return ""


def _fold_embedded_preprocessing_into_layer(embedded: EmbeddedPreprocessing, layer: nn.Module) -> None:
    """Change the weight, and where it is exact the bias; what is left to do becomes `steps`."""
    assert isinstance(layer, nn.Conv2d)
    weight, mean, std = (t.detach().double() for t in (layer.weight, embedded.mean, embedded.std))
    factor = embedded.scale / 255.0
    bias = (
        torch.zeros(len(weight), dtype=torch.float64) if layer.bias is None else layer.bias.detach().double()
    )
    layer.weight = nn.Parameter((weight * factor / std).float())
    if _embedded_layer_pads_zeros(layer) and bool(mean.any()):
        embedded.steps, embedded.mean = "shift", (mean / factor).float()
        return
    embedded.steps = "none"
    layer.bias = nn.Parameter((bias - (weight * mean / std).sum(dim=(1, 2, 3))).float())


def _embedded_layer_pads_zeros(layer: nn.Conv2d) -> bool:
    if layer.padding_mode != "zeros":
        return False  # what is padded are pixels of the photo
    padding: str | Sequence[int] = layer.padding
    if isinstance(padding, str):
        return padding == "same" and max(layer.kernel_size) > 1
    return any(padding)
