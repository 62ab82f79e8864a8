"""Tests of opening AARs and APKs, which are hostile until checked."""

from __future__ import annotations

import struct
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_LZMA, ZipFile

import pytest

from exporter.android import container, elf
from tests.android import libraries

GOOD = libraries.executorch(["aten::add.out"])
MANIFEST = b'<manifest><uses-sdk android:minSdkVersion="21" /></manifest>'


def test_an_aar_gives_its_libraries_and_its_minimum_sdk(tmp_path: Path) -> None:
    """Libraries are read for the ABI of their folder; other files are left alone."""
    files = {
        "AndroidManifest.xml": MANIFEST,
        "classes.jar": b"PK",
        "jni/arm64-v8a/liba.so": GOOD,
        "jni/x86_64/liba.so": libraries.library([], machine=libraries.X86_64),
    }
    opened = container.read_container_of_libraries(
        libraries.archive(tmp_path / "a.aar", files), ["aten::add.out"]
    )
    assert (opened.problem, opened.min_sdk) == ("", 21)
    assert [library.problem for library in opened.libraries] == ["", ""]
    assert opened.libraries[0].names == {"aten::add.out"}


def test_a_library_in_the_folder_of_another_abi_has_a_problem(tmp_path: Path) -> None:
    """The folder says for which ABI Android loads it."""
    wrong = libraries.library([], machine=libraries.X86_64)
    opened = container.read_container_of_libraries(
        libraries.archive(tmp_path / "a.aar", {"jni/arm64-v8a/liba.so": wrong})
    )
    assert "built for x86_64" in opened.libraries[0].problem


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"classes.jar": b"x"}, "holds no library"),
        (
            {"lib/x86_64/liba.so": libraries.library([], machine=libraries.X86_64)},
            "no arm64-v8a library, only x86_64",
        ),
    ],
)
def test_an_archive_without_arm_libraries_has_a_problem(
    tmp_path: Path, files: dict[str, bytes], problem: str
) -> None:
    """An app for 64-bit Arm phones needs a library for them."""
    assert (
        problem in container.read_container_of_libraries(libraries.archive(tmp_path / "a.apk", files)).problem
    )


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """An archive that promises far more than its size is refused by its listing alone."""
    bomb = libraries.archive(tmp_path / "a.aar", {"jni/arm64-v8a/liba.so": GOOD + bytes(64 << 20)})
    assert bomb.stat().st_size < 1 << 20
    opened = container.read_container_of_libraries(bomb)
    assert "claims to unpack to" in opened.problem
    assert not opened.libraries


def test_a_size_that_is_a_lie_is_found(tmp_path: Path) -> None:
    """A listing that claims less than is there does not make the reader unpack more."""
    path = libraries.archive(tmp_path / "a.aar", {"jni/arm64-v8a/liba.so": GOOD + bytes(8 << 20)})
    data = bytearray(path.read_bytes())
    size = struct.pack("<I", len(GOOD) + (8 << 20))
    for _ in range(data.count(size)):
        at = data.index(size)
        data[at : at + 4] = struct.pack("<I", 1000)
    path.write_bytes(data)
    assert "cannot be read" in container.read_container_of_libraries(path).problem


@pytest.mark.parametrize("cut", [10, 100, 200])
def test_an_archive_that_is_cut_short_has_a_problem(tmp_path: Path, cut: int) -> None:
    """A damaged archive is a problem of that file, not an exception."""
    path = libraries.archive(tmp_path / "a.aar", {"jni/arm64-v8a/liba.so": GOOD})
    path.write_bytes(path.read_bytes()[:-cut])
    assert "cannot be read" in container.read_container_of_libraries(path).problem


def test_damage_in_any_compression_is_a_problem(tmp_path: Path) -> None:
    """Zip archives may be packed by LZMA, whose errors are of a kind of their own."""
    path = tmp_path / "a.aar"
    with ZipFile(path, "w", ZIP_LZMA) as archive:
        archive.writestr("jni/arm64-v8a/liba.so", GOOD)
    data = path.read_bytes()
    at = data.index(b"liba.so") + len(b"liba.so") + 4
    path.write_bytes(data[:at] + b"\xff" * 5 + data[at + 5 :])
    assert "cannot be read" in container.read_container_of_libraries(path).problem


def test_two_libraries_of_one_name_have_a_problem(tmp_path: Path) -> None:
    """Which of them a phone loads would be a matter of chance."""
    path = tmp_path / "a.aar"
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        archive.writestr("jni/arm64-v8a/liba.so", GOOD)
        archive.writestr("jni/arm64-v8a/LIBA.so", GOOD)
    assert "two records of one name" in container.read_container_of_libraries(path).problem


def test_an_apk_must_store_libraries_at_16_kb(tmp_path: Path) -> None:
    """Android maps a library that an APK stores uncompressed from within it; an AAR is packed again."""
    name = "lib/arm64-v8a/liba.so"
    plain = libraries.archive(tmp_path / "a.apk", {name: GOOD}, stored=True)
    assert container.read_container_of_libraries(plain).libraries[0].unaligned_offset == 30 + len(name)
    padding = elf.PAGE_BYTES - 30 - len(name)
    aligned = libraries.archive(tmp_path / "b.apk", {name: GOOD}, stored=True, padding={name: padding})
    assert container.read_container_of_libraries(aligned).libraries[0].unaligned_offset is None
    as_aar = libraries.archive(tmp_path / "c.aar", {f"jni/{name[4:]}": GOOD}, stored=True)
    assert container.read_container_of_libraries(as_aar).libraries[0].unaligned_offset is None
