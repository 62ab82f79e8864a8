"""PyTorch's list of composite operators is the same in one go, and it looks them up once."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch._export import utils
from torch.export import decomp_utils, exported_program

from exporter.formats import composite_operators
from exporter.formats.composite_operators import list_composite_operators_in_one_go

OWNERS: tuple[Any, ...] = (decomp_utils, exported_program)
DECLARED: Any = cast("Any", torch.library).Library("composites_for_tests", "DEF")
"""Kept for the whole process: PyTorch goes on to list what it has seen once."""


def _lists() -> list[Any]:
    return [vars(owner)["_collect_all_valid_cia_ops"] for owner in OWNERS]


def test_the_list_is_the_same() -> None:
    """An operator that was declared in between, and that nothing has called yet, is in it."""
    before = utils._collect_all_valid_cia_ops()
    DECLARED.define("twice(Tensor x) -> Tensor")
    DECLARED.impl("twice", lambda x: x * 2, "CompositeImplicitAutograd")
    with list_composite_operators_in_one_go():
        in_one_go = [listed() for listed in _lists()]
    after = utils._collect_all_valid_cia_ops()
    assert in_one_go == [after, after]
    assert after - before == {torch.ops.composites_for_tests.twice.default}


def _list_and_fail() -> None:
    with list_composite_operators_in_one_go():
        for listed in _lists():
            listed()
        raise ZeroDivisionError


def test_operators_are_looked_up_once_for_each_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each namespace; what looks them up is put back after a failure."""
    asked: list[int] = []
    look_up = utils._materialize_cpp_cia_ops

    def count() -> None:
        asked.append(1)
        look_up()

    monkeypatch.setattr(utils, "_materialize_cpp_cia_ops", count)
    before = _lists()
    with pytest.raises(ZeroDivisionError):
        _list_and_fail()
    assert len(asked) == 2
    assert _lists() == before
    assert utils._materialize_cpp_cia_ops is count


def test_another_torch_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is replaced in a version without proof."""
    monkeypatch.setitem(composite_operators.PROVEN_VERSIONS, "torch", "2.0.0")
    before = _lists()
    with list_composite_operators_in_one_go():
        assert _lists() == before
