"""How much memory a checkpoint's weights take as float32, from its size and from the types that it names.

Nothing is loaded: the file may be too large for this machine, and may come from anywhere. What is not
understood counts as float32, which the file's own size is.
"""

from __future__ import annotations

import contextlib
import json
import struct
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

FLOAT32_SHARE = {"F64": 0.5, "F16": 2.0, "BF16": 2.0, "F8_E4M3": 4.0, "F8_E5M2": 4.0}
"""Type in a safetensors header -> size as float32, as a share of the stored size."""
HALF_STORAGES = (b"HalfStorage", b"BFloat16Storage")
"""Names in the pickle of a PyTorch file that holds halves."""
MOST_BYTES = 100 << 20
"""The most that is read of a header or a pickle."""


def weights_memory_bytes(checkpoint: Path) -> int:
    """Return the size of a checkpoint's weights; in a folder, of its largest kind of files, all shards."""
    if not checkpoint.is_dir():
        return _weights_memory_of_file(checkpoint)
    sizes: Counter[str] = Counter()
    for path in checkpoint.rglob("*"):
        if path.is_file():
            sizes[path.suffix] += _weights_memory_of_file(path)
    return max(sizes.values(), default=0)


def _weights_memory_of_file(path: Path) -> int:
    stored = path.stat().st_size
    damaged = (ValueError, TypeError, KeyError, AttributeError, struct.error, RecursionError)
    with contextlib.suppress(OSError, *damaged):
        if path.suffix == ".safetensors":
            return _weights_memory_of_safetensors(path)
    with contextlib.suppress(OSError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile):
        if zipfile.is_zipfile(path) and _holds_halves_in_memory(path):
            return 2 * stored
    return stored


def _weights_memory_of_safetensors(path: Path) -> int:
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(min(length, MOST_BYTES)))
    header.pop("__metadata__", None)
    sizes = ((entry["data_offsets"], FLOAT32_SHARE.get(entry["dtype"], 1.0)) for entry in header.values())
    return int(sum((end - begin) * share for (begin, end), share in sizes))


def _holds_halves_in_memory(path: Path) -> bool:
    """Tell whether the pickle of a PyTorch file names a type of 16 bits; nothing in it runs."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if not names:
            return False
        with archive.open(names[0]) as stream:
            pickled = stream.read(MOST_BYTES)
    return any(name in pickled for name in HALF_STORAGES)
