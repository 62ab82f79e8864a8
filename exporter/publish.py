"""OUT: made aside, renamed last. Nothing half-written looks whole; nothing of the user's is overwritten."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from exporter.errors import OutputError

MANIFEST = "manifest.json"
LOG = "export.log"
DEVICE = "device"
"""Folder of what devices said: raw samples, a file per artifact and device."""
FORCE = "Give --force to replace an earlier export there, or another folder with -o."


@dataclass(frozen=True)
class Staging:
    """Folders of one run, beside OUT so that the last rename stays on one file system."""

    out: Path
    work: Path
    log: Path


@contextlib.contextmanager
def staging(destination: Path, force: bool, advice: str = FORCE) -> Iterator[Staging]:
    """Folders to work in; they are gone afterwards, and only `publish` makes OUT.

    When the run fails, the frameworks' log is kept as `<OUT>.export.log`; when it is interrupted, nothing is.

    Args:
        destination: OUT.
        force: An earlier export there may be replaced.
        advice: What to do where OUT holds files and `force` is not given.

    Raises:
        OutputError: OUT cannot be written, or holds files and `force` is not given.
    """
    check(destination, force, advice)
    _remove_stale(destination)
    root = destination.parent / f"{_prefix(destination)}{os.getpid()}"
    try:
        (root / "work").mkdir(parents=True, mode=0o700)
        (root / "out").mkdir()
        log = root / "out" / LOG
        log.touch()
    except OSError as error:
        raise _unwritable(destination, error) from None
    try:
        yield Staging(root / "out", root / "work", log)
    except OSError as error:
        _keep_log(log, destination)
        raise _unwritable(destination, error) from error
    except Exception:  # not Ctrl-C, which leaves nothing to look into
        _keep_log(log, destination)
        raise
    finally:
        shutil.rmtree(root, ignore_errors=True)


def check(destination: Path, force: bool, advice: str = FORCE) -> None:
    """Refuse early what would fail late."""
    if destination.is_symlink() or destination.exists():
        if not destination.is_dir():
            raise OutputError(f"{destination} is a file, expected a folder.", "Choose another with -o.")
        try:
            holds = next(destination.iterdir(), None)
        except OSError as error:
            raise _unwritable(destination, error) from None
        if holds is not None and not force:
            raise OutputError(f"{destination} is not empty (it holds {holds.name}).", advice)


def publish(stage: Staging, destination: Path) -> None:
    """Move the finished files to OUT, the manifest last.

    Into a folder that exists only files of an earlier export (those its manifest lists) are removed;
    whatever else lies there stays, and a file in the way that is not an earlier export's is refused.

    Raises:
        OutputError: OUT cannot be written, or a file of the user's is in the way.
    """
    try:
        if not destination.exists() or not any(destination.iterdir()):
            stage.out.rename(destination)
            return
        _replace(stage.out, destination)
    except OSError as error:
        raise _unwritable(destination, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a file of OUT aside and rename it: a reader sees the old one or the new one."""
    aside = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _replace(new: Path, destination: Path) -> None:
    earlier = _files_of_earlier_export(destination)
    names = sorted((p.name for p in new.iterdir()), key=lambda name: name == MANIFEST)
    for name in names:
        if (destination / name).exists() and name not in earlier:
            raise OutputError(
                f"{destination / name} is in the way and no earlier export's.",
                "Move it, or choose another -o.",
            )
    for name in sorted(
        earlier, key=lambda name: name != MANIFEST
    ):  # without its manifest nothing looks whole
        _remove(destination / name)
    if any(name.startswith(f"{DEVICE}/") for name in earlier):
        with contextlib.suppress(OSError):  # stays when something of the user's lies in it
            (destination / DEVICE).rmdir()
    for name in names:
        (new / name).rename(destination / name)


def _files_of_earlier_export(destination: Path) -> set[str]:
    try:
        manifest = json.loads((destination / MANIFEST).read_text())
        files = {str(a["file"]) for a in manifest["artifacts"] if a.get("file")}
        files |= {str(e["file"]) for e in manifest["evidence"]["files"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
    ours = {name for name in files if _is_plain(name.removeprefix(f"{DEVICE}/"))}
    if (destination / DEVICE).is_symlink():  # what it leads to is not ours
        ours = {name for name in ours if _is_plain(name)}
    return ours | {MANIFEST, LOG, "report.html"}


def _is_plain(name: str) -> bool:
    return Path(name).name == name and name not in {"", ".", ".."}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _prefix(destination: Path) -> str:
    return f".{destination.name}.partial-"


def _remove_stale(destination: Path) -> None:
    """Remove what a killed run left behind."""
    with contextlib.suppress(OSError):
        for path in destination.parent.glob(f"{_prefix(destination)}*"):
            process = path.name.removeprefix(_prefix(destination))
            if process.isdigit() and not _alive(int(process)):
                shutil.rmtree(path, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _keep_log(log: Path, destination: Path) -> None:
    with contextlib.suppress(OSError):
        if log.stat().st_size:
            shutil.copyfile(log, destination.parent / f"{destination.name}.{LOG}")


def _unwritable(destination: Path, error: OSError) -> OutputError:
    why = error.strerror or str(error)
    hint = "Free some space" if error.errno == 28 else "Check the folder and its permissions"
    return OutputError(f"{destination} cannot be written: {why}.", f"{hint}, or choose another with -o.")
