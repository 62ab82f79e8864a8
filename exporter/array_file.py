"""Reads arrays from an `.npz` that may come from anyone: its listing and headers are checked first."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from exporter.records import Array

MOST_BYTES = 4 * 2**30
"""The most bytes of all arrays of one file."""
SMALL_BYTES = 2**30
"""What a small file may unpack to: 64 MB of zeros become 64 GB."""
EXPANSION = 4
"""How many times its size a larger file may unpack to."""
MAX_ARRAYS = 10_000
KINDS = "biufcU"
"""The kinds of dtypes that are read: numbers and text; no objects, which are pickles, and no records."""


class ArrayFileError(Exception):
    """The reason why a file is not a readable `.npz`, as a sentence."""


def read_array_file(path: Path) -> dict[str, Array]:
    """Read every array of a file. Nothing is unpickled, and nothing is unpacked beyond the bounds.

    Raises:
        ArrayFileError: It is not such a file, or exceeds a bound.
        OSError: It cannot be opened.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_array_listing(members, path.stat().st_size)
            return {
                member.filename.removesuffix(".npy"): _array_file_member(archive, member)
                for member in members
            }
    except (ArrayFileError, FileNotFoundError, PermissionError):
        raise
    # zlib, struct and NumPy's header parser raise whatever hostile bytes led them to.
    except Exception as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArrayFileError(f"It is not a readable .npz file: {words[:160]}.") from error


def array_file_limit_bytes(size_bytes: int) -> int:
    """Return how many bytes a file of a size may unpack to."""
    return min(MOST_BYTES, max(SMALL_BYTES, EXPANSION * size_bytes))


def _check_array_listing(members: list[zipfile.ZipInfo], size_bytes: int) -> None:
    if len(members) > MAX_ARRAYS:
        raise ArrayFileError(f"It holds {len(members)} arrays; at most {MAX_ARRAYS} are read.")
    if len({member.filename for member in members}) < len(members):
        raise ArrayFileError("It holds two arrays of one name.")
    total, limit = sum(member.file_size for member in members), array_file_limit_bytes(size_bytes)
    if total > limit:
        raise ArrayFileError(
            f"It unpacks to {total / 2**30:.1f} GiB; of a file of {size_bytes:,} bytes at most "
            f"{limit / 2**30:.0f} are read."
        )


def _array_file_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    """Read one array, after checking that its header promises no more than the file holds."""
    name = ascii(member.filename)[:80]
    with archive.open(member) as stream:
        shape, dtype = _array_header(stream)
    if dtype.hasobject:
        raise ArrayFileError(f"Its array {name} holds Python objects, expected numbers.")
    if dtype.kind not in KINDS:
        raise ArrayFileError(f"Its array {name} is {str(dtype)[:40]}, expected numbers.")
    promised = math.prod(int(size) for size in shape) * dtype.itemsize
    if promised > member.file_size or any(size < 0 for size in shape):
        claim = f"{promised:,}" if promised < 2**63 else "more than 2^63"
        raise ArrayFileError(f"Its array {name} claims {claim} bytes, the file holds {member.file_size:,}.")
    with archive.open(member) as stream:
        array: Array = np.lib.format.read_array(stream, allow_pickle=False)
        return array


def _array_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    version = np.lib.format.read_magic(stream)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = reader(stream)
    return shape, dtype
