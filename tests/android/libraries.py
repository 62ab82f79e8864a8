"""Writes small Android libraries: real ELF files with the tables that a loader reads."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

AARCH64, X86_64 = 183, 62
PT_LOAD, PT_DYNAMIC, PT_NOTE = 1, 2, 4
DT_NEEDED, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT = 1, 4, 5, 6, 10, 11
HEADER, PROGRAM_HEADER, SECTION_HEADER, SYMBOL = 64, 56, 64, 24


def library(
    texts: Sequence[str],
    *,
    exports: Sequence[str] = (),
    imports: Sequence[str] = (),
    needed: Sequence[str] = ("libc.so", "liblog.so"),
    align: int = 16384,
    machine: int = AARCH64,
    api: int | None = 24,
    ndk: str = "r27c",
    kind: int = 3,
) -> bytes:
    """Return a library whose read-only data are the texts, each ended by NUL.

    Args:
        texts: What a compiler puts into `.rodata`.
        exports: Functions that it defines.
        imports: Functions that it calls of other libraries.
        needed: The libraries that it is linked with.
        align: Of its loadable segments.
        machine: The ELF machine.
        api: The API level in the NDK's note; None leaves the note out.
        ndk: The NDK's release in the note.
        kind: The ELF type; 3 is a shared library.
    """
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (*needed, *exports, *imports))
    place = {name: names.index(b"\0" + name.encode() + b"\0") + 1 for name in (*needed, *exports, *imports)}
    symbols = bytes(SYMBOL)
    symbols += b"".join(struct.pack("<IBBHQQ", place[name], 0x12, 0, 1, 0x100, 8) for name in exports)
    symbols += b"".join(struct.pack("<IBBHQQ", place[name], 0x12, 0, 0, 0, 0) for name in imports)
    count = len(symbols) // SYMBOL
    hashes = struct.pack(f"<{3 + count}I", 1, count, 0, *range(count))
    note = b"" if api is None else _note(api, ndk)
    constants = b"\0" + b"".join(text.encode() + b"\0" for text in texts)

    segments = 3 if note else 2
    parts: dict[str, bytes] = {}
    offset = HEADER + segments * PROGRAM_HEADER
    places: dict[str, int] = {}
    for name, data in (
        ("names", names), ("symbols", symbols), ("hashes", hashes), ("note", note), ("constants", constants),
    ):  # fmt: skip
        offset = -(-offset // 8) * 8
        places[name], parts[name] = offset, data
        offset += len(data)
    offset = -(-offset // 8) * 8
    tags = [
        *((DT_NEEDED, place[name]) for name in needed),
        (DT_HASH, places["hashes"]), (DT_STRTAB, places["names"]), (DT_SYMTAB, places["symbols"]),
        (DT_STRSZ, len(names)), (DT_SYMENT, SYMBOL), (0, 0),
    ]  # fmt: skip
    places["dynamic"], parts["dynamic"] = offset, b"".join(struct.pack("<QQ", *tag) for tag in tags)
    end = offset + len(parts["dynamic"])
    headers = [(PT_LOAD, 5, 0, end, align), (PT_DYNAMIC, 4, offset, len(parts["dynamic"]), 8)]
    if note:
        headers.append((PT_NOTE, 4, places["note"], len(note), 4))
    image = bytearray(end)
    image[:HEADER] = _header(machine, kind, segments, end)
    for index, (segment, flags, start, size, alignment) in enumerate(headers):
        entry = struct.pack("<IIQQQQQQ", segment, flags, start, start, start, size, size, alignment)
        image[HEADER + index * PROGRAM_HEADER : HEADER + (index + 1) * PROGRAM_HEADER] = entry
    for name, data in parts.items():
        image[places[name] : places[name] + len(data)] = data
    return bytes(image) + bytes(SECTION_HEADER)  # one empty section, at the very end as in every real file


def _header(machine: int, kind: int, segments: int, sections_at: int) -> bytes:
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    sizes = (HEADER, PROGRAM_HEADER, segments, SECTION_HEADER, 1, 0)
    return identity + struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, 0, HEADER, sections_at, 0, *sizes)


def _note(api: int, ndk: str) -> bytes:
    description = struct.pack("<I64s64s", api, ndk.encode(), b"12479018")
    return struct.pack("<III8s", 8, len(description), 1, b"Android\0") + description


def executorch(
    operators: Sequence[str],
    backends: Sequence[str] = ("XnnpackBackend",),
    nodes: Sequence[str] = (),
    identifier: str = "ET12",
    **options: object,
) -> bytes:
    """Return a library that registers kernels and backends with ExecuTorch."""
    return library([identifier, "executorch", *operators, *backends, *nodes], **options)  # type: ignore[arg-type]


def onnxruntime(
    operators: Sequence[str], version: str = "1.32.0", reads_onnx: bool = True, **options: object
) -> bytes:
    """Return a library of ONNX Runtime that names operators."""
    texts = [version, *operators, *(["Unsupported model IR version: "] if reads_onnx else [])]
    return library(texts, exports=["OrtGetApiBase"], **options)  # type: ignore[arg-type]


def archive(
    path: Path, files: Mapping[str, bytes], stored: bool = False, padding: Mapping[str, int] | None = None
) -> Path:
    """Write an AAR or APK; `padding` is the length of an entry's extra field, which moves its data."""
    with ZipFile(path, "w", ZIP_STORED if stored else ZIP_DEFLATED) as target:
        for name, data in files.items():
            entry = ZipInfo(name)
            entry.compress_type = ZIP_STORED if stored else ZIP_DEFLATED
            size = (padding or {}).get(name, 0)
            entry.extra = struct.pack("<HH", 0xD935, size - 4) + bytes(size - 4) if size else b""
            target.writestr(entry, data)
    return path
