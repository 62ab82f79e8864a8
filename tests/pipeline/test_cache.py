from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from exporter import temporary_files
from exporter.errors import UsageError
from exporter.files import digest_file_or_folder
from exporter.pipeline.cache import (
    LIMIT_BYTES,
    Cache,
    cache_key,
    cache_limit_bytes,
    cache_toolchain_key,
    check_cache_private,
    default_cache_root,
)
from exporter.records import Limits, TensorSpec, Verdict


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_what_was_put_is_found_with_its_files(cache: Cache, tmp_path: Path) -> None:
    """A record and its files, a folder among them, come back as they went in."""
    (tmp_path / "a.bin").write_bytes(b"weights")
    (tmp_path / "m.mlpackage" / "Data").mkdir(parents=True)
    (tmp_path / "m.mlpackage" / "Data" / "w").write_bytes(b"more")
    spec = TensorSpec("x", (1, 2))
    cache.put("k", "1", spec, {n: tmp_path / n for n in ("a.bin", "m.mlpackage")})
    assert cache.get("k", "1", TensorSpec, tmp_path / "back") == spec
    assert digest_file_or_folder(tmp_path / "back" / "m.mlpackage") == digest_file_or_folder(
        tmp_path / "m.mlpackage"
    )
    assert (tmp_path / "back" / "a.bin").read_bytes() == b"weights"


def test_infinite_figures_survive(cache: Cache) -> None:
    """A perfect artifact has an SQNR of inf."""
    cache.put("k", "1", Limits(int8_min_sqnr_db=float("inf")))
    record = cache.get("k", "1", Limits)
    assert record is not None
    assert record.int8_min_sqnr_db == float("inf")


def test_a_damaged_file_is_a_miss(cache: Cache, tmp_path: Path) -> None:
    """Files are hashed again: a flipped byte on disk is never delivered."""
    (tmp_path / "a.bin").write_bytes(b"weights")
    cache.put("k", "1", TensorSpec("x", (1,)), {"a.bin": tmp_path / "a.bin"})
    (tmp_path / "cache" / "k" / "1" / "files" / "a.bin").write_bytes(b"weighty")
    assert cache.get("k", "1", TensorSpec, tmp_path / "back") is None
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"record": {"name": 3}, "files": {}}', '{"record": null}', "\n{}", "\n"]
)
def test_a_damaged_record_is_a_miss(cache: Cache, tmp_path: Path, text: str) -> None:
    """Whatever lies there, it is not an error."""
    cache.put("k", "1", TensorSpec("x", (1,)))
    (tmp_path / "cache" / "k" / "1" / "record.json").write_text(text)
    assert cache.get("k", "1", TensorSpec) is None


def test_an_empty_key_keeps_nothing(cache: Cache) -> None:
    """Work whose inputs cannot be hashed is never found again."""
    cache.put("k", "", TensorSpec("x", (1,)))
    assert cache.get("k", "", TensorSpec) is None


def test_no_cache_finds_nothing() -> None:
    """--no-cache."""
    cache = Cache(None)
    cache.put("k", "1", TensorSpec("x", (1,)))
    assert cache.get("k", "1", TensorSpec) is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    """The export matters more."""
    (tmp_path / "file").write_text("")
    Cache(tmp_path / "file" / "cache").put("k", "1", TensorSpec("x", (1,)))


def test_keys_differ_when_anything_differs() -> None:
    """Values, types, order and nesting all count."""
    keys = {
        cache_key("a", 1),
        cache_key("a", "1"),
        cache_key("a1"),
        cache_key(1, "a"),
        cache_key(("a", 1)),
        cache_key(TensorSpec("a", (1,))),
    }
    assert len(keys) == 6


def test_a_package_version_changes_the_toolchain() -> None:
    """Every installed package counts, not only the ones we know to matter."""
    before = cache_toolchain_key()
    cache_toolchain_key.cache_clear()
    package = mock.Mock(version="99")
    package.name = "some-package"
    with mock.patch("importlib.metadata.distributions", return_value=[package]):
        assert cache_toolchain_key() != before
    cache_toolchain_key.cache_clear()
    assert cache_toolchain_key() == before


def test_a_packages_own_copies_of_packages_leave_the_toolchain_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Importing setuptools puts its vendored packages on the path; entries of the cache stay valid."""
    before = cache_toolchain_key()
    inside, beside = tmp_path / "package" / "_vendor", tmp_path / "site"
    for folder in (inside, beside):
        (folder / "vendored-1.0.dist-info").mkdir(parents=True)
        (folder / "vendored-1.0.dist-info" / "METADATA").write_text("Name: vendored\nVersion: 1.0\n")
    (tmp_path / "package" / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [*sys.path, str(inside)])
    cache_toolchain_key.cache_clear()
    assert cache_toolchain_key() == before
    monkeypatch.setattr(sys, "path", [*sys.path, str(beside)])
    cache_toolchain_key.cache_clear()
    assert cache_toolchain_key() != before
    monkeypatch.undo()
    cache_toolchain_key.cache_clear()
    assert cache_toolchain_key() == before


def test_moving_a_file_between_folders_changes_the_digest(tmp_path: Path) -> None:
    """A folder's digest covers names as well as contents."""
    (tmp_path / "d" / "a").mkdir(parents=True)
    (tmp_path / "d" / "a" / "w").write_bytes(b"x")
    before = digest_file_or_folder(tmp_path / "d")
    (tmp_path / "d" / "a").rename(tmp_path / "d" / "b")
    assert digest_file_or_folder(tmp_path / "d") != before


def test_what_was_not_used_for_longest_goes_first(cache: Cache, tmp_path: Path) -> None:
    """A find counts as a use; what is left fits the limit."""
    (tmp_path / "a.bin").write_bytes(b"w" * 100_000)
    for age, name in enumerate("123"):
        cache.put("k", name, TensorSpec("x", (1,)), {"a.bin": tmp_path / "a.bin"})
        os.utime(tmp_path / "cache" / "k" / name / "record.json", (age, age))
    assert cache.get("k", "1", TensorSpec, tmp_path / "back") is not None
    cache.prune(250_000)
    present = [name for name in "123" if cache.get("k", name, TensorSpec, tmp_path / "back") is not None]
    assert present == ["1", "3"]


def test_only_writes_that_nobody_finishes_any_more_are_removed(cache: Cache, tmp_path: Path) -> None:
    """A run beside this one may be writing."""
    cache.put("k", "1", TensorSpec("x", (1,)))
    kind = tmp_path / "cache" / "k"
    (kind / ".writing-killed").mkdir()
    with temporary_files.temporary_folder(kind, ".writing-") as running:
        cache.prune(10**9)
        assert list(kind.glob(".writing-*")) == [running]
    assert cache.get("k", "1", TensorSpec) is not None


@pytest.mark.parametrize(
    ("text", "expected"), [("2", 2 * 1024**3), ("0.5", 512 * 1024**2), ("many", LIMIT_BYTES)]
)
def test_the_limit_can_be_changed(text: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In gigabytes; what is no number changes nothing."""
    monkeypatch.setenv("EXPORT_MOBILE_CACHE_GB", text)
    assert cache_limit_bytes() == expected


ENTRY = Path("k") / "1"


def edit(old: str, new: str) -> Callable[[Path], None]:
    """Change the record's text and leave its hash."""

    def change(root: Path) -> None:
        path = root / ENTRY / "record.json"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def reseal(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    """Change the record and make its hash fit, as someone would who knows the format."""

    def edited(root: Path) -> None:
        path = root / ENTRY / "record.json"
        content = json.loads(path.read_text().partition("\n")[2])
        change(content)
        text = json.dumps(content)
        path.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}\n")

    return edited


def named(name: str) -> Callable[[Path], None]:
    """The entry's file under another name, there too."""

    def rename(root: Path) -> None:
        target = root / ENTRY / "files" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"weights")
        digest = hashlib.sha256(b"weights").hexdigest()
        reseal(lambda content: content.update(files={name: digest}))(root)

    return rename


def older_format(root: Path) -> None:
    path = root / ENTRY / "record.json"
    path.write_text(path.read_text().partition("\n")[2])


def of_another_key(root: Path) -> None:
    (root / ENTRY).rename(root / "k" / "2")
    Cache(root).put("k", "1", Verdict("failed", "bad", "", None))
    (root / ENTRY / "record.json").write_text((root / "k" / "2" / "record.json").read_text())


def endless(root: Path) -> None:
    text = "[" * 100_000
    path = root / ENTRY / "record.json"
    path.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}\n")


EDITS: dict[str, Callable[[Path], None]] = {
    "failed becomes passed": edit('"status": "failed"', '"status": "passed"'),
    "the reason goes": edit('"reason": "too loud"', '"reason": null'),
    "another file's hash": edit(hashlib.sha256(b"weights").hexdigest(), "0" * 64),
    "a blank more": edit(": ", ":  "),
    "no hash": older_format,
    "another entry's record": of_another_key,
    "another key, sealed": reseal(lambda content: content.update(key="2")),
    "another kind, sealed": reseal(lambda content: content.update(kind="m")),
    "a name that leads out": named("../../../out.bin"),
    "a name that leads one folder out": named("../out.bin"),
    "a name that goes in and out": named("sub/../../out.bin"),
    "a name in a folder": named("sub/out.bin"),
    "a name of two dots": reseal(lambda content: content.update(files={"..": "0" * 64})),
    "no name": reseal(lambda content: content.update(files={"": "0" * 64})),
    "names that are none": reseal(lambda content: content.update(files=[1])),
    "endless depth": endless,
}
"""What was done to an entry."""


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_entry_is_a_miss(name: str, cache: Cache, tmp_path: Path) -> None:
    """Nothing of it is delivered, and nothing is written outside of the folder that was named."""
    (tmp_path / "a.bin").write_bytes(b"weights")
    verdict = Verdict("failed", "too loud", "", None)
    cache.put("k", "1", verdict, {"a.bin": tmp_path / "a.bin"})
    assert cache.get("k", "1", Verdict, tmp_path / "before") == verdict
    EDITS[name](tmp_path / "cache")
    assert cache.get("k", "1", Verdict, tmp_path / "deep" / "er" / "back") is None
    outside = [path for path in tmp_path.rglob("*.bin") if not path.is_relative_to(tmp_path / "cache")]
    assert sorted(outside) == [tmp_path / "a.bin", tmp_path / "before" / "a.bin"]


def mode(bits: int) -> Callable[[Path], None]:
    return lambda root: root.chmod(bits)


def link(root: Path) -> None:
    root.rename(root.with_name("elsewhere"))
    root.symlink_to(root.with_name("elsewhere"))


def replaced_by_a_file(root: Path) -> None:
    root.rmdir()
    root.touch()


ROOTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "the group may write": (mode(0o770), "may be written by others.*chmod go-w"),
    "all may write": (mode(0o707), "may be written by others.*chmod go-w"),
    "as /tmp": (mode(0o1777), "may be written by others"),
    "a link": (link, "is a link.*EXPORT_MOBILE_CACHE.*elsewhere"),
    "a file": (replaced_by_a_file, "is not a folder"),
}


@pytest.mark.parametrize("name", ROOTS)
def test_a_cache_that_others_may_write_is_refused(name: str, tmp_path: Path) -> None:
    """Whoever writes there decides what is passed; the message has the command that mends it."""
    spoil, words = ROOTS[name]
    root = tmp_path / "cache"
    root.mkdir()
    check_cache_private(root)
    spoil(root)
    with pytest.raises(UsageError, match=words):
        check_cache_private(root)


def test_a_cache_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where its owner alone may write it."""
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(UsageError, match="belongs to another user"):
        check_cache_private(tmp_path)


def test_a_new_cache_is_private_whatever_the_umask(tmp_path: Path) -> None:
    """The cache's folder is private under umask 002, which would let the group write."""
    before = os.umask(0o002)
    try:
        Cache(tmp_path / "new" / "cache").put("k", "1", TensorSpec("x", (1,)))
    finally:
        os.umask(before)
    check_cache_private(tmp_path / "new" / "cache")
    assert (tmp_path / "new" / "cache" / "k").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("value", ["", "relative/cache", None])
def test_a_cache_folder_that_is_none_is_the_default(
    value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty XDG_CACHE_HOME would be the current folder."""
    monkeypatch.delenv("EXPORT_MOBILE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    if value is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert default_cache_root() == tmp_path / ".cache" / "export-mobile"
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert default_cache_root() == Path("/var/cache/export-mobile")
