"""Zip archives as PyTorch writes them, with everything a hostile one could do refused."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from typing import BinaryIO

from exporter import files
from exporter.errors import CheckpointError, DamagedFileError

EXPANSION = 16
SLACK_BYTES = 64 << 20
"""An archive may unpack to EXPANSION times its size plus SLACK_BYTES: TorchScript compresses its code."""

DAMAGED = "Download or copy it again; if it still fails, save it again with the program that wrote it."


class Archive:
    """The records of one archive, named without the folder that PyTorch puts around them."""

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DamagedFileError(f"The zip archive is damaged or cut short ({error}).", DAMAGED) from error
        entries = [entry for entry in self._zip.infolist() if not entry.is_dir()]
        _check_packed_archive(entries, size_bytes)
        self.root = _packed_archive_root(entries)
        self._entries = {entry.filename.removeprefix(self.root): entry for entry in entries}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def size_bytes(self, name: str) -> int:
        return self._entries[name].file_size

    def read(self, name: str) -> bytes:
        """One record, its checksum verified.

        Raises:
            CheckpointError: It is missing, or not what was written.
        """
        if name not in self._entries:
            raise DamagedFileError(f"The archive has no record {name!r}.", DAMAGED)
        try:
            return self._zip.read(self._entries[name])
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            raise DamagedFileError(
                f"The record {name!r} of the archive is damaged ({error}).", DAMAGED
            ) from error


def pack_archive(records: Mapping[str, bytes], root: str) -> io.BytesIO:
    """A fresh archive of exactly these records.

    What was checked and what PyTorch's own zip reader sees are then the same bytes: two readers can
    disagree about a crafted archive.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as writer:
        for name, data in records.items():
            writer.writestr(root + name, data)
    buffer.seek(0)
    return buffer


def _packed_archive_root(entries: list[zipfile.ZipInfo]) -> str:
    folders = {entry.filename.partition("/")[0] for entry in entries if "/" in entry.filename}
    inside = all("/" in entry.filename for entry in entries)
    return f"{folders.pop()}/" if inside and len(folders) == 1 else ""


def _check_packed_archive(entries: list[zipfile.ZipInfo], size_bytes: int) -> None:
    if any(entry.flag_bits & files.ENCRYPTED for entry in entries):
        raise CheckpointError("The archive is encrypted.", "Unpack it and give the checkpoint itself.")
    if problem := files.duplicate_files(entries):
        raise DamagedFileError(f"{problem}: no PyTorch wrote it.", DAMAGED)
    if problem := files.expanding_files(entries, size_bytes, EXPANSION, SLACK_BYTES):
        raise DamagedFileError(problem, DAMAGED)
