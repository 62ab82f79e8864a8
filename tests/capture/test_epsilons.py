"""The small numbers of a program that are its epsilons are listed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from benchmarks.zoo import Does
from exporter.capture.epsilons import program_epsilons

aten = torch.ops.aten
SINGLE, DOUBLE = torch.finfo(torch.float32).eps, torch.finfo(torch.float64).eps


def epsilons_of(call: Callable[[fx.Graph, fx.Node], Any], stored: Any = None) -> tuple[float, ...] | None:
    """Return the epsilons of a program that is written by hand, with the given stored tensors."""
    graph = fx.Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.ones(4)
    graph.output(call(graph, x))
    module = fx.GraphModule(nn.Module(), graph)
    program: Any = SimpleNamespace(graph_module=module, state_dict=stored or {}, constants={})
    return program_epsilons(program)


def call(graph: fx.Graph, operator: Any, *args: Any, shape: tuple[int, ...] = (4,), **named: Any) -> fx.Node:
    node = graph.call_function(operator, args, named)
    node.meta["val"] = torch.ones(shape)
    return node


NORM = ([4], None, None)
MUL = aten.mul.Tensor
NUMBERS: dict[str, tuple[Callable[[fx.Graph, fx.Node], Any], tuple[float, ...]]] = {
    "no number": (lambda g, x: call(g, aten.relu.default, x), ()),
    "by position": (lambda g, x: call(g, aten.layer_norm.default, x, *NORM, 3e-5, False), (3e-5,)),
    "by name": (lambda g, x: call(g, aten.layer_norm.default, x, *NORM, eps=3e-5), (3e-5,)),
    "by default": (lambda g, x: call(g, aten.layer_norm.default, x, [4]), (1e-5,)),
    "none given": (lambda g, x: call(g, aten.rms_norm.default, x, [4]), (DOUBLE, SINGLE)),
    "another argument that is none": (lambda g, x: call(g, aten.clamp.default, x), ()),
    "an addend": (lambda g, x: call(g, aten.add.Tensor, x, 1e-6), (1e-6,)),
    "a whole number": (lambda g, x: call(g, aten.add.Tensor, x, 0), ()),
    "nothing at all": (lambda g, x: call(g, aten.add.Tensor, x, 0.0), (0.0,)),
    "the largest": (lambda g, x: call(g, aten.add.Tensor, x, 0.5), (0.5,)),
    "a larger one": (lambda g, x: call(g, aten.add.Tensor, x, 0.51), ()),
    "less than nothing": (lambda g, x: call(g, aten.add.Tensor, x, -1e-6), ()),
    "two, of which one comes twice": (
        lambda g, x: call(g, aten.add.Tensor, call(g, aten.add.Tensor, call(g, MUL, x, 2e-2), 1e-3), 2e-2),
        (1e-3, 2e-2, 2e-2),
    ),
    "a function of Python": (lambda g, x: call(g, max, x, 1e-6), ()),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_the_small_numbers_of_a_program_are_listed(name: str) -> None:
    """Numbers from nothing to a half count, wherever an operator takes them, in order."""
    make, expected = NUMBERS[name]
    assert epsilons_of(make) == expected


def test_a_stored_number_is_one_of_them() -> None:
    """A tensor of one real number counts; a longer one, a complex one and another object do not."""
    stored = {
        "one": torch.tensor([2e-3]),
        "scalar": torch.tensor(1e-3),
        "two": torch.tensor([1e-4, 1e-4]),
        "complex": torch.tensor(1e-5 + 0j),
        "large": torch.tensor(3.0),
        "object": object(),
    }
    assert epsilons_of(lambda _, x: x, stored) == pytest.approx((1e-3, 2e-3))
    assert program_epsilons(None) is None


def root_of(operator: Any, addition: Any, shape: tuple[int, ...] = (), computed: bool = True) -> Any:
    """Make a graph that takes a root of a sum with a number that is computed, or stored."""

    def make(graph: fx.Graph, x: fx.Node) -> fx.Node:
        stored = graph.placeholder("stored")
        stored.meta["val"] = torch.ones(shape)
        number = call(graph, aten.exp.default, stored, shape=shape) if computed else stored
        return call(
            graph, operator, call(graph, addition, x, number), *([-2] * (operator is aten.pow.Tensor_Scalar))
        )

    return make


ROOTS = [aten.sqrt.default, aten.rsqrt.default, aten.pow.Tensor_Scalar, aten.reciprocal.default]


@pytest.mark.parametrize("root", ROOTS, ids=str)
def test_a_computed_addend_under_a_root_hides_the_epsilon(root: Any) -> None:
    """The file then holds a number that the graph does not show."""
    assert epsilons_of(root_of(root, aten.add.Tensor)) is None
    assert epsilons_of(root_of(root, aten.add.Tensor, (1,))) is None


@pytest.mark.parametrize(
    "make",
    [
        root_of(aten.sqrt.default, aten.add.Tensor, (4,)),
        root_of(aten.sqrt.default, aten.add.Tensor, computed=False),
        root_of(aten.sqrt.default, aten.mul.Tensor),
        root_of(aten.exp.default, aten.add.Tensor),
        lambda graph, x: call(graph, aten.sqrt.default, 2.0),
    ],
    ids=["as many as the values", "stored", "a product", "no root", "a root of a number"],
)
def test_other_sums_hide_none(make: Any) -> None:
    """The numbers of the graph are all there are."""
    assert epsilons_of(make) is not None


def test_a_branch_has_epsilons_too() -> None:
    """The graphs nested in a program count as it does itself."""

    def norm(x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, (4,), eps=3e-4)

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, norm, torch.relu, (x,))  # type: ignore[no-any-return]

    program = torch.export.export(Does(forward), (torch.ones(2, 4),))
    assert program_epsilons(program) == (3e-4,)
