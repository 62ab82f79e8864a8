"""Make linear layers of multiplications by a stored matrix, which is what they are.

GPT-2's layers are `addmm(bias, x, weight)`, and hand-written code says `x @ weight` or `x @ weight.T`.
Quantisers know weights by their layers alone: these would stay in float.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from exporter.quantize.graphs import aten, copy_graph, graph_attribute, remove_graph_attribute

LINEAR = aten.linear.default
PLACES = {
    aten.mm.default: (0, 1),
    aten.matmul.default: (0, 1),
    LINEAR: (0, 1, 2),
    aten.addmm.default: (1, 2, 0),
}
"""Operator -> the places of its input, of its matrix, and of the bias if it has one."""
TURNS = (aten.t.default, aten.numpy_T.default, aten.transpose.int, aten.permute.default)


@dataclass(frozen=True, eq=False)
class MatrixReader:
    """A multiplication of rows by a stored matrix."""

    node: fx.Node
    matrix: fx.Node
    """The `get_attr` node of the matrix."""
    inputs_first: bool
    """Whether the stored matrix is inputs x outputs; a linear layer's is outputs x inputs."""


def with_linear_layers(module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy, over the same tensors, that has such multiplications as linear layers.

    Args:
        module: A float module from `torch.export`. A matrix that must be turned, and that something else
            reads, is left as it is: it would be stored twice.
    """
    copied = copy_graph(module)
    readers = [reader for node in copied.graph.nodes if (reader := _matrix_reader(copied, node))]
    for reader in readers:
        if not reader.inputs_first:
            _write_linear_layer(copied.graph, reader.node, reader.matrix)
    turned = [reader for reader in readers if reader.inputs_first]
    for name in dict.fromkeys(str(reader.matrix.target) for reader in turned):
        _turn_matrix(copied, name, [reader for reader in turned if reader.matrix.target == name])
    copied.recompile()
    return copied


def _matrix_reader(module: fx.GraphModule, node: fx.Node) -> MatrixReader | None:
    """Return which stored matrix a node multiplies rows by; None where it does not."""
    places = PLACES.get(node.target) if node.op == "call_function" and not node.kwargs else None  # type: ignore[call-overload]
    if places is None:
        return None
    rows, matrix, *bias = (node.args[place] for place in places if place < len(node.args))
    outputs = list(map(str, node.meta["val"].shape[-1:]))  # as text: to compare an open size would fix it
    if rows.meta["val"].dim() < 2 or any(
        added is not None and list(map(str, added.meta["val"].shape)) != outputs for added in bias
    ):
        return None  # a vector, or an addend that is no bias
    turned = _is_matrix_turned(matrix)
    stored = matrix.all_input_nodes[0] if turned else matrix
    if stored.op != "get_attr" or graph_attribute(module, str(stored.target)).dim() != 2:
        return None
    return MatrixReader(node, stored, (node.target is LINEAR) == turned)


def _is_matrix_turned(matrix: fx.Node) -> bool:
    """Return whether a node exchanges the two dimensions of a matrix."""
    if matrix.target not in TURNS or matrix.all_input_nodes[0].meta["val"].dim() != 2:
        return False
    example = torch.empty(2, 3, device="meta")
    return tuple(matrix.target(example, *matrix.args[1:]).shape) == (3, 2)


def _turn_matrix(module: fx.GraphModule, name: str, readers: Sequence[MatrixReader]) -> None:
    """Store a matrix outputs first for its readers, unless something else reads it."""
    graph = module.graph
    stored = [node for node in graph.nodes if node.op == "get_attr" and node.target == name]
    known = {reader.node for reader in readers}
    if not all(_reaches_readers_alone(node, known) for node in stored):
        return
    weight = torch.nn.Parameter(graph_attribute(module, name).detach().t().contiguous(), requires_grad=False)
    own = f"turned_{name.replace('.', '_')}"
    module.register_parameter(own, weight)
    with graph.inserting_before(stored[0]):
        turned = graph.get_attr(own)
    turned.meta = {**stored[0].meta, "val": stored[0].meta["val"].t()}
    for reader in readers:
        _write_linear_layer(graph, reader.node, turned)
    for node in stored:
        graph.erase_node(node)
    remove_graph_attribute(module, name)


def _reaches_readers_alone(stored: fx.Node, readers: set[fx.Node]) -> bool:
    """Return whether a matrix goes to these readers only, as it is or turned."""
    users = [
        behind for user in stored.users for behind in (user.users if _is_matrix_turned(user) else [user])
    ]
    return readers.issuperset(users)


def _write_linear_layer(graph: fx.Graph, node: fx.Node, weight: fx.Node) -> None:
    """Put a linear layer in the place of a multiplication, and forget the turned matrix that it read."""
    rows, matrix, *bias = (node.args[place] for place in PLACES[node.target] if place < len(node.args))  # type: ignore[index]
    if node.target is LINEAR and matrix is weight:
        return
    with graph.inserting_before(node):
        layer = graph.call_function(LINEAR, (rows, weight, *bias))
    layer.meta = copy.copy(node.meta)
    node.replace_all_uses_with(layer)
    graph.erase_node(node)
    if isinstance(matrix, fx.Node) and matrix.target in TURNS and not matrix.users:
        graph.erase_node(matrix)
