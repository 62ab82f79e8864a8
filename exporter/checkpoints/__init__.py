"""Reads any checkpoint without running anything in it: one module per kind, listed in `KINDS`.

To add one, write a module with the two functions of `Kind` and add a line to the table.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from exporter.checkpoints import (
    container,
    distributed,
    exported_program,
    folder,
    foreign,
    lightning,
    pickled_module,
    safetensors,
    state_dict,
    torchscript,
)
from exporter.checkpoints.archive import DAMAGED
from exporter.checkpoints.contents import printable
from exporter.checkpoints.source import EXPECTED, Source, opened
from exporter.errors import CheckpointError, DamagedFileError
from exporter.records import Checkpoint


def is_folder(path: Path) -> bool:
    """Tell whether a path is a folder that is read as one checkpoint."""
    return distributed.matches(path) or folder.matches(path)


class Kind(Protocol):
    """A module that knows one kind of file by its content. torch is imported inside functions."""

    def matches(self, source: Source) -> bool:
        """Tell whether the file is of this kind; called in the table's order."""
        ...

    def read(self, source: Source, trust: bool) -> Checkpoint:
        """Read it; nothing in the file may run unless `trust`."""
        ...


KINDS: dict[str, Kind] = {
    "exported_program": exported_program,
    "torchscript": torchscript,
    "safetensors": safetensors,
    "lightning": lightning,
    "pickled_module": pickled_module,
    "container": container,
    "state_dict": state_dict,
}
"""First match wins. The kind is recognised by the content, never from the file's name."""


def read(path: Path, trust: bool = False) -> Checkpoint:
    """Read a checkpoint: its weights, and for self-contained kinds the network too.

    Args:
        path: Any file, or a folder of `torch.distributed.checkpoint` or `save_pretrained`.
        trust: Whether code in the file may run: needed for whole pickled modules, and for archives that
            ask for more than a plain model does.

    Returns:
        The tensors to ship (contiguous, on the CPU, floats as float32, all finite) or a module.

    Raises:
        CheckpointError: The file cannot be read, or not safely. Never anything else.
    """
    if distributed.matches(path):
        with _explained(path):
            return distributed.read(path)
    if folder.matches(path):
        with _explained(path):
            return folder.read(path)
    if distributed.is_part(path):
        raise CheckpointError(
            f"{path} is one file of a distributed checkpoint.", f"Give the folder: {path.parent}."
        )
    with opened(path) as source, _explained(path):
        return _read(source, trust)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Make every failure a CheckpointError that names the file."""
    try:
        yield
    except CheckpointError as error:
        raise _located(error, path) from error
    # Unpicklers, zip readers and torch raise whatever they like on a damaged file.
    except (Exception, pickle.PickleError) as error:
        reason = printable(str(error).strip().splitlines()[0] if str(error).strip() else "")
        raise DamagedFileError(
            f"{path} is damaged or no checkpoint: {reason or type(error).__name__}. {EXPECTED}", DAMAGED
        ) from error


def _read(source: Source, trust: bool) -> Checkpoint:
    for kind in KINDS.values():
        if kind.matches(source):
            return kind.read(source, trust)
    if source.pickled is not None:
        if problem := foreign.deepspeed(source.pickled.root, ()):
            raise CheckpointError(f"{source.path} is {problem}.", foreign.ZERO_ADVICE)
        entries = "; ".join(f"{key}: {description}" for key, description in _top(source)[:5])
        raise CheckpointError(
            f"{source.path} holds no weights ({entries or 'it is empty'}).",
            "Save them with torch.save(model.state_dict(), …).",
            code="EM-NO-WEIGHTS",
        )
    raise CheckpointError(
        f"{source.path} {source.nature()}. {EXPECTED}", "Give the trained checkpoint itself."
    )


def _top(source: Source) -> tuple[tuple[str, str], ...]:
    from exporter.checkpoints.contents import describe_all

    return describe_all(source.pickled.root) if source.pickled is not None else ()


def _located(error: CheckpointError, path: Path) -> CheckpointError:
    """Return the error with the file's name in it."""
    if str(path) in error.message:
        return error
    return type(error)(f"{path}: {error.message}", error.hint, error.code)
