"""The ONNX exporter's table of translations is made once, and each export has a copy of its own."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry

from exporter.formats.onnx import onnx_registry
from exporter.formats.onnx.onnx_export import OPSET
from exporter.formats.onnx.onnx_registry import make_onnx_registry_once

MAKE = ONNXRegistry.from_torchlib
DECLARED: Any = cast("Any", torch.library).Library("registered_for_tests", "DEF")


def _described(registry: ONNXRegistry) -> dict[Any, list[Any]]:
    """Return operator -> name, signature and kind of each of its translations."""
    return {
        operator: [
            (f.onnx_function, str(f.signature), f.is_custom, f.is_complex, f.opset_introduced, f.device)
            for f in functions
        ]
        for operator, functions in registry.functions.items()
    }


def _small(opset: int) -> ONNXRegistry:
    registry = ONNXRegistry()
    registry._opset_version = opset
    registry.functions = {"mine": [cast("Any", "a translation")]}
    return registry


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The opsets for which PyTorch is asked to make a table, which is a small one here."""
    opsets: list[int] = []

    def counted(opset: int) -> ONNXRegistry:
        opsets.append(opset)
        return _small(opset)

    monkeypatch.setattr(ONNXRegistry, "from_torchlib", staticmethod(counted))
    return opsets


def test_the_table_is_pytorchs() -> None:
    """It has the same translations of the same operators, in their order."""
    with make_onnx_registry_once():
        copied = ONNXRegistry.from_torchlib(OPSET)
    theirs = MAKE(OPSET)
    assert copied.opset_version == theirs.opset_version
    assert _described(copied) == _described(theirs)


def test_the_table_is_made_once_for_an_opset(made: list[int]) -> None:
    """PyTorch asks its class for it, or an object of the class."""
    with make_onnx_registry_once():
        versions = [
            ONNXRegistry.from_torchlib(OPSET).opset_version,
            ONNXRegistry().from_torchlib(opset_version=OPSET).opset_version,
            ONNXRegistry().from_torchlib(opset_version=OPSET + 2).opset_version,
        ]
    assert versions == [OPSET, OPSET, OPSET + 2]
    assert made == [OPSET, OPSET + 2]


def test_what_an_export_adds_stays_its_own(made: list[int]) -> None:
    """The next export has the table as PyTorch makes it."""
    with make_onnx_registry_once():
        first = ONNXRegistry.from_torchlib(OPSET)
        first.functions["mine"].clear()
        first.functions["more"] = []
        second = ONNXRegistry.from_torchlib(OPSET)
    assert second.functions == _small(OPSET).functions


def test_operators_that_are_declared_later_are_in_it(made: list[int]) -> None:
    """The table is made anew once an import has declared another operator."""
    with make_onnx_registry_once():
        ONNXRegistry.from_torchlib(OPSET)
        DECLARED.define("later(Tensor x) -> Tensor")
        ONNXRegistry.from_torchlib(OPSET)
        ONNXRegistry.from_torchlib(OPSET)
    assert made == [OPSET, OPSET]


def _fail(before: Any) -> None:
    with make_onnx_registry_once():
        assert ONNXRegistry.from_torchlib is not before
        raise ZeroDivisionError


def test_pytorchs_own_is_put_back(made: list[int]) -> None:
    """A failed export replaces nothing for the others."""
    before = ONNXRegistry.from_torchlib
    with pytest.raises(ZeroDivisionError):
        _fail(before)
    assert ONNXRegistry.from_torchlib is before


def test_another_torch_is_left_alone(made: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is replaced in a version without proof."""
    monkeypatch.setitem(onnx_registry.PROVEN_VERSIONS, "torch", "2.0.0")
    before = ONNXRegistry.from_torchlib
    with make_onnx_registry_once():
        assert ONNXRegistry.from_torchlib is before
