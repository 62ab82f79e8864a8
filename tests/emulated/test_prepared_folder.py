"""Tests of folders that are made once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from exporter.emulated import arm_tools
from exporter.emulated.prepared_folder import is_folder_prepared, prepare_folder_once
from exporter.errors import UsageError


def test_a_folder_is_made_once(tmp_path: Path) -> None:
    """The second call finds what the first one made."""
    made = []

    def make(folder: Path) -> None:
        made.append(folder)

    folder = tmp_path / "cache" / "programs"
    for _ in range(2):
        prepare_folder_once(folder, make)
        assert is_folder_prepared(folder)
    assert made == [folder]


def test_an_interrupted_preparation_is_made_anew(tmp_path: Path) -> None:
    """What it left is no preparation, and nothing of it stays."""
    folder = tmp_path / "programs"

    def interrupted(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_folder_once(folder, interrupted)
    assert not is_folder_prepared(folder)
    prepare_folder_once(folder, lambda _: None)
    assert is_folder_prepared(folder)
    assert not (folder / "half").exists()


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_what_others_may_write_is_made_anew(tmp_path: Path, mode: int) -> None:
    """What others could have changed is not used, and nothing of it stays."""
    folder = tmp_path / "programs"
    prepare_folder_once(folder, lambda made: (made / "planted").touch())
    folder.chmod(mode)
    assert not is_folder_prepared(folder)
    prepare_folder_once(folder, lambda _: None)
    assert is_folder_prepared(folder)
    assert not (folder / "planted").exists()


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077])
def test_the_umask_does_not_decide(tmp_path: Path, mask: int) -> None:
    """A folder that was made under any umask is prepared."""
    before = os.umask(mask)
    try:
        prepare_folder_once(tmp_path / "programs", lambda _: None)
    finally:
        os.umask(before)
    assert is_folder_prepared(tmp_path / "programs")


def test_another_users_folder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole folder that belongs to somebody else is no preparation of this user's."""
    prepare_folder_once(tmp_path / "programs", lambda _: None)
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    assert not is_folder_prepared(tmp_path / "programs")


def test_what_cannot_be_replaced_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another user's folder cannot be removed, the message names it."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(UsageError, match="programs cannot be replaced"):
        prepare_folder_once(folder, lambda _: None)


def test_arm_programs_that_others_may_change_are_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The programs are code: nobody else may have written them."""
    monkeypatch.setattr(arm_tools, "_qemu_of_arm_tools", lambda: tmp_path / "qemu")
    folder = arm_tools._arm_tools_folder(tmp_path)
    prepare_folder_once(folder, lambda _: None)
    assert arm_tools.ready_arm_tools(tmp_path) is not None
    folder.chmod(0o777)
    assert arm_tools.ready_arm_tools(tmp_path) is None
