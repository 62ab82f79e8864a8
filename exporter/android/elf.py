"""Reads a shared library without loading it: ABI, page alignment, Android's note, names in its data.

pyelftools reads the ELF structures: it is pure Python, small and without dependencies. What a runtime
registers is found by name, as both runtimes' kernels and backends are registered by text.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from exporter.android.records import Library

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

HEADER_BYTES = 64
PAGE_BYTES = 16384
"""The largest page of Android devices; Google Play refuses apps whose libraries need smaller ones."""
ABI = "arm64-v8a"
ABIS = {"EM_AARCH64": ABI, "EM_X86_64": "x86_64", "EM_ARM": "armeabi-v7a", "EM_386": "x86"}
WIDE_ABIS = (ABI, "x86_64")
"""The 64-bit ABIs: only their libraries must be aligned to 16 KB."""
SEGMENTS = 200
"""The most segments of a library; real ones have about ten."""
TEXT = re.compile(rb"(?:\0|(?<![A-Za-z0-9_.:]))[A-Za-z0-9_.:]{2,}+(?=\0)")
"""A text that ends like a name; with the NUL before it where it is a whole text.

No match begins within a text: a library that is one long text would take time in proportion to its square.
"""
IDENTIFIER = re.compile(rb"(?<![A-Za-z0-9])ET[0-9]{2}(?=\0)")
VERSION = re.compile(rb"(?<![0-9.])1\.[0-9]{2}\.[0-9]{1,2}(?=\0)")
"""ONNX Runtime's version, as `OrtGetVersionString` returns it."""
KERNEL = re.compile(rb"(?:aten|executorch_prim|quantized_decomposed|dim_order_ops)::[A-Za-z0-9_.]+\0")
"""A kernel's name. PyTorch's own libraries have such names, too."""
PYTORCH = (b"torch::jit", b"_ZN5torch3jit")
READS_ONNX = b"Unsupported model IR version"
"""What a build of ONNX Runtime says that reads .onnx files; a minimal build reads .ort files only."""
ENTRY = "OrtGetApiBase"
"""The function by which programs call ONNX Runtime."""
LINUX = ("libc.so.6", "libstdc++.so.6", "ld-linux-aarch64.so.1")
NOTE_ANDROID = "Android"


class Damaged(Exception):  # noqa: N818 - becomes the library's problem
    """The file is not a whole ELF library; the text says why."""


def read_elf(
    name: str,
    data: bytes,
    wanted: Collection[str] = (),
    expected_abi: str = ABI,
    unaligned_offset: int | None = None,
) -> Library:
    """Describe a library. A file that is damaged is described, too: `problem` says why it cannot be used.

    Args:
        name: What the library is called in messages.
        data: The whole file.
        wanted: The names to look for.
        expected_abi: The ABI that the app loads it for.
        unaligned_offset: See `Library`.
    """
    try:
        return replace(_read_elf_file(name, data, wanted, expected_abi), unaligned_offset=unaligned_offset)
    except Damaged as error:
        problem = str(error)
    except Exception as error:  # pyelftools reads damaged tables until any of Python's errors
        problem = f"it is damaged ({type(error).__name__})"
    return Library(name, problem=problem)


def _read_elf_file(name: str, data: bytes, wanted: Collection[str], expected_abi: str) -> Library:
    from elftools.elf.elffile import ELFFile

    if data[:4] != b"\x7fELF":
        raise Damaged("it is no ELF file")
    if len(data) < HEADER_BYTES:
        raise Damaged(f"it is cut short: it ends after {len(data)} bytes, within its header")
    elf = ELFFile(io.BytesIO(data))
    _check_elf_whole(elf, len(data))
    segments = list(_elf_segments(elf, "PT_LOAD"))
    if not segments:
        raise Damaged("it has nothing to load")
    abi = ABIS.get(str(elf["e_machine"]), f"machine {elf['e_machine']}")
    constants = b"\0".join((b"", *_elf_constants(segments, data), b""))
    api, ndk = _elf_android_note(elf)
    executorch = _is_elf_of_executorch(constants, data)
    onnx_runtime = ENTRY.encode() in data and _elf_defines(elf, ENTRY)
    names, tails = _elf_names(constants, wanted if abi == ABI and (executorch or onnx_runtime) else ())
    return Library(
        name,
        abi=abi,
        page_bytes=min(_elf_alignment(segment) for segment in segments),
        min_sdk=api,
        ndk=ndk,
        executorch=executorch,
        onnx_runtime=onnx_runtime,
        names=names,
        tails=tails,
        identifiers=tuple(sorted({match.decode() for match in IDENTIFIER.findall(constants)})),
        version=_elf_version(constants) if onnx_runtime else "",
        reads_onnx=READS_ONNX in constants,
        problem=_elf_problem(elf, abi, expected_abi),
    )


def _check_elf_whole(elf: ELFFile, size: int) -> None:
    """Raise Damaged where a table or a segment is beyond the file's end."""
    if elf.header["e_phnum"] > SEGMENTS:
        raise Damaged(f"it lists {elf.header['e_phnum']} segments")
    ends = [
        elf.header["e_phoff"] + elf.header["e_phnum"] * elf.header["e_phentsize"],
        elf.header["e_shoff"] + elf.header["e_shnum"] * elf.header["e_shentsize"],
    ]
    if max(ends) <= size:
        ends += [segment["p_offset"] + segment["p_filesz"] for segment in elf.iter_segments()]
    if max(ends) > size:
        raise Damaged(f"it is cut short: its tables need {max(ends)} bytes, it has {size}")


def _elf_constants(segments: list[Any], data: bytes) -> Iterator[bytes]:
    """Yield the bytes of the segments that are not writable: constants, and code where they share one."""
    for segment in segments:
        if not segment["p_flags"] & 2:
            yield data[segment["p_offset"] : segment["p_offset"] + segment["p_filesz"]]


def _elf_alignment(segment: Any) -> int:
    """Return the largest page size for which the kernel can map a segment; pages are powers of two."""
    aligned: int = max(segment["p_align"], 1)
    shift = (segment["p_vaddr"] - segment["p_offset"]) % aligned
    return aligned if shift == 0 else shift & -shift


def _elf_names(constants: bytes, wanted: Collection[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the wanted names that are texts of their own, and those that are only the end of a text."""
    if not wanted:
        return frozenset(), frozenset()
    texts = {match.group() for match in TEXT.finditer(constants)}
    whole = frozenset(name for name in wanted if b"\0" + name.encode() in texts)
    ends = [name for name in wanted if name not in whole]
    tails = (name for name in ends if any(text.endswith(name.encode()) for text in texts))
    return whole, frozenset(tails)


def _is_elf_of_executorch(constants: bytes, data: bytes) -> bool:
    """Return whether a library is a part of ExecuTorch, or registers kernels or backends with it."""
    if IDENTIFIER.search(constants) or b"executorch" in constants:
        return True
    return bool(KERNEL.search(constants)) and not any(mark in data for mark in PYTORCH)


def _elf_defines(elf: ELFFile, symbol: str) -> bool:
    """Return whether a library exports a function, rather than calling that of another library."""
    return any(
        item.name == symbol and item["st_shndx"] != "SHN_UNDEF"
        for segment in _elf_segments(elf, "PT_DYNAMIC")
        for item in segment.iter_symbols()
    )


def _elf_version(constants: bytes) -> str:
    """Return the one version that is in the library; empty where there is none, or several."""
    versions = {match.group().decode() for match in VERSION.finditer(constants)}
    return versions.pop() if len(versions) == 1 else ""


def _elf_android_note(elf: ELFFile) -> tuple[int | None, str]:
    """Return the API level and the NDK's release of `.note.android.ident`; None and "" without it."""
    for segment in _elf_segments(elf, "PT_NOTE"):
        for note in segment.iter_notes():
            if note["n_name"] == NOTE_ANDROID and note["n_descsz"] >= 4:
                description = note["n_descdata"]
                ndk = description[4:68].split(b"\0")[0].decode("ascii", "replace")
                return struct.unpack("<I", description[:4])[0], ndk if ndk.isprintable() else ""
    return None, ""


def _elf_problem(elf: ELFFile, abi: str, expected_abi: str) -> str:
    if elf["e_type"] != "ET_DYN":
        return f"it is no shared library, its ELF type is {elf['e_type']}"
    if abi != expected_abi:
        return f"it is built for {abi}, expected {expected_abi}"
    if needed := sorted(set(_elf_needed(elf)) & set(LINUX)):
        return f"it is built for Linux, not for Android: it needs {', '.join(needed)}"
    return ""


def _elf_needed(elf: ELFFile) -> Iterator[str]:
    """Yield the names of the libraries that this one is linked with."""
    for segment in _elf_segments(elf, "PT_DYNAMIC"):
        yield from (tag.needed for tag in segment.iter_tags() if tag.entry.d_tag == "DT_NEEDED")


def _elf_segments(elf: ELFFile, kind: str) -> Iterator[Any]:
    """Yield the segments of one kind, each of pyelftools' class for it."""
    yield from (segment for segment in elf.iter_segments() if segment["p_type"] == kind)
