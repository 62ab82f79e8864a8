"""Folders of the cache that are made once, by one process at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter.errors import UsageError

OTHERS_MAY_WRITE = 0o022


def is_folder_prepared(folder: Path) -> bool:
    """Tell whether the folder was made to the end, and nobody else can change what is run from it."""
    return _end_of_folder_preparation(folder).is_file() and _is_prepared_folder_own(folder)


def prepare_folder_once(folder: Path, make: Callable[[Path], None]) -> None:
    """Make the folder unless it is prepared; what was interrupted, or others may write, is made anew.

    Args:
        folder: The folder; its parents are made.
        make: Fills the folder, which is new, empty and this user's.

    Raises:
        UsageError: Another user's folder is in its place.
    """
    with lock_prepared_folder(folder):
        if not is_folder_prepared(folder):
            shutil.rmtree(folder, ignore_errors=True)
            try:
                folder.mkdir()
            except FileExistsError:
                raise UsageError(
                    f"{folder} cannot be replaced: it is another user's or no folder.",
                    "Remove it, or give another folder in EXPORT_MOBILE_CACHE.",
                    code="EM-CACHE",
                ) from None
            folder.chmod(0o755)  # whatever the umask: what others may write is not prepared
            make(folder)
            _end_of_folder_preparation(folder).touch()


def _is_prepared_folder_own(folder: Path) -> bool:
    status = folder.lstat()
    is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    return is_own and not status.st_mode & OTHERS_MAY_WRITE


@contextmanager
def lock_prepared_folder(folder: Path) -> Iterator[None]:
    """Keep other processes from preparing the same folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _end_of_folder_preparation(folder: Path) -> Path:
    return folder / "complete"
