"""Store the weights of recurrent layers (LSTM, GRU) in int8; what they compute stays in float.

A recurrent layer reads its own output step by step, so that the error of a rounded activation is fed back.
Its weights are rounded once, per output channel, which costs little, and they are nearly all that it takes in
a file. ONNX gives the dequantised weights to its LSTM and GRU. ExecuTorch has no such operators: there each
step is written out, and its products are linear layers with int8 weights, which XNNPACK computes
(`exporter.formats.executorch.executorch_recurrent`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor, fx

from exporter.quantize.graphs import DEQUANTIZE_CHANNELS, aten, graph_attribute, remove_graph_attribute

RECURRENT = (aten.lstm.input, aten.gru.input)
"""Operators whose third argument lists the weights and biases of all their layers and directions."""
WEIGHTS = 2
"""The place of that list."""
MOST = 127


def quantize_recurrent_weights(module: fx.GraphModule, in_float: Collection[str] = ()) -> None:
    """Replace the weights of recurrent layers by int8 and a dequantiser per output channel, in place.

    Args:
        module: A float or a converted PT2E module; its weights are its own.
        in_float: Names of weights that stay as they are (`recurrent_float`).
    """
    store_recurrent_weights(
        module,
        [
            (node, weight)
            for node in module.graph.nodes
            if node.target in RECURRENT
            for weight in stored_recurrent_weights(module, node)
            if str(weight.target) not in in_float
        ],
    )


def store_recurrent_weights(module: fx.GraphModule, read: Sequence[tuple[fx.Node, fx.Node]]) -> None:
    """Store weights as integers and a scale for each row, in place.

    Args:
        module: The module; its weights are its own.
        read: Each layer, and a weight that it reads.
    """
    dequantized: dict[str, fx.Node] = {}
    for layer, weight in read:
        name = str(weight.target)
        if name not in dequantized:
            dequantized[name] = _dequantized_recurrent_weight(module, weight)
        layer.replace_input_with(weight, dequantized[name])
    if dequantized:
        module.graph.eliminate_dead_code()
        for name in dequantized.keys() - {str(node.target) for node in module.graph.nodes}:
            remove_graph_attribute(module, name)
        module.graph.lint()
        module.recompile()


def has_recurrent_weights(module: fx.GraphModule) -> bool:
    """Return whether a module has a recurrent layer whose weights are stored as int8."""
    return any(
        node.target in RECURRENT
        and any(_is_dequantized_recurrent_weight(source) for source in node.all_input_nodes)
        for node in module.graph.nodes
    )


def round_recurrent_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return whole numbers from -127 to 127, and the scale of each row; the largest of a row is 127."""
    scale = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny * MOST) / MOST
    return torch.round(weight / scale[:, None]).clamp(-MOST, MOST).to(torch.int8), scale


def stored_recurrent_weights(module: fx.GraphModule, layer: fx.Node) -> Iterator[fx.Node]:
    """Yield the stored weights that a layer reads; its biases are vectors, and small."""
    for source in layer.args[WEIGHTS]:  # type: ignore[union-attr]
        if not isinstance(source, fx.Node) or source.op != "get_attr":
            continue
        if graph_attribute(module, str(source.target)).dim() == 2:
            yield source


def _is_dequantized_recurrent_weight(node: fx.Node) -> bool:
    return node.target is DEQUANTIZE_CHANNELS


def _dequantized_recurrent_weight(module: fx.GraphModule, weight: fx.Node) -> fx.Node:
    steps, scale = round_recurrent_weight(graph_attribute(module, str(weight.target)).detach())
    stem = str(weight.target).replace(".", "_")
    zeros = torch.zeros(len(scale), dtype=torch.int64)
    with module.graph.inserting_before(weight.next):
        sources = []
        for name, value in (("steps", steps), ("scale", scale), ("zero", zeros)):
            module.register_buffer(f"{stem}_{name}", value)
            sources.append(module.graph.get_attr(f"{stem}_{name}"))
        return module.graph.call_function(DEQUANTIZE_CHANNELS, (*sources, 0, -MOST, MOST, torch.int8))
