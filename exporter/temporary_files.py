"""Makes temporary files and folders that show whether the process that made them still runs.

The process holds a lock on them, and the kernel lets go of it however the process ends. Its number would not
do: in a container every run has the same one. Where a file system has no locks, nothing counts as abandoned.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

ATTEMPTS = 10


@contextlib.contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a new folder that is this process's until the block ends. Removing it is the caller's work.

    Args:
        parent: Where it is made.
        prefix: How its name begins; `abandoned_temporary_files` finds it by that.

    Raises:
        OSError: It cannot be made.
    """
    path, lock = _make_temporary(parent, prefix)
    try:
        yield path
    finally:
        os.close(lock)


def _make_temporary(parent: Path, prefix: str) -> tuple[Path, int]:
    for _ in range(ATTEMPTS):
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            hold_temporary_file(lock)
        except FileNotFoundError:  # another run took it for abandoned before the lock was there
            continue
        if path.exists():
            return path, lock
        os.close(lock)
    raise FileNotFoundError(f"{parent} loses its folders")


def hold_temporary_file(file: int | IO[str]) -> None:
    """Lock an open file for as long as it stays open."""
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def abandoned_temporary_files(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield the files and folders of that prefix whose process has ended; each is locked meanwhile."""
    try:
        paths = sorted(p for p in parent.iterdir() if p.name.startswith(prefix))
    except OSError:
        return
    for path in paths:
        try:
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:  # a link, another user's, or gone
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        else:
            yield path
        finally:
            os.close(lock)


@contextlib.contextmanager
def temporary_scratch(purpose: str) -> Iterator[Path]:
    """Make a temporary folder, gone afterwards; remove those that killed runs left.

    Args:
        purpose: "verify": goes into the folder's name.
    """
    parent, prefix = Path(tempfile.gettempdir()), f"export-mobile-{purpose}-"
    for path in abandoned_temporary_files(parent, prefix):
        if path.is_dir() and path.stat().st_uid == os.getuid():
            shutil.rmtree(path, ignore_errors=True)
    with temporary_folder(parent, prefix) as path:
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
