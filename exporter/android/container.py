"""Opens what the user gives: a library, or an AAR or APK with libraries. All are hostile until checked."""

from __future__ import annotations

import lzma
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

from exporter import files
from exporter.android import elf
from exporter.android.records import Container, Library

MAX_ENTRIES = 100_000
MAX_LIBRARY_BYTES = 1 << 30
MAX_TOTAL_BYTES = 2 << 30
"""The most that all libraries of a container may unpack to."""
EXPANSION = 20
"""Libraries shrink to a third or a quarter; an archive that promises more than this is a bomb."""
SLACK_BYTES = 1 << 20
LIBRARY = re.compile(r"(?:jni|lib)/([A-Za-z0-9_-]+)/([^/]+\.so)")
"""Where an AAR and an APK keep their libraries: folder, ABI, name."""
ANDROID_MANIFEST = "AndroidManifest.xml"
MIN_SDK = re.compile(r"android:minSdkVersion\s*=\s*[\"'](\d{1,3})[\"']")
MAX_MANIFEST_BYTES = 1 << 20
LOCAL_HEADER_BYTES = 30
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, NotImplementedError,
    RuntimeError,
)  # fmt: skip
"""What reading a damaged archive raises."""


def read_container_of_libraries(path: Path, wanted: Collection[str] = ()) -> Container:
    """Read a library, an AAR or an APK; the record's `problem` says what is wrong with it.

    Args:
        path: The file.
        wanted: The names to look for in the libraries.
    """
    try:
        size = path.stat().st_size
        if size > MAX_LIBRARY_BYTES:
            return Container(path.name, (), problem=f"it has {size} bytes, more than any app")
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
        if is_zip:
            return _read_container_archive(path, size, wanted)
        return Container(path.name, (elf.read_elf(path.name, path.read_bytes(), wanted),))
    except UNREADABLE as error:
        return Container(path.name, (), problem=f"it cannot be read: {error}")


def _read_container_archive(path: Path, size: int, wanted: Collection[str]) -> Container:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        libraries = [entry for entry in entries if LIBRARY.fullmatch(entry.filename)]
        if problem := _container_refusal(entries, libraries, size):
            return Container(path.name, (), problem=problem)
        described = tuple(_libraries_in_container(archive, libraries, path, wanted))
        problem = _missing_in_container(described)
        return Container(path.name, described, _min_sdk_of_container(archive), problem)


def _container_refusal(entries: list[zipfile.ZipInfo], libraries: list[zipfile.ZipInfo], size: int) -> str:
    """Return the first reason not to unpack the libraries; an empty string when there is none."""
    if len(entries) > MAX_ENTRIES:
        return f"it lists {len(entries)} files, expected at most {MAX_ENTRIES}"
    total = sum(entry.file_size for entry in libraries)
    if total > MAX_TOTAL_BYTES or any(entry.file_size > MAX_LIBRARY_BYTES for entry in libraries):
        return f"its libraries claim to unpack to {total} bytes, more than any app"
    for entry in libraries:
        if problem := files.strange_file(entry):
            return problem
    return files.duplicate_files(libraries) or files.expanding_files(libraries, size, EXPANSION, SLACK_BYTES)


def _libraries_in_container(
    archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], path: Path, wanted: Collection[str]
) -> Iterator[Library]:
    """Yield the libraries, one in memory at a time."""
    for entry in entries:
        match = LIBRARY.fullmatch(entry.filename)
        assert match
        with archive.open(entry) as stream:
            data = stream.read(entry.file_size + 1)  # zipfile compares length and CRC at the end
        name = f"{path.name}:{entry.filename}"
        yield elf.read_elf(name, data, wanted, match[1], _alignment_error_in_container(archive, entry, path))


def _alignment_error_in_container(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> int | None:
    """Return where an APK stores a library uncompressed, if that is no multiple of 16 KB; else None.

    Android maps such a library from within the APK. An AAR's are packed again when the app is built.
    """
    if path.suffix.lower() != ".apk" or entry.compress_type != zipfile.ZIP_STORED:
        return None
    assert archive.fp is not None
    archive.fp.seek(entry.header_offset)
    header = archive.fp.read(LOCAL_HEADER_BYTES)
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    offset = entry.header_offset + LOCAL_HEADER_BYTES + lengths
    return offset if offset % elf.PAGE_BYTES else None


def _missing_in_container(libraries: tuple[Library, ...]) -> str:
    if not libraries:
        return "it holds no library (jni/ABI/*.so or lib/ABI/*.so)"
    abis = sorted({library.name.rsplit(":", 1)[1].split("/")[1] for library in libraries})
    return "" if elf.ABI in abis else f"it holds no {elf.ABI} library, only {', '.join(abis)}"


def _min_sdk_of_container(archive: zipfile.ZipFile) -> int | None:
    """Return the minimum SDK that an AAR declares; None in an APK, whose manifest is binary."""
    try:
        entry = archive.getinfo(ANDROID_MANIFEST)
    except KeyError:
        return None
    if entry.file_size > MAX_MANIFEST_BYTES:
        return None
    with archive.open(entry) as stream:
        text = stream.read(MAX_MANIFEST_BYTES).decode("utf-8", "replace")
    declared = MIN_SDK.search(text)
    return int(declared[1]) if declared else None
