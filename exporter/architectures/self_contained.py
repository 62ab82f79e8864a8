"""Build from checkpoints that hold their own network: TorchScript, `torch.export`, pickled modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.architectures import network_index, torchvision
from exporter.architectures.built_network import Built, Photo
from exporter.architectures.weight_readings import Weights
from exporter.records import Checkpoint

if TYPE_CHECKING:
    import torch


def build_self_contained(checkpoint: Checkpoint) -> Built:
    """Use the module that the checkpoint holds, unchanged.

    Where its tensors are a known network's, the photo it takes is known too.
    """
    module = checkpoint.module
    assert module is not None
    name = self_contained_name(checkpoint.kind, module)
    notes: tuple[str, ...] = (f"the file holds its own network ({name}), which is used unchanged",)
    match = network_index.identify_in_network_index(self_contained_shapes(module))
    if match is None:
        return Built(module, name, notes)
    entry, comparison = match
    notes += (f"its {len(comparison.shapes)} tensors are those of {entry.title}, so its photos are known",)
    photo: Photo = torchvision.torchvision_photo(entry, comparison.bindings, checkpoint.sha256)
    return Built(module, name, notes, photo, torchvision.torchvision_labels(entry, comparison.bindings))


def self_contained_name(kind: str, module: torch.nn.Module) -> str:
    """Name a network without a name of its own: "torchscript", "torch.export" or "pickled/<its class>"."""
    if kind == "torchscript":
        return "torchscript"
    if kind == "exported_program":
        return "torch.export"
    return f"pickled/{type(module).__module__}.{type(module).__qualname__}"


def self_contained_weights(module: torch.nn.Module) -> Weights:
    """Take the tensors of a module's state_dict; what else layers save there is left out."""
    import torch

    state = module.state_dict()
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    return Weights(tensors, getattr(state, "_metadata", None))


def self_contained_shapes(module: torch.nn.Module) -> dict[str, network_index.Shape]:
    """Return name -> shape of a module's tensors."""
    return self_contained_weights(module).shapes
