"""The files of OUT: names, hashes, publishing, and which zip entries are safe to unpack.

OUT is made aside and renamed last: nothing half-written looks whole, no file of the user's is overwritten.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from exporter.errors import OutputError, VerificationError
from exporter.records import Precision

MANIFEST = "manifest.json"
LOG = "export.log"
DEVICE = "device"
"""Folder of what devices said: raw samples, a file per artifact and device."""
PAGE = "report.html"
OUTPUTS = "outputs.npz"
"""Some output values of every artifact, for the page's histogram."""
EVIDENCE = "verification.npz"
"""In OUT: the verification inputs and the float64 model's outputs."""
PREDICTIONS = "accuracy.npz"
"""In OUT: the labels, and the five likeliest classes that float32 and every artifact gave for each sample."""
FORCE = "Give --force to replace an earlier export there, or another folder with -o."
ENCRYPTED = 0x1
"""Of an entry's flags."""
MAX_NAME = 255


def digest_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_path(path: Path) -> str:
    """sha256 of a file, or of a folder's sorted relative paths and contents (an .mlpackage)."""
    if path.is_file():
        return digest_file(path)
    total = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        total.update(f"{file.relative_to(path).as_posix()}\0{digest_file(file)}\n".encode())
    return total.hexdigest()


def lowering_file(precision: Precision, name: str = "") -> str:
    """In OUT: what an artifact's quantised program computes.

    Args:
        precision: The artifact's. All of int8 come from one program.
        name: The artifact's: each mixed one has a program of its own.
    """
    return f"{name if precision == 'mixed' else precision}.lowering.npz"


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
            raise OutputError(
                f"{destination} is not empty (it holds {holds.name}).", advice, code="EM-NOT-EMPTY"
            )


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
                code="EM-NOT-EMPTY",
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


def inside(directory: Path, file: str) -> Path:
    """`directory / file`, refusing symbolic links that lead out of it.

    Raises:
        VerificationError: They do.
    """
    path = directory / file
    try:
        contained = path.resolve().is_relative_to(directory.resolve())
    except (OSError, RuntimeError) as error:
        raise VerificationError(f"{file} cannot be looked up: {error}.") from None
    if not contained:
        raise VerificationError(
            f"{file} is a link that leads out of {directory}; an artifact must lie in it.",
            "Replace the link with the file itself.",
        )
    return path


def duplicates(entries: Sequence[zipfile.ZipInfo]) -> str:
    """Why two entries are one on some file system; an empty string when none are."""
    names = {entry.filename.casefold() for entry in entries}
    return "" if len(names) == len(entries) else "The archive holds two records of one name"


def expands(entries: Sequence[zipfile.ZipInfo], size_bytes: int, expansion: int, slack_bytes: int) -> str:
    """Why unpacking would take more than the archive can hold; an empty string when it would not.

    Args:
        entries: As the archive lists them.
        size_bytes: Of the archive.
        expansion: How many times its own size it may unpack to.
        slack_bytes: Granted on top, so that a small archive of text passes.
    """
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > expansion * size_bytes + slack_bytes:
        return (
            f"The archive of {size_bytes} bytes claims to unpack to {unpacked} bytes, expected at most about "
            f"{expansion} times its size."
        )
    stored = sum(entry.file_size for entry in entries if entry.compress_type == zipfile.ZIP_STORED)
    if stored > size_bytes:
        return f"The archive of {size_bytes} bytes claims to store {stored} bytes."
    return ""


def strange(entry: zipfile.ZipInfo) -> str:
    """Why an entry must not become a file below a folder of ours; an empty string when it may."""
    name = entry.filename
    parts = name.removesuffix("/").split("/")
    if PurePosixPath(name).is_absolute() or any(part in {"", ".", ".."} for part in parts):
        return f"{name!a} leads out of the archive's folder"
    if "\\" in name or ":" in name or "\0" in entry.orig_filename or not name.isprintable():
        return f"{name!a} is no plain name"
    if len(name) > MAX_NAME:
        return f"{name[:40]!a}… is longer than {MAX_NAME} characters"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR} or ((kind == stat.S_IFDIR) != name.endswith("/") and kind):
        return f"{name!a} is a link or a device, not a file"
    return f"{name!a} is encrypted" if entry.flag_bits & ENCRYPTED else ""
