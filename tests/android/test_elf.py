"""Tests of reading Android libraries, whole and damaged."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.android import elf
from tests.android import libraries


def test_a_library_is_described() -> None:
    """ABI, page alignment, API level, NDK, names and runtime are read from the file."""
    data = libraries.executorch(["aten::add.out"], nodes=["XNNAdd"])
    library = elf.read_elf("lib.so", data, ["aten::add.out", "aten::mul.out", "XNNAdd", "XnnpackBackend"])
    assert library.problem == ""
    assert (library.abi, library.page_bytes, library.min_sdk, library.ndk) == ("arm64-v8a", 16384, 24, "r27c")
    assert library.names == {"aten::add.out", "XNNAdd", "XnnpackBackend"}
    assert library.executorch
    assert not library.onnx_runtime
    assert library.identifiers == ("ET12",)


def test_onnx_runtime_is_known_by_the_function_that_it_exports() -> None:
    """A library that only calls ONNX Runtime is not ONNX Runtime."""
    assert elf.read_elf("a.so", libraries.onnxruntime(["Conv"])).version == "1.32.0"
    caller = libraries.library(["Conv", "1.32.0"], imports=["OrtGetApiBase"])
    assert not elf.read_elf("b.so", caller).onnx_runtime


def test_a_library_of_pytorch_is_no_part_of_executorch() -> None:
    """PyTorch's libraries name the same operators."""
    assert not elf.read_elf("torch.so", libraries.library(["aten::add.out", "torch::jit"])).executorch


def test_a_name_at_the_end_of_another_is_a_tail() -> None:
    """A linker may store "MatMul" as the end of "FusedMatMul", so it may be there."""
    library = elf.read_elf("a.so", libraries.onnxruntime(["FusedMatMul", "Conv"]), ["MatMul", "Conv", "Gemm"])
    assert library.names == {"Conv"}
    assert library.tails == {"MatMul"}


def test_a_library_of_one_long_text_takes_no_more_time_than_another() -> None:
    """A name is looked for once in every text, not once at each of its characters."""
    names, tails = elf._elf_names(b"A" * (1 << 20) + b"\x01\0aten::add.out\0", ["aten::add.out"])
    assert (names, tails) == (frozenset({"aten::add.out"}), frozenset())


def test_a_name_of_writable_data_is_not_registered() -> None:
    """Only constants count."""
    data = libraries.executorch(["aten::add.out"])
    at = data.index(b"\x01\x00\x00\x00\x05\x00\x00\x00")  # PT_LOAD, readable and executable
    writable = data[:at] + b"\x01\x00\x00\x00\x06\x00\x00\x00" + data[at + 8 :]
    assert not elf.read_elf("a.so", writable, ["aten::add.out"]).names


@pytest.mark.parametrize("align", [4096, 8192, 16384, 65536])
def test_the_alignment_is_the_segments_own(align: int) -> None:
    """The page size is what the loadable segments are aligned to."""
    assert elf.read_elf("a.so", libraries.library([], align=align)).page_bytes == align


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (libraries.library([], machine=libraries.X86_64), "built for x86_64, expected arm64-v8a"),
        (libraries.library([], needed=["libc.so.6"]), "built for Linux, not for Android: it needs libc.so.6"),
        (libraries.library([], kind=2), "no shared library"),
        (b"", "no ELF file"),
        (b"not an ELF file", "no ELF file"),
        (libraries.library([])[:40], "cut short"),
        (libraries.library([])[:-1], "cut short"),
        (libraries.library(["x"] * 5000)[:3000], "cut short"),
    ],
    ids=["ABI", "Linux", "type", "empty", "text", "header", "last byte", "segment"],
)
def test_a_library_that_cannot_be_used_has_a_problem(data: bytes, problem: str) -> None:
    """Another ABI, another system, another kind of file and a damaged one are each named."""
    assert problem in elf.read_elf("lib.so", data).problem


@given(st.integers(0, 400), st.binary(min_size=1, max_size=8), st.integers(0, 600))
def test_no_damage_raises(place: int, garbage: bytes, cut: int) -> None:
    """Bytes that are overwritten or cut off make a record, never an exception."""
    data = bytearray(libraries.executorch(["aten::add.out"]))
    data[place : place + len(garbage)] = garbage
    elf.read_elf("lib.so", bytes(data[: max(len(data) - cut, 0)]), ["aten::add.out"])


@pytest.mark.skipif(not shutil.which("aarch64-linux-gnu-gcc"), reason="no Arm cross compiler")
def test_a_real_compilers_library_is_read(tmp_path: Path) -> None:
    """A library that a compiler and a linker made is described like the small ones that the tests write."""
    source, built = tmp_path / "kernels.c", tmp_path / "libkernels.so"
    source.write_text('const char *names[] = {"aten::add.out", "XnnpackBackend", "ET12"};\n')
    pages = "-Wl,-z,max-page-size=4096"
    command = ["aarch64-linux-gnu-gcc", "-shared", "-fPIC", "-nostdlib", pages, "-o", str(built), str(source)]
    subprocess.run(command, check=True)
    library = elf.read_elf(built.name, built.read_bytes(), ["aten::add.out", "XnnpackBackend"])
    assert (library.problem, library.abi, library.page_bytes) == ("", "arm64-v8a", 4096)
    assert library.names == {"aten::add.out", "XnnpackBackend"}
    assert library.identifiers == ("ET12",)
