from __future__ import annotations

import importlib.util
import subprocess
import sys
import types
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


@pytest.mark.parametrize(
    ("files", "loadable", "tried"),
    [
        ((), "", []),
        (("_C.so",), "_C.so", ["_C.so"]),
        (("_C.cpython-311-x86_64.so", "image.so"), "", ["_C.cpython-311-x86_64.so"]),
        (("_C.pyd", "_C.so"), "_C.pyd", ["_C.so", "_C.pyd"]),
        (("_C.pyd", "_C.so"), "_C.so", ["_C.so"]),
    ],
)
@pytest.mark.parametrize("error", [OSError, ImportError])
def test_every_operator_library_is_tried_until_one_loads(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error: type[Exception],
    files: tuple[str, ...],
    loadable: str,
    tried: list[str],
) -> None:
    """A library that cannot load is followed by the next; other libraries of the package are no matter."""
    loaded: list[str] = []

    def load(path: str) -> None:
        loaded.append(Path(path).name)
        if Path(path) != tmp_path / loadable:
            raise error(path)

    for file in files:
        (tmp_path / file).touch()
    monkeypatch.setattr(torch.ops, "load_library", load)
    assert torchvision_ops._torchvision_ops_load(tmp_path) is bool(loadable)
    assert loaded == tried


def test_an_imported_torchvision_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its library is loaded, or stood in for, already."""
    monkeypatch.setitem(sys.modules, "torchvision", torchvision_ops)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: 1 / 0)
    assert torchvision_ops.prepare_torchvision_ops() is None


def test_what_is_prepared_is_torchvision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The library is looked for in torchvision's folder, and operators are declared beside its own."""
    sought: list[object] = []

    def define(*arguments: object) -> Declared:
        sought.append(arguments)
        return Declared()

    def find(name: str) -> types.SimpleNamespace:
        sought.append(name)
        return types.SimpleNamespace(submodule_search_locations=[str(tmp_path), "elsewhere"])

    monkeypatch.setattr(importlib.util, "find_spec", find)
    monkeypatch.setattr(library, "Library", define)
    monkeypatch.setattr(torchvision_ops, "_torchvision_ops_load", lambda package: package != tmp_path)
    declared: object = torchvision_ops.prepare_torchvision_ops()
    assert declared == list(torchvision_ops.SCHEMAS)
    assert sought == ["torchvision", ("torchvision", "DEF")]


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
