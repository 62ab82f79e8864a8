"""Tests of archives: their bytes never vary, and hostile ones are not unpacked."""

from __future__ import annotations

import io
import stat
import time
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exporter.errors import VerificationError
from exporter.release import zip as archive

DATE = datetime(2024, 5, 6, 7, 8, 10, tzinfo=UTC)
FILES: dict[str, archive.Content] = {"b.txt": b"second", "a/b.bin": bytes(range(40)), "empty/": b""}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    archive.write_zip(tmp_path / "good.zip", FILES, DATE)
    return tmp_path / "good.zip"


def unpack(path: Path) -> Path:
    into = path.parent / "unpacked"
    into.mkdir()
    archive.unpack_zip(path, into)
    return into


def test_what_goes_in_comes_out(good: Path) -> None:
    """Files and folders survive with their contents."""
    into = unpack(good)
    assert (into / "a" / "b.bin").read_bytes() == FILES["a/b.bin"]
    assert (into / "empty").is_dir()
    assert zipfile.ZipFile(good).testzip() is None


def test_bytes_depend_on_nothing_else(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Order, clock, file dates and the kind of source do not change the bytes."""
    source = tmp_path / "elsewhere"
    source.write_bytes(b"second")
    source.chmod(0o600)
    monkeypatch.setattr(time, "localtime", lambda _=None: time.gmtime(0))
    again: dict[str, archive.Content] = dict(reversed(FILES.items())) | {"b.txt": source}
    archive.write_zip(tmp_path / "again.zip", again, DATE)
    assert (tmp_path / "again.zip").read_bytes() == good.read_bytes()


def test_every_byte_counts(good: Path) -> None:
    """A change of any byte, in headers or padding, too, is refused."""
    original = good.read_bytes()
    for position in range(len(original)):
        changed = bytearray(original)
        changed[position] ^= 1 << position % 8
        good.write_bytes(changed)
        into = good.parent / f"into{position}"
        into.mkdir()
        with pytest.raises(VerificationError):
            archive.unpack_zip(good, into)


def raw(path: Path, *entries: tuple[zipfile.ZipInfo | str, bytes], kind: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", kind) as made:
        for name, content in entries:
            made.writestr(name, content)


def linked(path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    raw(path, (link, b"/etc/passwd"))


def encrypted(path: Path) -> None:
    raw(path, ("a", b"1"))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def overlapping(path: Path) -> None:
    """Make an archive of two names over the same bytes."""
    raw(path, ("a", bytes(5000)))
    data = path.read_bytes()
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    twice = data[start:end] + data[start:end].replace(b"a", b"b")
    tail = bytearray(data[end:])
    tail[8:12] = (2).to_bytes(2, "little") * 2
    tail[12:16] = len(twice).to_bytes(4, "little")
    path.write_bytes(data[:start] + twice + tail)


def duplicate(path: Path) -> None:
    raw(path, ("Model.bin", b"1"), ("model.bin", b"2"))


def around(before: bytes, after: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        archive.write_zip(path, FILES, DATE)
        path.write_bytes(before + path.read_bytes() + after)

    return make


def with_comment(path: Path) -> None:
    archive.write_zip(path, FILES, DATE)
    with zipfile.ZipFile(path, "a") as opened:
        opened.comment = b"hello"


def crowd(path: Path) -> None:
    raw(path, *((f"{i}", b"") for i in range(archive.MAX_ENTRIES + 1)))


def cut(path: Path) -> None:
    archive.write_zip(path, FILES, DATE)
    path.write_bytes(path.read_bytes()[:-30])


def no_zip(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 and no more")


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "parent": (lambda p: raw(p, ("../escaped", b"x")), "leads out"),
    "parent below": (lambda p: raw(p, ("a/../../escaped", b"x")), "leads out"),
    "absolute": (lambda p: raw(p, ("/tmp/export-mobile-escaped", b"x")), "leads out"),
    "drive": (lambda p: raw(p, ("c:escaped", b"x")), "no plain name"),
    "backslash": (lambda p: raw(p, ("a\\..\\..\\escaped", b"x")), "no plain name"),
    "control characters": (lambda p: raw(p, ("a\x1b[2J", b"x")), "no plain name"),
    "long name": (lambda p: raw(p, ("a" * 300, b"x")), "longer than"),
    "link": (linked, "is a link"),
    "encrypted": (encrypted, "is encrypted"),
    "bomb": (lambda p: raw(p, ("a", bytes(50 << 20)), kind=zipfile.ZIP_DEFLATED), "is compressed"),
    "overlap": (overlapping, "claims to"),
    "duplicate": (duplicate, "two records of one name"),
    "file as folder": (lambda p: raw(p, ("a", b"x"), ("a/b", b"x")), "is inside a file"),
    "too many": (crowd, "lists 10001 files"),
    "empty": (raw, "lists 0 files"),
    "bytes in front": (around(b"#!/bin/sh\n", b""), "did not write|not a whole zip"),
    "bytes behind": (around(b"", b"more"), "did not write|not a whole zip"),
    "comment": (with_comment, "did not write"),
    "packed again": (lambda p: raw(p, *((n, bytes(c)) for n, c in FILES.items())), "did not write"),
    "no zip": (no_zip, "not a whole zip"),
    "cut short": (cut, "not a whole zip"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused(name: str, tmp_path: Path) -> None:
    """The refusal has its reason, and nothing is written outside."""
    make, words = HOSTILE[name]
    folder = tmp_path / "in"
    folder.mkdir()
    make(folder / "x.zip")
    with pytest.raises(VerificationError, match=words):
        unpack(folder / "x.zip")
    assert {p.name for p in tmp_path.iterdir()} == {"in"}
    assert {p.name for p in folder.iterdir()} == {"x.zip", "unpacked"}
    assert not Path("/tmp/export-mobile-escaped").exists()


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """50 MB of zeros in 50 kB are refused by the listing."""
    HOSTILE["bomb"][0](tmp_path / "x.zip")
    with pytest.raises(VerificationError):
        unpack(tmp_path / "x.zip")
    assert not list((tmp_path / "unpacked").iterdir())


def test_lying_sizes_are_refused(tmp_path: Path) -> None:
    """A listing with a wrong size of a stored file is refused."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("a", bytes(10))
    data = bytearray(buffer.getvalue())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = (1 << 31).to_bytes(4, "little")
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(VerificationError, match="two sizes"):
        unpack(tmp_path / "x.zip")
