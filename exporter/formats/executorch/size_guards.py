"""Makes a `.pte` refuse inputs whose sizes are not in its ranges (`--dynamic`).

ExecuTorch itself checks only that its memory suffices. Each input is therefore viewed with the nearest size
that is in the range, one axis after the other: the view has as many elements as the input only where that
size is the input's own. Views copy nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING

from exporter.records import DynamicSize, SizeRange

if TYPE_CHECKING:
    import torch
    from executorch.exir import EdgeProgramManager


def guard_sizes_of_edge(edge: EdgeProgramManager, sizes: Sequence[DynamicSize]) -> None:
    """Put a check of every size with a range before what reads the inputs.

    Args:
        edge: The lowered program, which is changed.
        sizes: The ranges, with the inputs that have them.
    """
    program = edge.exported_program()
    graph = program.graph
    nodes = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    inputs = [nodes[str(name)] for name in program.graph_signature.user_inputs]
    readers = [list(node.users) for node in inputs]
    checked = list(inputs)
    with graph.inserting_before(list(nodes.values())[-1].next):
        for size in sizes:
            (first, first_axis), *others = size.places
            own = _size_node(graph, inputs[first], first_axis)
            _remember_example_size(own.meta["val"], size.range)
            nearest = _nearest_size_node(graph, own, size.range)
            checked[first] = _edge_view(graph, checked[first], first_axis, nearest)
            for position, axis in others:  # the same range is the same size everywhere
                checked[position] = _edge_view(graph, checked[position], axis, own)
    for given, view, nodes_of_input in zip(inputs, checked, readers, strict=True):
        for reader in nodes_of_input:
            reader.replace_input_with(given, view)
    program.graph_module.recompile()


def _size_node(graph: torch.fx.Graph, value: torch.fx.Node, axis: int) -> torch.fx.Node:
    import torch

    node = graph.call_function(torch.ops.aten.sym_size.int, (value, axis))
    node.meta["val"] = value.meta["val"].shape[axis]
    return node


def _remember_example_size(size: torch.SymInt, allowed: SizeRange) -> None:
    """Give a size an example, which it loses in a saved program: the compiler asks whether views fit.

    A size in steps is a multiple of a symbol, so the symbol's example is what makes the size the largest one.
    """
    (symbol,) = size.node.expr.free_symbols
    examples = size.node.shape_env.backed_var_to_val
    if symbol not in examples:
        value = (_highest_size(allowed) - size.node.expr.subs(symbol, 0)) / size.node.expr.coeff(symbol)
        size.node.shape_env.add_backed_var_to_val(symbol, int(value))


def _highest_size(allowed: SizeRange) -> int:
    return allowed.low + (allowed.high - allowed.low) // allowed.step * allowed.step


def _nearest_size_node(graph: torch.fx.Graph, own: torch.fx.Node, allowed: SizeRange) -> torch.fx.Node:
    """Compute the nearest allowed size: `own` itself where it is allowed."""
    import torch

    node = own
    for function, number in (
        (operator.sub, allowed.low),
        (operator.floordiv, allowed.step),
        (operator.mul, allowed.step),
        (operator.add, allowed.low),
        (torch.sym_max, allowed.low),
        (torch.sym_min, _highest_size(allowed)),
    ):
        node = graph.call_function(function, (node, number))
        node.meta["val"] = own.meta["val"]
    return node


def _edge_view(
    graph: torch.fx.Graph, given: torch.fx.Node, axis: int, length: torch.fx.Node
) -> torch.fx.Node:
    """View a value with the given length of one axis."""
    from executorch.exir.dialects._ops import ops as edge_ops

    rank = given.meta["val"].dim()
    shape = [length if place == axis else _size_node(graph, given, place) for place in range(rank)]
    view = graph.call_function(edge_ops.edge.aten.view_copy.default, (given, shape))
    view.meta = dict(given.meta)
    return view
