"""Write and read zip archives whose bytes depend only on their files and one date.

Nothing is compressed: model weights hardly shrink, another zlib would give other bytes, a phone can map a
stored file, and an archive that must be stored cannot be a bomb.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from exporter import temporary_files
from exporter.errors import VerificationError
from exporter.files import duplicate_files, expanding_files, strange_file

Content = bytes | Path
UNIX = 3
MAX_ENTRIES = 10_000
BLOCK = 1 << 20


def write_zip(path: Path, files: Mapping[str, Content], date: datetime) -> None:
    """Write files (name -> bytes, or their path) in the order of their names.

    A name that ends with a slash is a folder. `date` is UTC and loses its odd second: zip counts by two.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            content = files[name]
            entry = zipfile.ZipInfo(name, date.timetuple()[:6])
            entry.create_system = UNIX
            kind = stat.S_IFDIR | 0o755 if name.endswith("/") else stat.S_IFREG | 0o644
            entry.external_attr = kind << 16
            if isinstance(content, bytes):
                archive.writestr(entry, content)
                continue
            entry.file_size = content.stat().st_size
            with content.open("rb") as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target, BLOCK)


@contextlib.contextmanager
def unpacked_zip(path: Path) -> Iterator[Path]:
    """Unpack an archive into a temporary folder, which is gone after the block.

    Raises:
        VerificationError: As `unpack_zip`.
    """
    with temporary_files.temporary_scratch("unpack") as scratch:
        inside = scratch / "zip"
        inside.mkdir()
        unpack_zip(path, inside)
        yield inside


def folder_for_zip(directory: Path) -> dict[str, Path]:
    """Return every file below a folder, for `write_zip`."""
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    return {p.relative_to(directory).as_posix(): p for p in files}


def unpack_zip(path: Path, into: Path) -> None:
    """Unpack an archive that `write_zip` made into an empty folder; every byte of it is accounted for.

    Nothing is written before the whole listing is checked. In the end the archive is written
    again from what came out, and must be the same: no byte of it means nothing.

    Raises:
        VerificationError: It is no such archive, or is damaged or hostile.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if problem := zip_refusal(entries, path.stat().st_size):
                raise VerificationError(f"{path.name} is not unpacked: {problem}.", HINT)
            for entry in entries:
                _extract_zip(archive, entry, into)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise VerificationError(f"{path.name} is not a whole zip archive: {error}.", HINT) from None
    _compare_zip_entries(path, into, entries)


HINT = "Take the file that `export-mobile release` wrote, or get it again."


def zip_refusal(entries: list[zipfile.ZipInfo], size_bytes: int) -> str:
    """Return the first reason to refuse a listing; an empty string when there is none."""
    if not entries or len(entries) > MAX_ENTRIES:
        return f"it lists {len(entries)} files, expected 1 to {MAX_ENTRIES}"
    for entry in entries:
        if problem := strange_file(entry):
            return problem
        if entry.compress_type != zipfile.ZIP_STORED:
            return f"{entry.filename!a} is compressed, and nothing in a bundle is"
        if entry.file_size != entry.compress_size:
            return f"{entry.filename!a} has two sizes"
    if problem := duplicate_files(entries) or expanding_files(entries, size_bytes, 1, 0):
        return problem[:1].lower() + problem[1:].rstrip(".")
    names = {entry.filename for entry in entries}
    inside = next((n for n in names for i, c in enumerate(n[:-1]) if c == "/" and n[:i] in names), None)
    return f"{inside!a} is inside a file" if inside else ""


def _extract_zip(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, into: Path) -> None:
    target = into / entry.filename
    if entry.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, target.open("xb") as file:
        shutil.copyfileobj(source, file, BLOCK)


def _compare_zip_entries(path: Path, into: Path, entries: list[zipfile.ZipInfo]) -> None:
    again = into.with_name(f"{into.name}.again.zip")
    files: dict[str, Content] = {e.filename: b"" if e.is_dir() else into / e.filename for e in entries}
    try:
        write_zip(again, files, datetime(*entries[0].date_time, tzinfo=UTC))
        same = _same_zip_bytes(path, again)
    except ValueError:  # no such date
        same = False
    finally:
        again.unlink(missing_ok=True)
    if not same:
        raise VerificationError(
            f"{path.name} holds bytes that export-mobile did not write: it was changed or packed again.",
            HINT,
            code="EM-CHANGED",
        )


def _same_zip_bytes(left: Path, right: Path) -> bool:
    if os.path.getsize(left) != os.path.getsize(right):  # noqa: PTH202 - both exist
        return False
    with left.open("rb") as first, right.open("rb") as second:
        while block := first.read(BLOCK):
            if block != second.read(BLOCK):
                return False
    return True
