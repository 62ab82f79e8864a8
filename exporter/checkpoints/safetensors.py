"""A `.safetensors` file: a JSON header, then raw numbers; nothing in it can run."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

from exporter.checkpoints import checkpoint_contents, checkpoint_tensors, prefixes, stated_network
from exporter.checkpoints.checkpoint_source import CheckpointSource
from exporter.checkpoints.packed_archive import DAMAGED
from exporter.errors import CheckpointError, DamagedFileError
from exporter.records import Checkpoint

if TYPE_CHECKING:
    import torch

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""


def is_safetensors(source: CheckpointSource) -> bool:
    """Tell whether an 8-byte length and an opening brace start the file."""
    return len(source.head) > 8 and source.head[8:9] == b"{"


def read_safetensors(source: CheckpointSource, trust: bool) -> Checkpoint:
    """Read all tensors with the safetensors library, which checks every offset.

    Raises:
        CheckpointError: The header or the data is not as the format asks, or a tensor is not finite.
    """
    header = _safetensors_header(source)
    metadata = _safetensors_metadata(header)
    tensors = _load_safetensors(source)  # in another order each time
    stored = {name: tensors[name] for name in header if name in tensors}
    loaded, converted = checkpoint_tensors.checkpoint_tensors_as_float32(stored)
    if not loaded:
        raise CheckpointError(
            f"{source.path} holds no tensors.",
            "Save the weights with safetensors.torch.save_file.",
            code="EM-NO-WEIGHTS",
        )
    described = [
        (
            checkpoint_contents.printable_checkpoint_content(name),
            f"tensor {str(t.dtype).removeprefix('torch.')} {list(t.shape)}",
        )
        for name, t in stored.items()
    ]
    return Checkpoint(
        path=source.path,
        sha256=source.sha256,
        kind="safetensors",
        tensors=loaded,
        notes=converted,
        contents=(
            *described,
            *(
                (
                    f"metadata {checkpoint_contents.printable_checkpoint_content(k)}",
                    checkpoint_contents.describe_checkpoint_content(v),
                )
                for k, v in metadata.items()
            ),
        ),
        readings=prefixes.prefix_readings(loaded),
        stated_networks=stated_network.stated_networks(metadata),
    )


def _safetensors_header(source: CheckpointSource) -> dict[str, Any]:
    """Return what the file says of its tensors and itself, in the file's order."""
    (length,) = struct.unpack("<Q", source.head[:8])
    if length > min(MAX_HEADER_BYTES, source.size_bytes - 8):
        raise DamagedFileError(
            f"{source.path} declares a safetensors header of {length} bytes in a file of "
            f"{source.size_bytes}: cut short, or no safetensors file.",
            DAMAGED,
        )
    source.file.seek(8)
    header = json.loads(source.file.read(length))
    return header if isinstance(header, dict) else {}


def _safetensors_metadata(header: dict[str, Any]) -> dict[str, object]:
    metadata = header.get("__metadata__")
    return metadata if isinstance(metadata, dict) else {}


def _load_safetensors(source: CheckpointSource) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    source.file.seek(0)
    try:
        return load(source.file.read())
    except SafetensorError as error:
        raise DamagedFileError(f"{source.path} is not a whole safetensors file: {error}.", DAMAGED) from error
