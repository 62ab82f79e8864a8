"""Finds the weights that a graph multiplies its inputs with or looks up, which every artifact needs.

A parameter that is only added (a position embedding) does not count, whatever its shape: a compiler is free
to broadcast, slice or fold it, and readers of artifacts do not count it either.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch.fx import Graph, Node

WEIGHT_ARGUMENTS = {
    "linear": (1,),
    "conv1d": (1,),
    "conv2d": (1,),
    "conv3d": (1,),
    "convolution": (1,),
    "conv_transpose1d": (1,),
    "conv_transpose2d": (1,),
    "conv_transpose3d": (1,),
    "matmul": (0, 1),
    "mm": (0, 1),
    "bmm": (0, 1),
    "addmm": (1, 2),
    "baddbmm": (1, 2),
    "einsum": (1,),
    "embedding": (0,),
    "lstm": (2,),
    "gru": (2,),
    "rnn_tanh": (2,),
    "rnn_relu": (2,),
    "lstm_cell": (2, 3),
    "gru_cell": (2, 3),
    "rnn_tanh_cell": (2, 3),
    "rnn_relu_cell": (2, 3),
}
"""ATen operator -> its arguments that may be weights, or lists of them."""


def count_matmul_weights(program: torch.export.ExportedProgram) -> int:
    """Count the elements of the learned weights of two or more dimensions that meet the inputs."""
    return sum(matmul_weights_by_operator(program).values())


def matmul_weights_by_operator(program: torch.export.ExportedProgram) -> dict[str, int]:
    """Count the same by the ATen operator that reads a weight; what several read counts for the first."""
    counts: dict[str, int] = {}
    parameters = set(program.graph_signature.inputs_to_parameters)
    for source, operator in _matmul_weight_sources(program).items():
        if len(source.meta["val"].shape) > 1:
            counts[operator] = counts.get(operator, 0) + _least_stored_elements(source, parameters)
    return counts


def _least_stored_elements(source: Node, parameters: Collection[str]) -> int:
    """Count what a file holds of a weight at least: the weight, or the parameters that it is computed from.

    A product with a table of positions may be far larger than its parameter, and not every compiler folds it.
    """
    ancestors, ahead = {source}, [source]
    while ahead:
        new = set(ahead.pop().all_input_nodes) - ancestors
        ancestors |= new
        ahead += new
    stored = sum(prod(node.meta["val"].shape) for node in ancestors if node.name in parameters)
    least: int = min(stored, prod(source.meta["val"].shape))
    return least


def _nodes_that_outputs_need(graph: Graph) -> set[Node]:
    """Return the nodes that an output depends on; a head for training alone may compute what nothing reads.

    What changes a tensor in place counts as needed: the tensor is read afterwards, not the node.
    """
    needed = {graph.output_node()}
    for node in reversed(graph.nodes):
        if node in needed or getattr(getattr(node.target, "_schema", None), "is_mutable", False):
            needed.update((node, *node.all_input_nodes))
    return needed


def _matmul_weight_sources(program: torch.export.ExportedProgram) -> dict[Node, str]:
    """Return where the weights come from, each once: a parameter, or a product of parameters alone.

    With each is the operator that reads it.
    """
    signature = program.graph_signature
    computed: set[Node] = set()  # depends on the model's inputs
    learned: set[Node] = set()  # depends on parameters, and on no input
    sources: dict[Node, str] = {}
    needed = _nodes_that_outputs_need(program.graph)
    for node in program.graph.nodes:
        if node not in needed:
            continue
        if node.op == "placeholder":
            if node.name in signature.user_inputs:
                computed.add(node)
            elif node.name in signature.inputs_to_parameters:
                learned.add(node)
        # A product of constants (position embeddings are looked up at 0, 1, 2, …) may be folded into one.
        elif not computed.isdisjoint(node.all_input_nodes):
            computed.add(node)
            operator = getattr(node.target, "_opname", "")
            for weight in _matmul_weights(node):
                if weight in learned:
                    sources.setdefault(_matmul_weight_source(weight), operator)
        elif not learned.isdisjoint(node.all_input_nodes):
            learned.add(node)
    return sources


def _matmul_weights(node: Node) -> Iterator[Node]:
    from torch.fx import Node
    from torch.utils._pytree import tree_leaves

    for position in WEIGHT_ARGUMENTS.get(getattr(node.target, "_opname", ""), ()):
        for leaf in tree_leaves(node.args[position : position + 1]):
            if isinstance(leaf, Node):
                yield leaf


def _matmul_weight_source(weight: Node) -> Node:
    """Return the tensor that a weight is a view, a cast or a broadcast of: tied weights share it."""
    while len(weight.all_input_nodes) == 1:
        (before,) = weight.all_input_nodes
        if _matmul_weight_elements(before) > _matmul_weight_elements(
            weight
        ):  # a part of it, which is all that is needed
            break
        weight = before
    return weight


def _matmul_weight_elements(node: Node) -> float:
    shape = getattr(node.meta.get("val"), "shape", None)  # of `split` it is a list
    return float("inf") if shape is None else prod(shape)
