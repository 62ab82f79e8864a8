"""Folders of the cache that are made once, by one process at a time."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def is_prepared(folder: Path) -> bool:
    """Tell whether the folder was made to the end."""
    return _end_of_preparation(folder).is_file()


def prepare_once(folder: Path, make: Callable[[Path], None]) -> None:
    """Make the folder unless it is there; what an interrupted preparation left is made anew.

    Args:
        folder: The folder; its parents are made.
        make: Creates the folder, which does not exist, and fills it.
    """
    with locked_preparation(folder):
        if not is_prepared(folder):
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            _end_of_preparation(folder).touch()


@contextmanager
def locked_preparation(folder: Path) -> Iterator[None]:
    """Keep other processes from preparing the same folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _end_of_preparation(folder: Path) -> Path:
    return folder / "complete"
