"""Tests of folders that are made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.emulated.prepared_folder import is_prepared, prepare_once


def test_a_folder_is_made_once(tmp_path: Path) -> None:
    """The second call finds what the first one made."""
    made = []

    def make(folder: Path) -> None:
        folder.mkdir()
        made.append(folder)

    folder = tmp_path / "cache" / "programs"
    for _ in range(2):
        prepare_once(folder, make)
        assert is_prepared(folder)
    assert made == [folder]


def test_an_interrupted_preparation_is_made_anew(tmp_path: Path) -> None:
    """What it left is no preparation, and nothing of it stays."""
    folder = tmp_path / "programs"

    def interrupted(folder: Path) -> None:
        folder.mkdir()
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_once(folder, interrupted)
    assert not is_prepared(folder)
    prepare_once(folder, Path.mkdir)
    assert is_prepared(folder)
    assert not (folder / "half").exists()
