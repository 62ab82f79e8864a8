"""Turn some operators of a quantised program back into float.

An activation with a fixed range stays quantised as long as the operator that writes it or one that reads it
is int8; one with a dynamic range, for its int8 readers alone; a weight as long as its own layer
is. Ranges and rounded weights stay what they were, so candidates cost nothing to make.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from exporter.quantize import graphs
from exporter.quantize.graphs import DEQUANTIZE, DEQUANTIZE_CHANNELS, QUANTIZER_OF, remove_graph_attribute

DEQUANTIZERS = (*QUANTIZER_OF, DEQUANTIZE_CHANNELS)


@dataclass(frozen=True)
class MixedOperator:
    """An operator that runs in int8."""

    name: str
    """The name of its node, unique in the program."""
    layer: str
    """Its place in the user's model: "features.3.conv.0.0"."""
    kind: str
    """The kind of operator: "conv2d", "linear", "add", …"""


def mixed_precision_operators(module: fx.GraphModule) -> tuple[MixedOperator, ...]:
    """List the operators of a quantised program that read dequantised tensors, in running order.

    A layer of which only the weight is quantised is one of them.
    """
    return tuple(
        MixedOperator(node.name, graphs.graph_module_path(node), str(node.target).split(".")[1])
        for node in module.graph.nodes
        if _is_quantized_in_mixed_precision(node)
    )


def _is_quantized_in_mixed_precision(node: fx.Node) -> bool:
    reads = [n for n in node.all_input_nodes if n.target in DEQUANTIZERS]
    quantizes = node.target in QUANTIZER_OF.values()
    return node.op == "call_function" and not quantizes and bool(reads)


def keep_float_in_mixed_precision(
    module: fx.GraphModule, weights: Mapping[str, Tensor], names: Collection[str]
) -> fx.GraphModule:
    """Return a copy of a quantised program, over the same tensors, with the named operators in float.

    Args:
        module: The whole program in int8; it is not changed.
        weights: Layer's node name -> its weight before rounding.
        names: The `Operator.name` of each operator to turn into float.
    """
    mixed = graphs.copy_graph(module)
    for node in list(mixed.graph.nodes):
        if node.name in names and node.name in weights:
            _restore_mixed_precision_weight(mixed, node, weights[node.name])
        if (source := graphs.rounded_graph_tensor(node)) is not None:
            _bypass_in_mixed_precision(node, source, names)
    mixed.graph.eliminate_dead_code()
    mixed.recompile()
    _forget_unused_of_mixed_precision(mixed)
    return mixed


def _forget_unused_of_mixed_precision(module: fx.GraphModule) -> None:
    """Remove the integers of layers that are float again, which would be written into the artifact."""
    used = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name in {name for name, _ in (*module.named_parameters(), *module.named_buffers())} - used:
        remove_graph_attribute(module, name)


def _restore_mixed_precision_weight(module: fx.GraphModule, layer: fx.Node, weight: Tensor) -> None:
    dequantize = layer.args[1]
    if not isinstance(dequantize, fx.Node) or dequantize.target not in (DEQUANTIZE, DEQUANTIZE_CHANNELS):
        return
    name = f"{layer.name}_float_weight"
    module.register_parameter(name, torch.nn.Parameter(weight, requires_grad=False))
    with module.graph.inserting_before(layer):
        layer.replace_input_with(dequantize, module.graph.get_attr(name))


def _bypass_in_mixed_precision(dequantize: fx.Node, source: fx.Node, names: Collection[str]) -> None:
    """Let the float readers of a float operator's result read it unrounded."""
    before = writer_in_mixed_precision(source)
    written_as_integers = dequantize.target is DEQUANTIZE and _is_quantized_in_mixed_precision(before)
    if written_as_integers and before.name not in names:
        return
    for reader in list(dequantize.users):
        if reader.name in names or not _is_quantized_in_mixed_precision(reader):
            reader.replace_input_with(dequantize, source)


def writer_in_mixed_precision(tensor: fx.Node) -> fx.Node:
    """Return the operator that computes this result, before its activation."""
    return tensor.all_input_nodes[0] if tensor.target in graphs.ACTIVATIONS else tensor
