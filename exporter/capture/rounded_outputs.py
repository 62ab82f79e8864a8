"""Finds integer outputs that are rounded quantities: pictures of bytes, positions in whole pixels.

A quantity is converted from floats, so that rounding decides its last level. A class number, an index, a mask
or a count is chosen: it comes from a comparison, an argmax or a sort, and is another one when it differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.capture.graph_operators import flat_graph_arguments, graph_operator, graph_operator_names

if TYPE_CHECKING:
    import torch
    from torch import fx

_CONVERTS = graph_operator_names(
    "to _to_copy type_as convert_element_type quantize_per_tensor quantize_per_channel"
)
"""Operators that make integers of floats."""
_CHOOSES = graph_operator_names(
    "argmax argmin argsort nonzero nonzero_static searchsorted bucketize bincount histc count_nonzero "
    "one_hot unique unique_consecutive _unique2 multinomial"
)
"""Operators whose integers say which or how many, whatever their operands are."""
_PAIRS = graph_operator_names(
    "topk sort max min median mode kthvalue cummax cummin aminmax max_pool2d_with_indices"
)
"""Operators that give values, and then indices."""


def outputs_of_rounded_quantities(program: torch.export.ExportedProgram | None) -> tuple[bool, ...]:
    """Tell for each output whether it is a quantity rounded to integers; empty without a graph."""
    if program is None:
        return ()
    inputs = frozenset(program.graph_signature.user_inputs)
    nodes = {node.name: node for node in program.graph.output_node().all_input_nodes}
    names = [name for name in program.graph_signature.user_outputs if isinstance(name, str)]
    trace = _RoundedTrace(inputs)
    return tuple(name in nodes and trace.is_rounded(nodes[name]) for name in names)


class _RoundedTrace:
    """Follows values back to where they come from."""

    def __init__(self, inputs: frozenset[object]) -> None:
        self.inputs = inputs
        self._rounded: dict[fx.Node, bool] = {}
        self._measured: dict[fx.Node, bool] = {}

    def is_rounded(self, node: fx.Node) -> bool:
        """Tell whether an integer value was a float before, which depends on a quantity."""
        if node not in self._rounded:
            self._rounded[node] = False  # of what depends on itself
            self._rounded[node] = self._find_rounded(node)
        return self._rounded[node]

    def _find_rounded(self, node: fx.Node) -> bool:
        operator = graph_operator(node)
        if not _is_integer(node) or operator in _CHOOSES:
            return False
        operands = _values_of(node)
        if operator in _CONVERTS and operands and _is_float(operands[0]):
            return self.is_measured(operands[0])
        return any(self.is_rounded(operand) for operand in operands)

    def is_measured(self, node: fx.Node) -> bool:
        """Tell whether a value depends on an input other than by a choice."""
        if node not in self._measured:
            self._measured[node] = False
            self._measured[node] = self._find_measured(node)
        return self._measured[node]

    def _find_measured(self, node: fx.Node) -> bool:
        if node.op == "placeholder":
            return node.name in self.inputs and not _is_boolean(node)
        if _is_boolean(node) or graph_operator(node) in _CHOOSES:
            return False
        return any(self.is_measured(operand) for operand in _values_of(node))


def _values_of(node: fx.Node) -> list[fx.Node]:
    """Return the operands that a value is computed from; of indices that come with values, none."""
    from torch.fx import Node

    operands = [o for o in flat_graph_arguments((*node.args, *node.kwargs.values())) if isinstance(o, Node)]
    if graph_operator(node) != "getitem" or len(node.args) < 2:
        return operands
    source, place = operands[0], node.args[1]
    if graph_operator(source) not in _PAIRS:
        return operands
    return [] if place == 1 and graph_operator(source) != "aminmax" else operands


def _dtype_of(node: fx.Node) -> torch.dtype | None:
    return getattr(node.meta.get("val"), "dtype", None)


def _is_float(node: fx.Node) -> bool:
    dtype = _dtype_of(node)
    return dtype is not None and (dtype.is_floating_point or dtype.is_complex)


def _is_boolean(node: fx.Node) -> bool:
    return str(_dtype_of(node)) == "torch.bool"


def _is_integer(node: fx.Node) -> bool:
    return not _is_float(node) and not _is_boolean(node)
