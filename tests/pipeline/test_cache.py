from __future__ import annotations

import os
import time
from pathlib import Path
from unittest import mock

import pytest

from exporter.files import digest_path
from exporter.pipeline.cache import LIMIT_BYTES, Cache, key, limit_bytes, toolchain
from exporter.records import Limits, TensorSpec


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
    assert digest_path(tmp_path / "back" / "m.mlpackage") == digest_path(tmp_path / "m.mlpackage")
    assert (tmp_path / "back" / "a.bin").read_bytes() == b"weights"


def test_infinite_figures_survive(cache: Cache) -> None:
    """A perfect artifact has an SQNR of inf."""
    cache.put("k", "1", Limits(int8_min_sqnr_db=float("inf")))
    found = cache.get("k", "1", Limits)
    assert found is not None
    assert found.int8_min_sqnr_db == float("inf")


def test_a_damaged_file_is_a_miss(cache: Cache, tmp_path: Path) -> None:
    """Files are hashed again: a flipped byte on disk is never delivered."""
    (tmp_path / "a.bin").write_bytes(b"weights")
    cache.put("k", "1", TensorSpec("x", (1,)), {"a.bin": tmp_path / "a.bin"})
    (tmp_path / "cache" / "k" / "1" / "files" / "a.bin").write_bytes(b"weighty")
    assert cache.get("k", "1", TensorSpec, tmp_path / "back") is None
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"record": {"name": 3}, "files": {}}', '{"record": null}']
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
    keys = {key("a", 1), key("a", "1"), key("a1"), key(1, "a"), key(("a", 1)), key(TensorSpec("a", (1,)))}
    assert len(keys) == 6


def test_a_package_version_changes_the_toolchain() -> None:
    """Every installed package counts, not only the ones we know to matter."""
    before = toolchain()
    toolchain.cache_clear()
    package = mock.Mock(version="99")
    package.name = "some-package"
    with mock.patch("importlib.metadata.distributions", return_value=[package]):
        assert toolchain() != before
    toolchain.cache_clear()
    assert toolchain() == before


def test_moving_a_file_between_folders_changes_the_digest(tmp_path: Path) -> None:
    """A folder's digest covers names as well as contents."""
    (tmp_path / "d" / "a").mkdir(parents=True)
    (tmp_path / "d" / "a" / "w").write_bytes(b"x")
    before = digest_path(tmp_path / "d")
    (tmp_path / "d" / "a").rename(tmp_path / "d" / "b")
    assert digest_path(tmp_path / "d") != before


def test_what_was_not_used_for_longest_goes_first(cache: Cache, tmp_path: Path) -> None:
    """A find counts as a use; what is left fits the limit."""
    (tmp_path / "a.bin").write_bytes(b"w" * 100_000)
    for age, name in enumerate("123"):
        cache.put("k", name, TensorSpec("x", (1,)), {"a.bin": tmp_path / "a.bin"})
        os.utime(tmp_path / "cache" / "k" / name / "record.json", (age, age))
    assert cache.get("k", "1", TensorSpec, tmp_path / "back") is not None
    cache.prune(250_000)
    found = [name for name in "123" if cache.get("k", name, TensorSpec, tmp_path / "back") is not None]
    assert found == ["1", "3"]


def test_only_writes_that_nobody_finishes_any_more_are_removed(cache: Cache, tmp_path: Path) -> None:
    """A run beside this one may be writing."""
    cache.put("k", "1", TensorSpec("x", (1,)))
    for name, age_s in (("old", 2 * 24 * 3600), ("new", 0)):
        aside = tmp_path / "cache" / "k" / f".writing-{name}"
        aside.mkdir()
        os.utime(aside, (time.time() - age_s,) * 2)
    cache.prune(10**9)
    assert [p.name for p in (tmp_path / "cache" / "k").glob(".writing-*")] == [".writing-new"]
    assert cache.get("k", "1", TensorSpec) is not None


@pytest.mark.parametrize(
    ("text", "expected"), [("2", 2 * 1024**3), ("0.5", 512 * 1024**2), ("many", LIMIT_BYTES)]
)
def test_the_limit_can_be_changed(text: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In gigabytes; what is no number changes nothing."""
    monkeypatch.setenv("EXPORT_MOBILE_CACHE_GB", text)
    assert limit_bytes() == expected
