"""Take back the corrections of layers, for programs of which a part stays in float.

A correction makes up for the error of the rounded inputs that a layer has in a whole int8 program. Where
layers before it are in float, that error is gone, and the correction would be one itself: MobileNetV2 with
all but a few operators in float has 27 dB with corrections, and 46 dB without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, fx


class UncorrectedLayer(NamedTuple):
    """A corrected layer as it was before."""

    weight: Tensor
    """Its float weight."""
    steps: Tensor
    """Its rounded weight, whole numbers."""
    bias: Tensor


def take_back_layer_corrections(
    module: fx.GraphModule, layers: Mapping[str, UncorrectedLayer]
) -> fx.GraphModule:
    """Return a copy of a quantised program, over the same tensors, whose layers are not corrected.

    Args:
        module: The whole program in int8; it is not changed.
        layers: Layer's node name -> the layer before its correction.
    """
    from exporter.quantize.graphs import copy_graph

    plain = copy_graph(module)
    for node in plain.graph.nodes:
        if node.name in layers:
            layer = layers[node.name]
            dequantize, bias = node.args[1:3]  # a correction is of layers with an int8 weight and a bias
            _replace_layer_tensor(plain, dequantize.args[0], layer.steps)
            _replace_layer_tensor(plain, bias, layer.bias)
    return plain


def _replace_layer_tensor(module: fx.GraphModule, node: fx.Node, value: Tensor) -> None:
    from exporter.quantize.graphs import remove_graph_attribute

    remove_graph_attribute(module, str(node.target))
    path, _, name = str(node.target).rpartition(".")
    module.get_submodule(path).register_buffer(name, value)
