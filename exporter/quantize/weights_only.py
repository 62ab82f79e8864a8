"""Quantise only the weights of linear layers to int8, where 8 bits cannot hold a layer's inputs.

Where a few values of a row are a thousand times as loud as the others, a range for each row (`dynamic`) is no
better than one for all: it rounds the others to nothing. Weights have no such values, so they stay int8 per
output channel, for a file of a quarter the size; what is computed is float, at about float's speed.

Biases are added apart. XNNPACK's kernels for float inputs and int8 weights (f32-qc8w-gemm) scale a bias as if
it were a product: what ExecuTorch 1.4.1 hands them, a plain float bias, comes out wrong.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from torch import Tensor, fx

from exporter.quantize import dynamic_int8, weight_rounding
from exporter.quantize.graphs import DEQUANTIZE_CHANNELS, aten


def quantize_weights_only(
    module: fx.GraphModule, weights: Mapping[str, Tensor], samples: Sequence[tuple[Tensor, ...]]
) -> fx.GraphModule:
    """Return a program with the int8 weights of a dynamic one and activations in float.

    Args:
        module: The result of `dynamic_int8.quantize_dynamic_int8`; it is not changed.
        weights: Layer node -> its weight before rounding.
        samples: One call of the model each: weights are rounded anew for them, as activations are others now.
    """
    copied = dynamic_int8.dynamic_int8_in_float(copy.deepcopy(module))
    weight_rounding.improve_weight_rounding(copied, dict(weights), samples)
    for node in list(copied.graph.nodes):
        if node.target is aten.linear.default and node.args[1].target is DEQUANTIZE_CHANNELS:
            part_bias_of_weights_only(copied.graph, node)
    copied.recompile()
    return copied


def part_bias_of_weights_only(graph: fx.Graph, layer: fx.Node) -> None:
    x, weight, *bias = layer.args
    if not bias or bias[0] is None:
        return
    layer.args = (x, weight)
    with graph.inserting_after(layer):
        total = graph.call_function(aten.add.Tensor, (layer, bias[0]))
    layer.replace_all_uses_with(total, delete_user_cb=lambda user: user is not total)
