"""Chosen weights -> Checkpoint: the last step of every kind that holds a dictionary of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from exporter.checkpoints import (
    averaged_copy,
    checkpoint_contents,
    checkpoint_tensors,
    foreign_files,
    prefixes,
    stated_network,
)
from exporter.checkpoints.checkpoint_source import CheckpointSource
from exporter.checkpoints.choose_weights import ChosenWeights
from exporter.checkpoints.inert_values import AnyTensor, Opaque
from exporter.checkpoints.torchfile import PickledTorchfile
from exporter.errors import CheckpointError
from exporter.records import Checkpoint, Reading

if TYPE_CHECKING:
    import torch

ARGUMENTS = "args"
"""The entry of `Checkpoint.settings` with what the training program was called with."""


def checkpoint_of_weights(
    source: CheckpointSource,
    pickled: PickledTorchfile,
    kind: str,
    chosen: ChosenWeights,
    notes: tuple[str, ...],
    network: Reading | None = None,
) -> Checkpoint:
    """Read the numbers, and list what the tensors may be called.

    Args:
        source: The opened file.
        pickled: What it holds.
        kind: The checkpoint's kind, as reported.
        chosen: The weights to ship.
        notes: What was decided so far.
        network: The tensors that are the network's, where the file holds others beside them.

    Raises:
        CheckpointError: A tensor cannot be read, or is not finite.
    """
    if problem := foreign_files.foreign_file_of_deepspeed(
        pickled.root, [_checkpoint_weights_shape(ref) for ref in chosen.tensors.values()]
    ):
        raise CheckpointError(f"The file is {problem}.", foreign_files.ZERO_ADVICE)
    if foreign_files.is_foreign_file_of_deepspeed(pickled.root):
        notes = (*notes, foreign_files.ZERO_NOTE)
    loaded, converted = checkpoint_tensors.load_checkpoint_tensors(chosen.tensors, pickled, source.size_bytes)
    return Checkpoint(
        path=source.path,
        sha256=source.sha256,
        kind=kind,
        tensors=loaded,
        notes=(*notes, *converted),
        contents=checkpoint_contents.describe_checkpoint_contents(pickled.root),
        readings=prefixes.prefix_readings(loaded, network or _averaged_copy(loaded)),
        layer_versions=chosen.layer_versions,
        extra_state=chosen.extra_state,
        stated_networks=stated_network.stated_networks(pickled.root),
        settings={ARGUMENTS: said} if (said := stated_network.stated_network_arguments(pickled.root)) else {},
    )


def _averaged_copy(tensors: Mapping[str, torch.Tensor]) -> Reading | None:
    return averaged_copy.find_averaged_copy({name: tuple(tensor.shape) for name, tensor in tensors.items()})


def _checkpoint_weights_shape(ref: AnyTensor) -> tuple[int, ...]:
    return () if isinstance(ref, Opaque) else ref.shape
