"""Names and hashes the files of OUT, and tells which zip entries are safe to unpack."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from exporter import temporary_files
from exporter.errors import VerificationError
from exporter.records import Precision

MANIFEST = "manifest.json"
LOG = "export.log"
DEVICE = "device"
"""The folder of devices' results: raw samples, a file per artifact and device."""
PAGE = "report.html"
OUTPUTS = "outputs.npz"
"""Some output values of every artifact, for the page's histogram."""
EVIDENCE = "verification.npz"
"""In OUT: the verification inputs and the float64 model's outputs."""
SIZES = "sizes.npz"
"""In OUT: inputs of other sizes than the verification inputs', and the float64 model's outputs."""
PREDICTIONS = "accuracy.npz"
"""In OUT: the labels, and the five likeliest classes that float32 and every artifact gave for each sample."""
ENCRYPTED = 0x1
"""The flag of an encrypted entry."""
MAX_NAME = 255


def name_of_source_file(checkpoint: Path) -> str:
    """Return what a user calls a checkpoint: a snapshot in the hub's cache is named by its network."""
    if checkpoint.parent.name == "snapshots" and checkpoint.parents[1].name.startswith("models--"):
        return checkpoint.parents[1].name.split("--")[-1]
    return checkpoint.name


def digest_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_file_or_folder(path: Path) -> str:
    """Return the sha256 of a file, or of a folder's sorted relative paths and contents (an .mlpackage)."""
    if path.is_file():
        return digest_file(path)
    total = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        total.update(f"{file.relative_to(path).as_posix()}\0{digest_file(file)}\n".encode())
    return total.hexdigest()


_CONTROLS = {code: "?" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def clean_log_file(path: Path) -> None:
    """Take terminal control codes out of what frameworks and models printed: people look at it with `cat`."""
    with contextlib.suppress(OSError):
        text = path.read_text(encoding="utf-8", errors="replace")
        if text.translate(_CONTROLS) != text:
            path.write_text(text.translate(_CONTROLS), encoding="utf-8")


def file_size_bytes(path: Path) -> int:
    """Return the size of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)


def files_of_artifact(path: Path) -> dict[str, Path]:
    """Return an artifact's files by what follows its own name: one by "", those of a folder by "/NAME"."""
    if not path.is_dir():
        return {"": path}
    below = sorted(p for p in path.rglob("*") if p.is_file())
    return {f"/{p.relative_to(path).as_posix()}": p for p in below}


def copy_file_or_folder(source: Path, target: Path) -> None:
    """Copy a file, or a folder (an .mlpackage); make the folders above it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)


def lowering_file(precision: Precision, name: str = "") -> str:
    """In OUT: what an artifact's quantised program computes.

    Args:
        precision: The artifact's. All of int8 come from one program.
        name: The artifact's: each mixed one has a program of its own.
    """
    return f"{name if precision == 'mixed' else precision}.lowering.npz"


def simulation_file(precision: Precision) -> str:
    """In OUT: what a precision makes of the model in a simulation, apart from any runtime."""
    return f"{precision}.simulated.npz"


def write_text_file(path: Path, text: str) -> None:
    """Write a file of OUT under a temporary name and rename it: a reader sees the old one or the new one.

    Temporary files of killed runs are removed.
    """
    prefix = f".{path.name}.partial-"
    for left_over in temporary_files.abandoned_temporary_files(path.parent, prefix):
        left_over.unlink(missing_ok=True)
    aside = path.with_name(f"{prefix}{secrets.token_hex(4)}")
    try:
        with aside.open("x", encoding="utf-8") as stream:
            temporary_files.hold_temporary_file(stream)
            stream.write(text)
            stream.flush()
            aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def keep_page_file(directory: Path) -> None:
    """Keep the page under another name while the page and the manifest that holds its hash are replaced."""
    page = directory / PAGE
    if page.is_file():
        kept = _kept_page_file(directory, digest_file(page))
        kept.unlink(missing_ok=True)
        try:
            kept.hardlink_to(page)
        except OSError:  # a file system without links
            shutil.copyfile(page, kept)


def forget_page_files(directory: Path) -> None:
    """Remove the pages that `keep_page_file` kept, once the manifest is replaced."""
    for kept in directory.glob(_kept_page_file(Path(), "*").name):
        kept.unlink(missing_ok=True)


def page_file_path(directory: Path, sha256: str | None) -> Path:
    """Return the page that a manifest describes.

    It is report.html, except after a bench was killed between page and manifest: then it is the kept page.

    Raises:
        VerificationError: The page is a link that leads out of the folder.
    """
    page = file_inside(directory, PAGE)
    if sha256 is None or (page.is_file() and digest_file(page) == sha256):
        return page
    kept = file_inside(directory, _kept_page_file(Path(), sha256).name)
    return kept if kept.is_file() and digest_file(kept) == sha256 else page


def _kept_page_file(directory: Path, sha256: str) -> Path:
    return directory / f".{PAGE}.kept-{sha256}"


def file_inside(directory: Path, file: str) -> Path:
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


def duplicate_files(entries: Sequence[zipfile.ZipInfo]) -> str:
    """Return why two entries are one on some file system; an empty string when none are."""
    names = {entry.filename.casefold() for entry in entries}
    return "" if len(names) == len(entries) else "The archive holds two records of one name"


def expanding_files(
    entries: Sequence[zipfile.ZipInfo], size_bytes: int, expansion: int, slack_bytes: int
) -> str:
    """Return why unpacking would take more than the archive can hold; an empty string when it would not.

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


def strange_file(entry: zipfile.ZipInfo) -> str:
    """Return why an entry must not become a file below a folder of ours; an empty string when it may."""
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


def default_cache_root() -> Path:
    """Return `$EXPORT_MOBILE_CACHE`, else `export-mobile` in the user's cache folder."""
    if chosen := os.environ.get("EXPORT_MOBILE_CACHE"):
        return Path(chosen)
    user = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification has an empty or relative path ignored.
    return (user if user.is_absolute() else Path.home() / ".cache") / "export-mobile"
