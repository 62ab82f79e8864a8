"""Tests of compiling QEMU's plugin, and of what is said where that is impossible."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.errors import MissingDependencyError
from exporter.estimate import qemu_plugin
from tests.estimate.counted import counting_plugin


def test_it_is_compiled_once(tmp_path: Path) -> None:
    """A second use takes the same library, and leaves nothing else in the cache."""
    first = counting_plugin(tmp_path)
    changed = first.library.stat().st_mtime_ns
    assert qemu_plugin.make_qemu_plugin(tmp_path) == first
    assert first.library.stat().st_mtime_ns == changed
    assert [path.name for path in tmp_path.iterdir()] == [first.library.name]


@pytest.mark.parametrize("script", ["echo 'unknown option plugin' >&2; exit 1", "exit 0"])
def test_a_qemu_without_plugins_is_missing(
    tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A static QEMU knows no -plugin: the packages are named, and nothing is compiled."""
    qemu = tmp_path / qemu_plugin.QEMU
    qemu.write_text(f"#!/bin/sh\n{script}\n")
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert qemu_plugin.missing_for_qemu_plugin() == qemu_plugin.PACKAGES
    with pytest.raises(MissingDependencyError, match="dynamically linked QEMU"):
        qemu_plugin.make_qemu_plugin(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_without_qemu_the_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without QEMU and compiler is told what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert qemu_plugin.missing_for_qemu_plugin() == qemu_plugin.PACKAGES


def test_a_compiler_that_fails_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the compiler says is in the message, and no library is left behind."""
    counting_plugin(tmp_path / "works")
    source = tmp_path / "plugin.c"
    source.write_text("#error planted\n")
    monkeypatch.setattr(qemu_plugin, "SOURCE", source)
    with pytest.raises(MissingDependencyError, match="planted"):
        qemu_plugin.make_qemu_plugin(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
