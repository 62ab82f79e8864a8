"""What a program's operators are: branches and loops, batch norms in training, activations that rest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import fx, nn

from exporter.capture import graph_operators, matmul_weights, resting_activations, sigmoids
from exporter.capture.batch_statistics import batch_statistics_of_program
from exporter.capture.control_flow import control_flow_of_program

aten, higher_order = torch.ops.aten, torch.ops.higher_order


def graph_of(*calls: tuple[Any, tuple[Any, ...], dict[str, Any]], nested: nn.Module | None = None) -> Any:
    """Make a program of calls of operators; "x" stands for the input, a number for an earlier call."""
    graph = fx.Graph()
    x, made = graph.placeholder("x"), list[fx.Node]()
    for operator, args, named in calls:
        own = [x if arg == "x" else arg for arg in args]
        made.append(graph.call_function(operator, tuple(own), named))
    graph.output(tuple(made))
    root = nn.Module()
    if nested is not None:
        root.add_module("branch", nested)
        with graph.inserting_before(next(iter(graph.nodes))):
            graph.get_attr("branch")
    module = fx.GraphModule(root, graph)
    return SimpleNamespace(graph_module=module, graph=module.graph)


def test_branches_and_loops_have_names() -> None:
    """Each is named once, in the program's order, and those in a branch after it."""
    inner = graph_of((higher_order.while_loop, ("x",), {}), (higher_order.cond, ("x",), {}))
    program = graph_of(
        (aten.relu.default, ("x",), {}),
        (higher_order.cond, ("x",), {}),
        (higher_order.map_impl, ("x",), {}),
        nested=inner.graph_module,
    )
    assert control_flow_of_program(program) == ("torch.cond", "map", "while_loop")
    assert control_flow_of_program(graph_of((aten.relu.default, ("x",), {}))) == ()


BATCH = ("x", None, None, None, None)
MOMENTS = (0.1, 1e-5)
LEGIT, LEGIT_FUNCTIONAL = aten._native_batch_norm_legit, aten._native_batch_norm_legit_functional
UPDATE_FUNCTIONAL = aten._batch_norm_with_update_functional
NORMS: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any], bool]] = {
    "in training": (aten.batch_norm.default, (*BATCH, True, *MOMENTS, False), {}, True),
    "in evaluation": (aten.batch_norm.default, (*BATCH, False, *MOMENTS, True), {}, False),
    "in training, by name": (aten.batch_norm.default, BATCH, {"training": True}, True),
    "in evaluation, by name": (aten.batch_norm.default, BATCH, {"training": False, "eps": True}, False),
    "not said": (aten.batch_norm.default, BATCH, {}, False),
    "without statistics": (LEGIT.no_stats, ("x", None, None, True, *MOMENTS), {}, True),
    "functional": (LEGIT_FUNCTIONAL.default, (*BATCH, True, *MOMENTS), {}, True),
    "with an update": (aten._batch_norm_with_update.default, (*BATCH, *MOMENTS), {}, True),
    "with an update, functional": (UPDATE_FUNCTIONAL.default, (*BATCH, *MOMENTS), {}, True),
    "without an update": (aten._batch_norm_no_update.default, (*BATCH, *MOMENTS), {}, False),
    "of no training": (aten._native_batch_norm_legit_no_training.default, (*BATCH, *MOMENTS), {}, False),
    "dropout in training": (aten.dropout.default, ("x", 0.5, True), {}, False),
    "a function of Python": (max, ("x", True), {}, False),
}  # fmt: skip


@pytest.mark.parametrize("name", NORMS)
def test_a_batch_norm_in_training_is_found(name: str) -> None:
    """Its argument tells, wherever that stands, or the operator's own name."""
    *operator, training = NORMS[name]
    found = batch_statistics_of_program(graph_of((aten.relu.default, ("x",), {}), tuple(operator)))
    assert (found is not None) is training
    assert found is None or found.source is None


def test_the_first_norms_line_is_given() -> None:
    """A program without a graph has no norm."""
    program = graph_of(*[(aten.batch_norm.default, BATCH, {"training": True})] * 2)
    for line, node in enumerate(n for n in program.graph.nodes if n.op == "call_function"):
        node.stack_trace = f'  File "/me/net.py", line {line + 7}, in forward\n'
    statistics = batch_statistics_of_program(program)
    assert statistics is not None
    assert statistics.source == "/me/net.py:7"
    assert batch_statistics_of_program(None) is None


def nodes_of(*calls: tuple[Any, ...]) -> list[fx.Node]:
    """Make calls of operators; an argument `x` is the input, and an `int` the call of that number."""
    graph = fx.Graph()
    made = [graph.placeholder("x")]
    for operator, *args in calls:
        own = [
            made[a] if isinstance(a, int) else [made[b] for b in a] if isinstance(a, list) else a
            for a in args
        ]
        made.append(graph.call_function(operator, tuple(own)))
    return made


RELU, SIGMOID, ADD, MUL = aten.relu.default, aten.sigmoid.default, aten.add.Tensor, aten.mul.Tensor
RESTS: dict[str, tuple[list[tuple[Any, ...]], bool]] = {
    "an input": ([], False),
    "an activation in place": ([(aten.relu_.default, 0)], True),
    "ReLU6 as it is exported": ([(aten.hardtanh.default, 0, 0.0, 6.0)], True),
    "a hard tanh from below zero": ([(aten.hardtanh.default, 0, -1.0, 1.0)], False),
    "a hard tanh from its default": ([(aten.hardtanh.default, 0)], False),
    "a clamp from zero": ([(aten.clamp.default, 0, 0.0, 6.0)], False),
    "a view of an activation": ([(RELU, 0), (aten.view.default, 1, (4,))], True),
    "a view of an input": ([(aten.view.default, 0, (4,))], False),
    "a view of no value": ([(aten.view.default, "none", (4,))], False),
    "a quotient of an activation": ([(RELU, 0), (aten.div.Tensor, 1, 0)], True),
    "a quotient by an activation": ([(RELU, 0), (aten.div.Tensor, 0, 1)], False),
    "a sum of two": ([(RELU, 0), (aten.silu.default, 0), (ADD, 1, 2)], True),
    "a sum with another": ([(RELU, 0), (ADD, 1, 0)], False),
    "a sum of no values": ([(ADD, "none", "none")], False),
    "joined": ([(RELU, 0), (aten.silu.default, 0), (aten.cat.default, [1, 2])], True),
    "joined with another": ([(RELU, 0), (aten.cat.default, [1, 0])], False),
    "stacked": ([(RELU, 0), (aten.stack.default, [1, 1])], True),
    "a product with one": ([(RELU, 0), (aten.tanh.default, 0), (MUL, 2, 1)], True),
    "a product of others": ([(aten.tanh.default, 0), (MUL, 1, 0)], False),
    "gated by its own sigmoid": ([(SIGMOID, 0), (MUL, 0, 1)], True),
    "gated by its own hard sigmoid": ([(aten.hardsigmoid.default, 0), (MUL, 1, 0)], True),
    "gated by a sigmoid of another": ([(aten.tanh.default, 0), (SIGMOID, 1), (MUL, 0, 2)], False),
    "a matrix product": ([(RELU, 0), (aten.mm.default, 1, 1)], False),
}


@pytest.mark.parametrize("name", RESTS)
def test_units_rest_as_their_operands_do(name: str) -> None:
    """A view or a quotient rests as its first operand does, a sum as all of them, a product as any."""
    calls, expected = RESTS[name]
    assert resting_activations._resting_activation_rests(nodes_of(*calls)[-1], {}) is expected


def test_each_node_is_asked_once() -> None:
    """A chain of sums of one value with itself would be walked twice at each step."""
    nodes = nodes_of((RELU, 0), *((ADD, i, i) for i in range(1, 60)))
    known: dict[fx.Node, bool] = {}
    assert resting_activations._resting_activation_rests(nodes[-1], known)
    assert known == dict.fromkeys(nodes[1:], True)


@pytest.mark.parametrize(
    ("target", "name"), [(aten.relu_.default, "relu"), (aten.add.Scalar, "add"), (max, "max")]
)
def test_operators_have_short_names(target: Any, name: str) -> None:
    """A name has neither library nor overload, nor the mark of an operator in place."""
    node = nodes_of((target, 0))[-1]
    assert graph_operators.graph_operator(node) == name
    assert graph_operators.graph_operator(nodes_of()[0]) == ""


def test_arguments_are_flattened() -> None:
    """Lists and tuples are flattened at any depth; a text is one argument."""
    assert list(graph_operators.flat_graph_arguments([1, (2, [3, "ab"]), []])) == [1, 2, 3, "ab"]


HOLDS: dict[str, tuple[list[tuple[Any, ...]], bool]] = {
    "itself": ([(SIGMOID, 0)], True),
    "an input": ([], False),
    "moved twice": ([(SIGMOID, 0), (aten.view.default, 1, (4,)), (aten.clone.default, 2)], True),
    "joined after another": ([(SIGMOID, 0), (aten.cat.default, [0, 1])], True),
    "scaled": ([(SIGMOID, 0), (MUL, 1, 2.0)], False),
    "gated by a tanh": ([(SIGMOID, 0), (aten.tanh.default, 0), (MUL, 2, 1)], True),
    "gated by another sigmoid": ([(SIGMOID, 0), (SIGMOID, 0), (MUL, 1, 2)], True),
    "two of tanh": ([(aten.tanh.default, 0), (aten.tanh.default, 0), (MUL, 1, 2)], False),
    "gates what has no bound": ([(SIGMOID, 0), (MUL, 0, 1)], False),
    "a sum": ([(SIGMOID, 0), (ADD, 1, 0)], False),
}


@pytest.mark.parametrize("name", HOLDS)
def test_sigmoids_are_seen_through_moves(name: str) -> None:
    """A sigmoid's value may be moved, or multiplied with one that is at most 1."""
    calls, expected = HOLDS[name]
    assert sigmoids._holds_sigmoid(nodes_of(*calls)[-1]) is expected


def test_weights_count_for_the_operator_that_reads_them_first() -> None:
    """A tied table counts for its lookup, two layers of a kind together, and a bias for none."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.first, self.last = (
                nn.Embedding(20, 4),
                nn.Linear(4, 6),
                nn.Linear(6, 4, bias=False),
            )
            self.left = nn.Parameter(torch.ones(3, 5))
            self.register_buffer("fixed", torch.ones(5, 5))

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            x = self.last(self.first(self.table(tokens)))
            scores = x @ self.table.weight.t()
            product: torch.Tensor = self.left @ (scores[0] @ torch.ones(20, 5)) @ self.fixed
            return product

    program = torch.export.export(Net(), (torch.arange(5).reshape(1, 5),))
    counts = matmul_weights.matmul_weights_by_operator(program)
    assert counts == {"embedding": 80, "linear": 24 + 24, "matmul": 15}
    assert matmul_weights.count_matmul_weights(program) == 80 + 48 + 15
