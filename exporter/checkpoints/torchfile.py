"""The two layouts of `torch.save`, since 1.6 a zip archive, before that pickles followed by raw storages."""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from exporter.checkpoints.inert_values import ITEM_BYTES, Storage
from exporter.checkpoints.packed_archive import DAMAGED, Archive
from exporter.checkpoints.unpickle import BoundedPickleFile, RestrictedUnpickler, unpickle
from exporter.errors import CheckpointError, DamagedFileError

MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of the old layout; see `torch/serialization.py`."""
PROTOCOL = 1001


@dataclass(frozen=True, eq=False)
class PickledTorchfile:
    """What `torch.save` was given, as inert records, and how to get at the numbers."""

    root: Any
    read_storage: Callable[[Storage], bytearray]


def read_torchfile_zip(archive: Archive) -> PickledTorchfile:
    """Read the layout of torch >= 1.6."""
    if "byteorder" in archive and archive.read("byteorder").decode("ascii", "replace") != sys.byteorder:
        raise CheckpointError(
            "The checkpoint was written on a machine of the other byte order.", "Save it again here."
        )
    data = archive.read("data.pkl")

    def read_storage(storage: Storage) -> bytearray:
        name = f"data/{storage.key}"
        if name in archive and archive.size_bytes(name) != storage.size_bytes:
            raise DamagedFileError(
                f"The record {name!r} holds {archive.size_bytes(name)} bytes, but its tensor declares "
                f"{storage.size_bytes}.",
                DAMAGED,
            )
        return bytearray(archive.read(name))

    return PickledTorchfile(unpickle(io.BytesIO(data), len(data)), read_storage)


def read_legacy_torchfile(file: BinaryIO, size_bytes: int) -> PickledTorchfile:
    """Read the layout of torch < 1.6 (`_use_new_zipfile_serialization=False`)."""
    file.seek(0)
    if unpickle(file, size_bytes) != MAGIC:
        raise CheckpointError(
            "The file is a Python pickle that torch.save did not write.",
            "Load it where it was made and save the weights with torch.save(model.state_dict(), …).",
        )
    if unpickle(file, size_bytes) != PROTOCOL:
        raise DamagedFileError("The file is of an unknown version of torch.save's old format.", DAMAGED)
    unpickle(file, size_bytes)
    reader = _TorchfileUnpickler(BoundedPickleFile(file, size_bytes))
    root = reader.load()
    offsets = _torchfile_offsets(file, size_bytes, unpickle(file, size_bytes), reader.storages)

    def read_storage(storage: Storage) -> bytearray:
        if storage.key not in offsets:
            raise DamagedFileError("The file ends before the numbers of all its tensors.", DAMAGED)
        file.seek(offsets[storage.key])
        return bytearray(file.read(storage.size_bytes))

    return PickledTorchfile(root, read_storage)


class _TorchfileUnpickler(RestrictedUnpickler):
    """Remembers each storage's declared size: the raw part of the file gives only element counts."""

    def __init__(self, file: BoundedPickleFile) -> None:
        super().__init__(file)
        self.storages: dict[str, Storage] = {}

    def persistent_load(self, pid: object) -> object:
        value = super().persistent_load(pid)
        if isinstance(value, Storage):
            first = self.storages.setdefault(value.key, value)
            if (first.dtype, first.numel) != (value.dtype, value.numel):
                raise DamagedFileError(f"The storage {value.key!r} is declared twice, differently.", DAMAGED)
        return value


def _torchfile_offsets(
    file: BinaryIO, size_bytes: int, keys: object, storages: dict[str, Storage]
) -> dict[str, int]:
    """Return each storage's offset: after an 8-byte element count each, in the order of `keys`."""
    if not isinstance(keys, list) or not all(str(key) in storages for key in keys):
        raise DamagedFileError("The file lists storages that none of its tensors uses.", DAMAGED)
    offsets: dict[str, int] = {}
    position = file.tell()
    for storage in (storages[str(key)] for key in keys):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8 or struct.unpack("<q", head)[0] != storage.numel:
            raise DamagedFileError(
                "The numbers after the pickle do not fit the tensors it declares.", DAMAGED
            )
        offsets[storage.key] = position + 8
        position += 8 + storage.numel * ITEM_BYTES[storage.dtype]
        if position > size_bytes:
            raise DamagedFileError(
                f"The file ends {position - size_bytes} bytes early: it is cut short.", DAMAGED
            )
    return offsets
