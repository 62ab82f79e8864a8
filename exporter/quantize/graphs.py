"""Read exported graphs for the other modules here: operators by kind, weights, and a walk."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, fx

# Registers the quantized_decomposed operators.
from torch.ao.quantization.fx import _decomposed  # noqa: F401

T = TypeVar("T")
aten = torch.ops.aten
QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default
QUANTIZE_DYNAMIC = torch.ops.quantized_decomposed.quantize_per_tensor.tensor
DEQUANTIZE_DYNAMIC = torch.ops.quantized_decomposed.dequantize_per_tensor.tensor
"""The dequantiser of dynamic quantisation, whose range is chosen at run time (see `dynamic`)."""
QUANTIZER_OF = {DEQUANTIZE: QUANTIZE, DEQUANTIZE_DYNAMIC: QUANTIZE_DYNAMIC}
"""A tensor's dequantiser -> its quantiser."""
DEQUANTIZE_CHANNELS = torch.ops.quantized_decomposed.dequantize_per_channel.default
CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default)
LAYERS = (*CONVOLUTIONS, aten.linear.default)
"""Operators whose second argument is a weight, output channels first, and whose third is a bias."""
CLAMPS = (aten.hardtanh.default, aten.hardtanh_.default)
ACTIVATIONS = (aten.relu.default, aten.relu_.default, *CLAMPS)
"""Activations that XNNPACK computes in one step with the layer before."""
AVERAGES = (aten.mean.dim, aten.adaptive_avg_pool2d.default)
PRODUCTS = (aten.mul.Tensor, aten.mul_.Tensor)
SUMS = (aten.add.Tensor, aten.add_.Tensor)


def example_sizes_in_graph(sizes: Iterable[Any]) -> tuple[int, ...]:
    """Return sizes as numbers: open ones as in the example, 0 where that is not known.

    `int` of an open size would fix it, in the graph and in every copy of it.
    """
    return tuple(size if isinstance(size, int) else int(size.node.hint or 0) for size in sizes)


def graph_attribute(module: fx.GraphModule, name: str) -> Tensor:
    """Return the tensor that a `get_attr` node's target names."""
    path, _, last = name.rpartition(".")
    tensor: Tensor = getattr(module.get_submodule(path), last)
    return tensor


def remove_graph_attribute(module: fx.GraphModule, name: str) -> None:
    """Delete the tensor that a `get_attr` node's target names; it would be written into the artifact."""
    path, _, last = name.rpartition(".")
    delattr(module.get_submodule(path), last)


def stored_in_graph(node: fx.Node) -> fx.Node:
    """Return the `get_attr` node that a weight comes from, through observers and dequantisers."""
    while node.op != "get_attr":
        node = node.all_input_nodes[0]
    return node


def is_graph_weight(node: Any) -> bool:
    """Return whether a node is a parameter, possibly after observers and dequantisers."""
    while isinstance(node, fx.Node) and node.op != "get_attr":
        passes = node.op == "call_module" or node.target in (DEQUANTIZE, DEQUANTIZE_CHANNELS)
        if not passes or not node.args:
            return False
        node = node.args[0]
    return isinstance(node, fx.Node)


def rounded_graph_tensor(node: fx.Node) -> fx.Node | None:
    """Return the tensor that a dequantiser returns rounded; None for other nodes, and for a weight's."""
    if node.target not in QUANTIZER_OF or node.all_input_nodes[0].target is not QUANTIZER_OF[node.target]:
        return None
    return node.all_input_nodes[0].all_input_nodes[0]


def groups_in_graph(convolution: fx.Node) -> int:
    """Return the number of groups of a layer's convolution."""
    groups = convolution.args[6] if len(convolution.args) > 6 else 1
    return groups if isinstance(groups, int) and convolution.target in CONVOLUTIONS else 1


def graph_module_path(node: fx.Node) -> str:
    """Return a node's place in the user's model: "features.3.conv.0.0"; its own name when unknown."""
    stack: Mapping[str, Any] = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if path]
    return str(paths[-1]).removeprefix("L['self'].") if paths else node.name


def copy_graph(module: fx.GraphModule) -> fx.GraphModule:
    """Copy the graph over the same tensors; a deep copy takes several times as long."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    graph.set_codegen(module.graph._codegen)
    return fx.GraphModule(module, graph)


class GraphWalk(fx.Interpreter):
    """Run a graph node by node. `around` may compute a node's value itself.

    Operators that change their argument in place work on a copy, so that every node's value stays what it was
    and gradients can be taken of it.
    """

    def __init__(
        self, module: fx.GraphModule, around: Callable[[GraphWalk, fx.Node], Any | None], keep: bool = False
    ) -> None:
        super().__init__(module, garbage_collect_values=not keep)
        self._around = around

    def run_node(self, n: fx.Node) -> Any:
        value = self._around(self, n)
        return self.compute(n) if value is None else value

    def compute(self, node: fx.Node) -> Any:
        """Compute the node's own value."""
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None or not schema.is_mutable:
            return super().run_node(node)
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        return node.target(args[0].clone(), *args[1:], **kwargs)  # type: ignore[operator]


def spread_graph_samples(samples: Sequence[T], most: int) -> Sequence[T]:
    """Return at most `most` samples, one at random from each of as many equal parts.

    Crops come photo by photo, again and again: every fourth of eight photos' crops shows two photos.
    """
    return [samples[place] for place in _places_in_graph(len(samples), most)]


def other_graph_samples(samples: Sequence[T], most: int) -> Sequence[T]:
    """Return as many of the samples that `spread_graph_samples` leaves out; all if it leaves none."""
    places = set(_places_in_graph(len(samples), most))
    rest = [sample for place, sample in enumerate(samples) if place not in places]
    return spread_graph_samples(rest, most) if rest else samples


def _places_in_graph(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(count))
    places = random.Random(0)
    edges = [count * part // most for part in range(most + 1)]
    return [places.randrange(low, high) for low, high in itertools.pairwise(edges)]


def graph_outputs(result: Any) -> tuple[Tensor, ...]:
    """Return a call's outputs as a sequence, whether it returns one tensor or several."""
    return tuple(result) if isinstance(result, tuple | list) else (result,)
