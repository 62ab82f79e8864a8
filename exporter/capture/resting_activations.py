"""Finds the outputs of activations that rest near zero: embeddings after a ReLU or a SiLU.

A unit of such an output that never fires hardly varies, and that is no fault. Its values look like those of a
score beside boxes in pixels; the graph tells the two apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.capture.graph_operators import flat_graph_arguments, graph_operator, graph_operator_names

if TYPE_CHECKING:
    import torch
    from torch import fx


_RESTS = graph_operator_names("relu relu6 silu gelu hardswish mish softplus")
_PASSES_ON = graph_operator_names(
    "view reshape flatten unflatten permute transpose squeeze unsqueeze expand clone contiguous detach alias "
    "to _to_copy dropout slice select mean amax avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d max_pool1d max_pool2d max_pool3d "
    "adaptive_max_pool2d max_pool2d_with_indices getitem div upsample_nearest2d upsample_bilinear2d"
)
"""Operators whose result rests near zero where their first operand does."""
_JOINS = frozenset({"add", "cat", "stack"})
"""Operators whose result rests near zero where all of their operands do."""


def outputs_of_resting_activations(program: torch.export.ExportedProgram | None) -> tuple[bool, ...]:
    """Tell for each output whether its units rest near zero, as an activation's do; empty without a graph."""
    if program is None:
        return ()
    nodes = {node.name: node for node in program.graph.output_node().all_input_nodes}
    names = [name for name in program.graph_signature.user_outputs if isinstance(name, str)]
    return tuple(name in nodes and _resting_activation_rests(nodes[name], {}) for name in names)


def _resting_activation_rests(node: fx.Node, known: dict[fx.Node, bool]) -> bool:
    if node not in known:
        known[node] = _computed_by_resting_activation(node, known)
    return known[node]


def _computed_by_resting_activation(node: fx.Node, known: dict[fx.Node, bool]) -> bool:
    from torch.fx import Node

    operator = graph_operator(node)
    operands = [operand for operand in flat_graph_arguments(node.args) if isinstance(operand, Node)]
    if operator in _RESTS or _is_resting_activation_clipped_from_zero(node, operator):
        return True
    if operator in _PASSES_ON:
        return bool(operands) and _resting_activation_rests(operands[0], known)
    if operator in _JOINS:
        return bool(operands) and all(_resting_activation_rests(operand, known) for operand in operands)
    if operator == "mul":  # a gated activation still rests near zero; x * sigmoid(x) is SiLU
        return _is_resting_activation_gated_by_itself(operands) or any(
            _resting_activation_rests(operand, known) for operand in operands
        )
    return False


def _is_resting_activation_clipped_from_zero(node: fx.Node, operator: str) -> bool:
    """Tell whether this is ReLU6, which `torch.export` writes as a hard tanh from 0."""
    return operator == "hardtanh" and len(node.args) > 1 and node.args[1] in (0, 0.0)


def _is_resting_activation_gated_by_itself(operands: list[fx.Node]) -> bool:
    return any(
        graph_operator(gate) in {"sigmoid", "hardsigmoid"} and gate.args[0] in operands for gate in operands
    )
