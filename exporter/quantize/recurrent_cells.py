"""Keep a recurrent cell that is written out as arithmetic in float, the weights that read its state in int8.

What a layer of the kind LSTM or GRU computes stays in float (`recurrent_weights`), because a step's rounding
error is fed back to the next. The same holds for a cell whose state is an input and an output of the network:
a state's channels vary unlike each other, so that one step for all of them wipes out those that vary least.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from torch import Tensor, fx

from exporter.quantize.data_movement import is_data_movement
from exporter.quantize.graphs import LAYERS, PRODUCTS, aten
from exporter.quantize.recurrent_weights import RECURRENT, store_recurrent_weights
from exporter.quantize.weights_only import part_bias_of_weights_only

GATES = (aten.sigmoid.default, aten.sigmoid_.default)
DIFFERENCES = (aten.sub.Tensor, aten.sub_.Tensor)
MOVES = (aten.unsafe_chunk.default, aten.to.dtype, aten.to.dtype_layout)
"""Moves beside those of `data_movement`."""


class RecurrentCells(NamedTuple):
    """The operators of all cells of a network, by name."""

    arithmetic: frozenset[str]
    layers: frozenset[str]
    """Linear layers that read a state. Those that read what other layers compute are quantised as these are:
    XNNPACK computes no linear layer of integers that gives floats."""

    @property
    def operators(self) -> frozenset[str]:
        """All of them, which are not quantised like other operators."""
        return self.arithmetic | self.layers


def recurrent_cells(module: fx.GraphModule) -> RecurrentCells:
    """Find the cells: a sigmoid times a state that is an input, on its way to an output of its shape.

    Args:
        module: A float module from `torch.export`.
    """
    arithmetic: set[fx.Node] = set()
    states = {node for node in module.graph.nodes if node.op == "placeholder"}
    for state in states:
        for output in _next_states(module, state):
            ends = _reached_in_cell([output], forward=False)
            for gated in _gated_states(state):
                path = _reached_in_cell([gated], forward=True) & ends
                arithmetic |= _reached_in_cell(path, forward=False)
    sources = {source for node in arithmetic for source in node.all_input_nodes}
    layers = {node for node in sources if node.target is aten.linear.default}
    return RecurrentCells(
        frozenset(node.name for node in arithmetic),
        frozenset(node.name for node in layers if _moved_from(node.args[0]) in arithmetic | states),
    )


def quantize_recurrent_cells(module: fx.GraphModule, cells: RecurrentCells) -> None:
    """Store the weights of the cells' linear layers in int8, in place.

    Args:
        module: A converted PT2E module, in which these layers are in float.
        cells: What was found in the module that it was made from.
    """
    layers = [node for node in module.graph.nodes if node.name in cells.layers]
    store_recurrent_weights(
        module, [(node, node.args[1]) for node in layers if node.args[1].op == "get_attr"]
    )
    for node in layers:
        part_bias_of_weights_only(module.graph, node)
    module.recompile()


def _next_states(module: fx.GraphModule, state: fx.Node) -> Iterator[fx.Node]:
    """Yield the network's outputs that may be a state's next value."""
    (result,) = (node for node in module.graph.nodes if node.op == "output")
    for output in result.all_input_nodes:
        if _is_arithmetic(output) and _cell_shape(output) == _cell_shape(state) is not None:
            yield output


def _cell_shape(node: fx.Node) -> tuple[str, ...] | None:
    """Return the shape of a tensor of floats as texts, as to compare open sizes would fix them; None else."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return None
    return tuple(map(str, value.shape))


def _gated_states(state: fx.Node) -> Iterator[fx.Node]:
    """Yield the products of a gate and a state, or of a gate and the state's difference from a proposal."""
    for node in _reached_in_cell([state], forward=True, through=_moves_state):
        for product in node.users:
            if product.target in PRODUCTS and any(_is_gate(factor) for factor in product.all_input_nodes):
                yield product


def _moves_state(node: fx.Node) -> bool:
    return is_data_movement(node) or node.target in (*MOVES, *DIFFERENCES)


def _is_gate(node: fx.Node) -> bool:
    return _moved_from(node).target in GATES


def _moved_from(node: Any) -> fx.Node:
    """Return the node whose values another holds; itself where it moves none."""
    while is_data_movement(node) or node.target in MOVES:
        node = node.all_input_nodes[0]
    return node  # type: ignore[no-any-return]


def _is_arithmetic(node: fx.Node) -> bool:
    return node.op == "call_function" and node.target not in (*LAYERS, *RECURRENT)


def _reached_in_cell(
    starts: Collection[fx.Node],
    forward: bool,
    through: Callable[[fx.Node], bool] = _is_arithmetic,
) -> set[fx.Node]:
    """Return some nodes, and all that depend on them, or that they depend on, through nodes of one kind."""
    reached: set[fx.Node] = set()
    left = list(starts)
    while left:
        node = left.pop()
        if node not in reached:
            reached.add(node)
            left += [n for n in (node.users if forward else node.all_input_nodes) if through(n)]
    return reached
