"""Scale the channels before a depthwise convolution so that each uses the whole int8 range.

One scale serves all channels of an activation, so the channel that reaches furthest decides how coarsely the
others are rounded. A channel can be multiplied by any positive factor where the layer that writes it is, and
the layer that reads it divides by it (Nagel et al., "Data-Free Quantization Through Weight Equalization and
Bias Correction", 2019). Both weights have a scale for each of these channels, so this costs nothing. Here the
factors follow from real activations, not from weights.

A clamp (ReLU6) stays where it is, whatever the factor: its channels are only enlarged, and only until the
largest value seen, times `HEADROOM`, meets it.

Dense convolutions could be divided as well, as their weights' columns share a scale at a cost. It was tried:
on photos that had not been seen, MobileNetV2 lost 0.4 dB where nothing clamps, and 3 to 5 dB behind ReLU6.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from exporter.quantize import graphs
from exporter.quantize.graphs import GraphWalk, graph_attribute

MOST = 16.0
"""The largest factor: channels that are nearly unused stay small."""

HEADROOM = 1.5
"""A clamped channel may grow until its largest value, times this, meets the clamp."""


@dataclass(frozen=True, eq=False)
class _EqualisedPair:
    """A layer and the depthwise convolution that alone reads what it writes."""

    writer: fx.Node
    between: fx.Node
    """The activation after the writer, or the writer itself."""
    reader: fx.Node


def equalise_channels(module: fx.GraphModule, samples: Sequence[tuple[Tensor, ...]]) -> None:
    """Scale channels in place; the module computes the same.

    Args:
        module: A float module from `torch.export`, its batch norms folded; its weights are its own.
        samples: One call of the model each.
    """
    pairs = list(_pairs_to_equalise(module))
    reach = _reach_to_equalise(module, [pair.between for pair in pairs], samples)
    with torch.no_grad():
        for pair in pairs:
            factor = _equalising_factor(reach[pair.between], pair.between)
            for place in (1, 2):
                if (parameter := _parameter_to_equalise(module, pair.writer, place)) is not None:
                    parameter.mul_(_equalise_along_first(factor, parameter))
            weight = graph_attribute(module, str(pair.reader.args[1].target))  # type: ignore[union-attr]
            weight.div_(_equalise_along_first(factor, weight))


def _pairs_to_equalise(module: fx.GraphModule) -> Iterator[_EqualisedPair]:
    for reader in module.graph.nodes:
        if reader.target not in graphs.CONVOLUTIONS or not _is_depthwise_to_equalise(module, reader):
            continue
        between = reader.args[0]
        writer = between.args[0] if between.target in graphs.ACTIVATIONS else between
        chain = (writer, between) if writer is not between else (writer,)
        if writer.target not in graphs.CONVOLUTIONS or any(len(node.users) != 1 for node in chain):
            continue
        if (
            _clamp_to_equalise(between) is not None
            and _owns_weights_to_equalise(writer)
            and _owns_weights_to_equalise(reader)
        ):
            yield _EqualisedPair(writer, between, reader)


def _is_depthwise_to_equalise(module: fx.GraphModule, layer: fx.Node) -> bool:
    if not graphs.is_graph_weight(layer.args[1]):
        return False
    weight = graph_attribute(module, str(layer.args[1].target))  # type: ignore[union-attr]
    return weight.shape[1] == 1 and weight.shape[0] == graphs.groups_in_graph(layer) > 1


def _owns_weights_to_equalise(layer: fx.Node) -> bool:
    """Return whether no other operator uses the layer's weight or bias."""
    parameters = [node for node in layer.all_input_nodes if node.op == "get_attr"]
    return layer.args[1] in parameters and all(len(node.users) == 1 for node in parameters)


def _clamp_to_equalise(node: fx.Node) -> float | None:
    """Return a node's largest value: infinite without a clamp, None where its range does not begin at 0."""
    if node.target not in graphs.CLAMPS:
        return float("inf")
    low, high = (*node.args[1:], -1.0, 1.0)[:2]  # hardtanh's own defaults
    return float(high) if low == 0 else None  # type: ignore[arg-type]


def _reach_to_equalise(
    module: fx.GraphModule, tensors: Sequence[fx.Node], samples: Sequence[tuple[Tensor, ...]]
) -> dict[fx.Node, Tensor]:
    """Return the largest magnitude of each channel over all samples."""
    reaches: dict[fx.Node, Tensor] = {}
    wanted = set(tensors)

    def look(walk: GraphWalk, node: fx.Node) -> Any | None:
        if node not in wanted:
            return None
        value = walk.compute(node)
        largest = value.abs().amax([d for d in range(value.dim()) if d != 1])
        reaches[node] = torch.maximum(reaches[node], largest) if node in reaches else largest
        return value

    with torch.no_grad():
        for sample in samples if wanted else ():
            GraphWalk(module, look).run(*sample)
    return reaches


def _equalising_factor(reach: Tensor, between: fx.Node) -> Tensor:
    clamp = _clamp_to_equalise(between) or 0.0
    reach = reach.clamp_min(torch.finfo(reach.dtype).tiny)
    wanted = reach.max().clamp_max(clamp) / reach
    return torch.minimum(wanted, clamp / (HEADROOM * reach)).clamp(1.0, MOST)


def _parameter_to_equalise(module: fx.GraphModule, layer: fx.Node, place: int) -> Tensor | None:
    node = layer.args[place] if len(layer.args) > place else None
    return graph_attribute(module, str(node.target)) if isinstance(node, fx.Node) else None


def _equalise_along_first(factor: Tensor, parameter: Tensor) -> Tensor:
    return factor.reshape(-1, *[1] * (parameter.dim() - 1))
