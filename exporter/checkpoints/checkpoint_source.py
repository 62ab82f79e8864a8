"""One opened file, and what its first bytes say it is."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from exporter.checkpoints import torchfile
from exporter.checkpoints.packed_archive import Archive
from exporter.checkpoints.torchfile import PickledTorchfile
from exporter.errors import CheckpointError

EXPECTED = (
    "Expected a state_dict or training checkpoint saved by torch.save, a Lightning .ckpt, a "
    ".safetensors file, a TorchScript archive or a torch.export .pt2."
)

UNCHANGED = "Give a copy that nothing writes to."

FOREIGN_FILES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"GIF8", "a GIF picture"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x1f\x8b", "a gzip archive: unpack it first"),
    (0, b"BZh", "a bzip2 archive: unpack it first"),
    (0, b"\xfd7zXZ", "an xz archive: unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it first"),
    (257, b"ustar", "a tar archive: unpack it first, or if torch wrote it before 2017, save it again"),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes it"),
    (0, b"GGUF", "a GGUF model"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x7fELF", "a program"),
    (4, b"ET", "an ExecuTorch .pte, which is a result of export"),
    (4, b"TFL3", "a TensorFlow Lite model, which is a result of export"),
    (4, b"ORTM", "an ONNX Runtime .ort model, which is a result of export"),
    (0, b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull` to get the file it stands for"),
    (0, b"<!DOCTYPE", "a web page: the download went to a page instead of the file"),
    (0, b"<html", "a web page: the download went to a page instead of the file"),
)
"""(offset, bytes there, what such a file is)."""


@dataclass(eq=False)
class CheckpointSource:
    path: Path
    file: BinaryIO
    size_bytes: int
    sha256: str
    head: bytes

    @cached_property
    def archive(self) -> Archive | None:
        return Archive(self.file, self.size_bytes) if self.head.startswith(b"PK\x03\x04") else None

    @cached_property
    def pickled(self) -> PickledTorchfile | None:
        """What `torch.save` wrote, as inert records; None when it did not write this file."""
        if self.archive is not None:
            return torchfile.read_torchfile_zip(self.archive) if "data.pkl" in self.archive else None
        return (
            torchfile.read_legacy_torchfile(self.file, self.size_bytes)
            if self.head.startswith(b"\x80")
            else None
        )

    def nature(self) -> str:
        """What the file looks like, for an error message."""
        for offset, magic, name in FOREIGN_FILES:
            if self.head[offset:].startswith(magic):
                return f"looks like {name}"
        if self.archive is not None:
            names = self.archive.names
            return (
                f"is a zip archive of {len(names)} files "
                f"({_few_of_checkpoint_source(names)}), none of them PyTorch's"
            )
        if self.head[:1] == b"\x08" and self.head[2:3] in (b"\x12", b"\x3a"):
            return "looks like an ONNX model, which is a result of export"
        return f"is of no known kind (its first bytes are {self.head[:8].hex(' ')})"


def _few_of_checkpoint_source(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name[:60]) for name in names[:3]) + (", …" if len(names) > 3 else "")


@contextmanager
def open_checkpoint_source(path: Path) -> Iterator[CheckpointSource]:
    """Open a checkpoint once: everything is read from this one handle, whatever happens to the path.

    Raises:
        CheckpointError: There is no such file, it is no file, it is empty, it may not be read, or it was
            changed meanwhile.
    """
    with _readable_checkpoint_source(path):
        check_regular_checkpoint_source(path)
        with path.open("rb") as file:
            source = _make_checkpoint_source(path, file)
            yield source
            _check_checkpoint_source_unchanged(source)


def check_regular_checkpoint_source(path: Path) -> None:
    """Refuse what is no regular file without opening it: a named pipe would block for ever.

    Raises:
        CheckpointError: There is no such file, or it is a folder, a pipe or a device.
    """
    with _readable_checkpoint_source(path):
        mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise CheckpointError(f"{path} is {kind}, expected a checkpoint file.", "Give the file inside it.")


@contextmanager
def _readable_checkpoint_source(path: Path) -> Iterator[None]:
    """Turn the system's refusals into errors about the checkpoint."""
    try:
        yield
    except FileNotFoundError as error:
        raise CheckpointError(
            f"There is no file {path}.", "Check the path; relative paths start here."
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(
            f"{path} cannot be read: {reason}.", "Check its permissions and the disk."
        ) from error


def _check_checkpoint_source_unchanged(source: CheckpointSource) -> None:
    """Refuse a file that was written to in place while it was read: its hash would name other weights."""
    source.file.seek(0)
    if hashlib.file_digest(source.file, "sha256").hexdigest() != source.sha256:  # type: ignore[arg-type]
        raise CheckpointError(f"{source.path} was changed while it was read.", UNCHANGED)


def _make_checkpoint_source(path: Path, file: BufferedReader) -> CheckpointSource:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    size_bytes = file.tell()
    if size_bytes == 0:
        raise CheckpointError(f"{path} is empty.", "Copy or download it again.")
    file.seek(0)
    head = file.read(512)
    file.seek(0)
    return CheckpointSource(path, file, size_bytes, digest, head)
