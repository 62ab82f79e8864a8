"""Store embedding tables in int8, with a scale for each row; the rows that are looked up become float again.

A table is often a quarter of a text network's weights, and is never multiplied: it is only read. What comes
out is a row of float values, each rounded once, so that activations stay as they are.

The table is written with plain operators (look up a row of integers and its scale, convert, multiply), which
both ONNX and ExecuTorch have. A dequantiser of the whole table would be computed anew at every call.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from exporter.quantize.graphs import aten, graph_attribute, remove_graph_attribute
from exporter.quantize.recurrent_weights import round_recurrent_weight

EMBEDDING = aten.embedding.default


def quantize_embeddings(module: fx.GraphModule) -> None:
    """Replace the tables that a module looks its inputs up in by int8 and a scale for each row, in place.

    Tables whose rows are the same at every call (positions 0, 1, 2, …) stay: compilers fold them.

    Args:
        module: A float or a converted PT2E module; its weights are its own.
    """
    stored: dict[str, tuple[str, str]] = {}
    for node in _embeddings_of_inputs(module):
        name = str(node.args[0].target)  # type: ignore[union-attr]
        if name not in stored:
            stored[name] = _store_embedding_table(module, name)
        _look_up_quantized(module.graph, node, *stored[name])
    if not stored:
        return
    module.graph.eliminate_dead_code()
    for name in stored.keys() - {str(node.target) for node in module.graph.nodes}:
        remove_graph_attribute(module, name)
    module.graph.lint()
    module.recompile()


def _embeddings_of_inputs(module: fx.GraphModule) -> list[fx.Node]:
    """Return the look-ups in stored float tables whose places depend on the module's inputs."""
    computed: set[fx.Node] = set()
    lookups = []
    for node in module.graph.nodes:
        if node.op == "placeholder" or not computed.isdisjoint(node.all_input_nodes):
            computed.add(node)
        if node.target is EMBEDDING and node.args[1] in computed and node.args[0].op == "get_attr":
            table = graph_attribute(module, str(node.args[0].target))
            if table.is_floating_point():
                lookups.append(node)
    return lookups


def _store_embedding_table(module: fx.GraphModule, name: str) -> tuple[str, str]:
    """Store a table's integers and scales in the module, and return the names of both."""
    table: Tensor = graph_attribute(module, name).detach()
    steps, scale = round_recurrent_weight(table)
    stem = name.replace(".", "_")
    names = f"{stem}_rows", f"{stem}_row_scales"
    for buffer, value in zip(names, (steps, scale), strict=True):
        module.register_buffer(buffer, value)
    return names


def _look_up_quantized(graph: fx.Graph, node: fx.Node, rows: str, scales: str) -> None:
    places = node.args[1]
    with graph.inserting_before(node):
        steps = graph.call_function(EMBEDDING, (graph.get_attr(rows), places))
        values = graph.call_function(aten.to.dtype, (steps, torch.float32))
        scale = graph.call_function(aten.index.Tensor, (graph.get_attr(scales), [places]))
        column = graph.call_function(aten.unsqueeze.default, (scale, -1))
        looked_up = graph.call_function(aten.mul.Tensor, (values, column))
    looked_up.meta = dict(node.meta)
    node.replace_all_uses_with(looked_up)
    graph.erase_node(node)
