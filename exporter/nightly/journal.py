"""Ensure that one night runs at a time, and decide which night it is.

Only the start and the end of a night are recorded: its exports are in its
folder, what was measured in the history.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from exporter.errors import NightRunningError, OutputError
from exporter.files import write_text_file
from exporter.nightly.records import Night

NIGHTS = "nights"
ENDED = "night.json"
"""The file in a night's folder that is written last."""
HOST = "host"
"""The file in a night's folder with the name of its machine."""
FORMAT = "%Y-%m-%dT%H-%M-%SZ"


@contextlib.contextmanager
def lock_journal(out: Path) -> Iterator[None]:
    """Hold the lock of `out`; the system releases it when the process ends, however it ends.

    Raises:
        NightRunningError: Another process holds it.
        OutputError: `out` cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("a+", encoding="ascii")
    except OSError as error:
        raise OutputError(
            f"{out} cannot be written: {error.strerror}.", "Check the folder's permissions."
        ) from None
    with lock:
        try:
            # A POSIX lock belongs to this process alone: children that outlive it do not hold it.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise NightRunningError(
                f"A night is running in {out} (process {lock.read().strip() or 'unknown'}).",
                "Wait until it ends, or set another `out`.",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def begin_journal(out: Path, hours: float, fresh: bool, now: datetime | None = None) -> Night:
    """Resume the interrupted night, or begin a new one.

    Args:
        out: The folder `out` of `nightly.toml`.
        hours: How long after its start a night is resumed.
        fresh: Begin a new night in any case.
        now: The time, for tests.
    """
    now = now or datetime.now(UTC)
    unfinished = [folder for folder in nights_in_journal(out) if not (folder / ENDED).is_file()]
    last = unfinished[-1] if unfinished else None
    if last and not fresh and now - journaled_start_of_night(last) < timedelta(hours=hours):
        abandoned = tuple(folder.name for folder in unfinished[:-1])
        return Night(last.name, last, resumed=True, host=journal_host(last), abandoned=abandoned)
    night = _new_journal(out, now)
    return replace(night, abandoned=tuple(folder.name for folder in unfinished))


def _new_journal(out: Path, now: datetime) -> Night:
    while (folder := out / NIGHTS / now.strftime(FORMAT)).exists():
        now += timedelta(seconds=1)
    try:
        folder.mkdir(parents=True)
        (folder / HOST).write_text(platform.node(), encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be created: {error.strerror}.", "Check the folder's free space."
        ) from None
    return Night(folder.name, folder, resumed=False, host=platform.node())


def journal_host(folder: Path) -> str:
    """Return the name that the machine had when a night began."""
    try:
        return (folder / HOST).read_text(encoding="utf-8")
    except OSError:
        return platform.node()


def nights_in_journal(out: Path) -> list[Path]:
    """List the folders of nights, oldest first."""
    return sorted(
        folder for folder in (out / NIGHTS).glob("*") if folder.is_dir() and _journal_time(folder.name)
    )


def ended_nights_in_journal(out: Path) -> list[Path]:
    """List the folders of finished nights, oldest first."""
    return [folder for folder in nights_in_journal(out) if (folder / ENDED).is_file()]


def journaled_start_of_night(folder: Path) -> datetime:
    time = _journal_time(folder.name)
    assert time is not None, "nights() lists only those with a time"
    return time


def _journal_time(name: str) -> datetime | None:
    try:
        return datetime.strptime(name, FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None


def end_journal(night: Night, content: object) -> None:
    """Mark the night as finished, and store its result."""
    write_text_file(night.folder / ENDED, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def forget_journaled_nights(out: Path, keep: int) -> tuple[str, ...]:
    """Delete the folders of all but the last `keep` nights; return the deleted ones."""
    old = nights_in_journal(out)[:-keep]
    for folder in old:
        shutil.rmtree(folder, ignore_errors=True)
    return tuple(folder.name for folder in old)
