from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import library

from exporter.capture import torchvision_ops
from exporter.errors import MissingDependencyError


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Act as in a process that has not imported torchvision."""
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(
        torchvision_ops, "prepare_torchvision_ops", torchvision_ops.prepare_torchvision_ops.__wrapped__
    )


class Declared(list[str]):
    """Stand in for PyTorch's operator library, and record what would be declared."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def define(self, schema: str) -> None:
        self.append(schema)


def test_matching_install_is_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is declared where torchvision's own library loads."""
    monkeypatch.setattr(library, "Library", Declared)
    monkeypatch.setattr(torch.ops, "load_library", lambda path: None)
    assert torchvision_ops.prepare_torchvision_ops() is None


def test_unloadable_library_is_stood_in_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operators that the import needs are declared where the library cannot load."""

    def refuse(path: str) -> None:
        raise OSError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(library, "Library", Declared)
    monkeypatch.setattr(torch.ops, "load_library", refuse)
    declared: object = torchvision_ops.prepare_torchvision_ops()
    assert declared == list(torchvision_ops.SCHEMAS)


def test_missing_torchvision_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install when torchvision is missing."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install torchvision"):
        torchvision_ops.prepare_torchvision_ops()


def test_torchvision_imports_in_a_fresh_process() -> None:
    """After `prepare_torchvision_ops`, `import torchvision` works here, whichever torchvision this is."""
    code = (
        "from exporter.capture.torchvision_ops import prepare_torchvision_ops as prepare;"
        "prepare(); import torchvision; prepare()"
    )
    root = Path(torchvision_ops.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
