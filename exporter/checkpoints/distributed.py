"""A folder of `torch.distributed.checkpoint` (DCP): all ranks' shards, put together without a process group.

`.metadata` is a pickle that says which tensors there are and where each shard is; a `.distcp` file is a row
of small `torch.save` archives. Both are read with the restricted unpickler: nothing in them runs.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.checkpoints import checkpoint_tensors, checkpoint_weights, choose_weights, torchfile, unpickle
from exporter.checkpoints.checkpoint_source import UNCHANGED, CheckpointSource
from exporter.checkpoints.inert_values import DType, Inert, Storage, TensorRef, is_plain_inert_value
from exporter.checkpoints.packed_archive import DAMAGED, Archive
from exporter.checkpoints.torchfile import PickledTorchfile
from exporter.errors import CheckpointError, DamagedFileError
from exporter.files import digest_file_or_folder
from exporter.records import Checkpoint

if TYPE_CHECKING:
    import torch

METADATA = ".metadata"
TO_PLAIN = (
    "Make a plain file: `python -m torch.distributed.checkpoint.format_utils dcp_to_torch {} model.pt`."
)


@dataclass(frozen=True)
class DistributedShard:
    """The place of one piece of a tensor."""

    offsets: tuple[int, ...]
    file: str
    start: int
    size_bytes: int


def is_distributed(folder: Path) -> bool:
    """Tell whether DCP wrote the folder, by the metadata that it keeps there."""
    try:
        return folder.is_dir() and (folder / METADATA).is_file()
    except (OSError, ValueError):  # no path at all: `opened` says why
        return False


def is_part_of_distributed(path: Path) -> bool:
    """Tell whether a file belongs to such a folder."""
    return (path.suffix == ".distcp" or path.name == METADATA) and is_distributed(path.parent)


def read_distributed(folder: Path) -> Checkpoint:
    """Read the network's tensors from all shards.

    Raises:
        CheckpointError: There are no weights, a shard is missing or damaged, they are compressed, or the
            folder was changed meanwhile.
    """
    sha256 = digest_file_or_folder(folder)
    metadata = _distributed_state(_unpickle_distributed(folder / METADATA), "Metadata")
    listed = metadata.get("state_dict_metadata")
    if not isinstance(listed, dict):
        raise DamagedFileError(f"{folder / METADATA} lists no tensors.", DAMAGED)
    refs = {
        name: ref for name, entry in listed.items() if (ref := _distributed_tensor(name, entry)) is not None
    }
    shards = _distributed_shards(folder, metadata.get("storage_data"))
    root = _nest_distributed(refs, metadata.get("planner_data"))
    files = sorted({shard.file for pieces in shards.values() for shard in pieces})
    size_bytes = sum((folder / file).stat().st_size for file in files if (folder / file).is_file())

    def read_storage(storage: Storage) -> bytearray:
        return _assemble_distributed(folder, refs[storage.key], shards.get(storage.key, []))

    with (folder / METADATA).open("rb") as file:
        source = CheckpointSource(folder, file, size_bytes, sha256, b"")
        pickled = PickledTorchfile(root, read_storage)
        chosen, notes = choose_weights.choose_weights(root)
        note = f"put together from {len(files)} files of a distributed checkpoint"
        checkpoint = checkpoint_weights.checkpoint_of_weights(
            source, pickled, "distributed", chosen, (note, *notes)
        )
    if digest_file_or_folder(folder) != sha256:
        raise CheckpointError(f"{folder} was changed while it was read.", UNCHANGED)
    return checkpoint


def _unpickle_distributed(path: Path) -> Any:
    with path.open("rb") as file:
        return unpickle.unpickle(file, path.stat().st_size)


def _distributed_state(value: object, kind: str) -> dict[Any, Any]:
    """Return the attributes of an inert object of DCP's."""
    if isinstance(value, Inert) and value.name.endswith(f".{kind}") and isinstance(value.state, dict):
        return value.state
    raise DamagedFileError(f"There is no {kind} where a distributed checkpoint has it.", DAMAGED)


def _distributed_sizes(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or not all(type(size) is int and size >= 0 for size in value):
        raise DamagedFileError(f"A size is {str(value)[:80]}.", DAMAGED)
    return tuple(value)


def _distributed_tensor(name: object, entry: object) -> TensorRef | None:
    """Return a declared tensor, as one contiguous storage of its own; None for other values."""
    declares = isinstance(entry, Inert) and entry.name.endswith(".TensorStorageMetadata")
    if not isinstance(name, str) or not declares:
        return None
    state = _distributed_state(entry, "TensorStorageMetadata")
    properties = state.get("properties")
    listed = properties.state if isinstance(properties, Inert) else None
    dtype = listed.get("dtype") if isinstance(listed, dict) else next(iter(listed or ()), None)
    if not isinstance(dtype, DType):
        raise DamagedFileError(f"The tensor {name!r} has no dtype.", DAMAGED)
    shape = _distributed_sizes(state.get("size"))
    strides = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return TensorRef(Storage(name, dtype.name, prod(shape)), dtype.name, 0, shape, strides)


def _distributed_shards(folder: Path, listed: object) -> dict[str, list[DistributedShard]]:
    """Return name -> pieces of each tensor."""
    shards: dict[str, list[DistributedShard]] = defaultdict(list)
    for key, value in (listed if isinstance(listed, dict) else {}).items():
        index, info = _distributed_state(key, "MetadataIndex"), _distributed_state(value, "_StorageInfo")
        name, offsets, file = index.get("fqn"), index.get("offset"), info.get("relative_path")
        start, size_bytes = _distributed_sizes((info.get("offset"), info.get("length")))
        if not isinstance(name, str) or not isinstance(file, str) or Path(file).name != file:
            raise DamagedFileError(f"A shard lies in {str(file)[:80]!r}.", DAMAGED)
        if info.get("transform_descriptors"):
            raise CheckpointError(f"The shards of {name!r} are compressed.", TO_PLAIN.format(folder))
        shards[name].append(DistributedShard(_distributed_sizes(offsets or ()), file, start, size_bytes))
    return shards


def _nest_distributed(refs: Mapping[str, TensorRef], paths: object) -> dict[Any, Any]:
    """Rebuild the dictionary that was saved: DCP flattens it, and notes each tensor's keys."""
    root: dict[Any, Any] = {}
    for name, ref in refs.items():
        keys = paths.get(name) if isinstance(paths, dict) else None
        keys = keys if isinstance(keys, tuple) and keys and is_plain_inert_value(keys) else (name,)
        node = root
        for key in keys[:-1]:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise DamagedFileError(f"{name!r} lies inside a tensor.", DAMAGED)
        node[keys[-1]] = ref
    return root


def _assemble_distributed(folder: Path, ref: TensorRef, shards: list[DistributedShard]) -> bytearray:
    """Put a tensor together; every element exactly once."""
    import torch

    whole = torch.empty(ref.shape, dtype=getattr(torch, ref.dtype))
    filled = torch.zeros(ref.shape, dtype=torch.bool)
    for shard in shards:
        piece = _distributed_piece(folder, shard)
        offsets = shard.offsets or (0,) * piece.dim()
        where = tuple(slice(o, o + size) for o, size in zip(offsets, piece.shape, strict=False))
        if piece.dim() != whole.dim() or whole[where].shape != piece.shape or piece.dtype != whole.dtype:
            raise DamagedFileError(f"A shard of {ref.storage.key!r} does not fit the tensor.", DAMAGED)
        whole[where] = piece
        filled[where] = True
    if not bool(filled.all()):
        missing = int((~filled).sum())
        raise DamagedFileError(
            f"{missing} of {filled.numel()} values of {ref.storage.key!r} are in none of the shards.",
            "Copy the files of all ranks into the folder.",
        )
    return bytearray(whole.flatten().view(torch.uint8).numpy().tobytes())


def _distributed_piece(folder: Path, shard: DistributedShard) -> torch.Tensor:
    path = folder / shard.file
    if not path.is_file():
        raise DamagedFileError(f"There is no {path}.", "Copy the files of all ranks into the folder.")
    with path.open("rb") as file:
        file.seek(shard.start)
        data = file.read(min(shard.size_bytes, path.stat().st_size))
    pickled = torchfile.read_torchfile_zip(Archive(io.BytesIO(data), len(data)))
    if not isinstance(pickled.root, TensorRef):
        raise DamagedFileError(f"A shard in {path} is no tensor.", DAMAGED)
    return checkpoint_tensors.raw_checkpoint_tensor(shard.file, pickled.root, pickled)
