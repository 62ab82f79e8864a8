"""Give each reader of a dequantised value, and each layer that shares a bias, one of its own.

XNNPACK's compiler takes a dequantiser into the operator that reads it. Where something else reads the same
one (a state that is returned and goes through a layer), the value is lost: its memory holds what was there
before, or the file does not load. A bias is stored as integers of its layer's input and weight scales: where
a layer is called twice, with inputs of two scales, the compiler stores it once, with the first's.
"""

from __future__ import annotations

import copy

from torch import fx

from exporter.quantize.graphs import DEQUANTIZE, LAYERS, graph_attribute, stored_in_graph


def give_readers_own_operands(module: fx.GraphModule) -> None:
    """Copy dequantisers and biases that have several readers, in place; no value changes.

    Args:
        module: As PT2E converted it.
    """
    for node in list(module.graph.nodes):
        if node.target is DEQUANTIZE:
            _copy_for_each_reader(module.graph, node)
    _copy_shared_biases(module)
    module.recompile()


def _copy_for_each_reader(graph: fx.Graph, node: fx.Node) -> None:
    for reader in list(node.users)[1:]:
        with graph.inserting_after(node):
            own = graph.node_copy(node)
        own.meta = copy.copy(node.meta)
        reader.replace_input_with(node, own)


def _copy_shared_biases(module: fx.GraphModule) -> None:
    seen: set[str] = set()
    for node in module.graph.nodes:
        bias = node.args[2] if node.target in LAYERS and len(node.args) > 2 else None
        if not isinstance(bias, fx.Node) or stored_in_graph(bias) is not bias:
            continue
        name = str(bias.target)
        if name not in seen:
            seen.add(name)
            continue
        own = f"own_bias_{len(seen)}_{node.name}"
        module.register_buffer(own, graph_attribute(module, name).detach().clone())
        with module.graph.inserting_before(node):
            copied = module.graph.get_attr(own)
        copied.meta = copy.copy(bias.meta)
        node.args = (*node.args[:2], copied, *node.args[3:])
