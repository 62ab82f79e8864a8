"""Scale channels so that each uses more of the int8 range that they share.

One scale serves all channels of an activation, so the channel that reaches furthest decides how coarsely the
others are rounded. A channel can be multiplied by any positive factor where it is written, and divided where
it is read (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019).
Here the factors follow from real activations, not from weights, and from how far batch norms say that
channels reach on other inputs (`spread`).

A depthwise convolution has a scale for each of these channels, so dividing there costs nothing. A dense one
shares a scale among what it reads: small columns of its weights are rounded more coarsely. Tensors that are
added share their channels' factors, and so do all convolutions that write or read them. A clamp (ReLU6) stays
where it is, whatever the factor: its channels are only enlarged, and only while they stay below it. How far
each group goes is chosen on held-out scenes (`equalization_choice`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from exporter.quantize import equalization_choice, graphs
from exporter.quantize.channel_spread import ChannelSpread, channel_spread_of_tensor, reach_by_channel_spread
from exporter.quantize.equalization_choice import EqualizedChannels
from exporter.quantize.graphs import GraphWalk, aten, graph_attribute, spread_graph_samples

MOST_SAMPLES = 64
"""How many calibration samples say how far channels reach."""


@dataclass(eq=False)
class _Group:
    """Tensors whose channels must have the same factors, and the convolutions around them."""

    tensors: list[fx.Node] = field(default_factory=list)
    writers: list[fx.Node] = field(default_factory=list)
    readers: list[fx.Node] = field(default_factory=list)
    scalable: bool = True
    """Whether only convolutions, additions and clamps from 0 write and read the tensors."""

    def rounded(self) -> list[fx.Node]:
        """Return the tensors that int8 will round: those that no activation of the same step reads."""
        return [t for t in self.tensors if not any(user.target in graphs.ACTIVATIONS for user in t.users)]

    def clamp(self) -> float:
        """Return the smallest value that a tensor is clamped to; infinite without a clamp."""
        return min((_clamp_to_equalize(t) or 0.0 for t in self.tensors), default=float("inf"))


def equalize_across_layers(
    module: fx.GraphModule,
    samples: Sequence[tuple[Tensor, ...]],
    spreads: Mapping[str, ChannelSpread] | None = None,
    scenes: Sequence[int] = (),
) -> str:
    """Scale channels in place; the module computes the same, but where a channel reaches its clamp.

    Args:
        module: A float module from `torch.export`, its batch norms folded; its weights are its own.
        samples: One call of the model each.
        spreads: The spread of convolutions' channels, from the batch norms before they were folded.
        scenes: The scene of each sample; empty where each is a scene of its own.

    Returns:
        How many groups of channels were scaled, for the user; empty where none were.
    """
    rows = list(zip(samples, scenes or range(len(samples)), strict=True))
    samples, scenes = zip(*spread_graph_samples(rows, MOST_SAMPLES), strict=True)
    groups = list(_groups_to_equalize(module))
    tensors = [tensor for group in groups for tensor in group.rounded()]
    seen = _reach_to_equalize(module, tensors, samples)
    reach = partial(_reach_beyond_samples_to_equalize, seen=seen, spreads=spreads or {})
    channels = [_channels_to_equalize(module, group) for group in groups]
    factors = equalization_choice.choose_equalization_factors(module, channels, samples, scenes, reach)
    with torch.no_grad():
        for group, factor in zip(groups, factors, strict=True):
            _equalize_group(module, group, factor)
    scaled = sum(bool((factor > 1).any()) for factor in factors)
    return f"int8: channels are rescaled in {scaled} of {len(groups)} groups of layers" if scaled else ""


def _channels_to_equalize(module: fx.GraphModule, group: _Group) -> EqualizedChannels:
    dense = [reader for reader in group.readers if not _is_depthwise_to_equalize(module, reader)]
    weights: list[Any] = [reader.args[1] for reader in dense]
    return EqualizedChannels(group.rounded(), group.clamp(), weights)


def _equalize_group(module: fx.GraphModule, group: _Group, factor: Tensor) -> None:
    for writer in group.writers:
        for place in (1, 2):
            if (parameter := _parameter_to_equalize(module, writer, place)) is not None:
                parameter.mul_(_equalization_along(factor, parameter, 0))
    for reader in group.readers:
        weight = graph_attribute(module, str(reader.args[1].target))  # type: ignore[union-attr]
        weight.div_(
            _equalization_along(factor, weight, 0 if _is_depthwise_to_equalize(module, reader) else 1)
        )


def _groups_to_equalize(module: fx.GraphModule) -> Iterator[_Group]:
    seen: set[fx.Node] = set()
    for node in module.graph.nodes:
        if node.target in graphs.CONVOLUTIONS and node not in seen:
            group = _Group()
            _join_to_equalize(module, node, group)
            seen.update(group.tensors)
            if group.scalable and group.readers:
                yield group


def _join_to_equalize(module: fx.GraphModule, start: fx.Node, group: _Group) -> None:
    """Add a tensor to a group, and all that must share its factors."""
    left = [start]
    while left:
        tensor = left.pop()
        if tensor in group.tensors:
            continue
        group.tensors.append(tensor)
        if tensor.target in graphs.CONVOLUTIONS:
            group.writers.append(tensor)
            group.scalable &= _owns_weights_to_equalize(tensor)
        elif _is_equalized_through(tensor):
            left += tensor.all_input_nodes
        else:
            group.scalable = False
        for user in tensor.users:
            if user.target in graphs.CONVOLUTIONS and user.args[0] is tensor:
                group.readers.append(user)
                group.scalable &= _owns_weights_to_equalize(user) and _is_equalized_by_inputs(module, user)
            else:
                left.append(user)


def _is_equalized_through(node: fx.Node) -> bool:
    """Return whether a factor on an operator's inputs is one on its output."""
    if node.target in graphs.ACTIVATIONS:
        return _clamp_to_equalize(node) is not None
    if node.target is not aten.add.Tensor or node.kwargs:
        return False
    # As text: sizes that have a range are symbols, which a set does not take.
    shapes = {str(tuple(source.meta["val"].shape)) for source in node.all_input_nodes}
    return len(node.all_input_nodes) == 2 and len(shapes) == 1


def _is_equalized_by_inputs(module: fx.GraphModule, layer: fx.Node) -> bool:
    return graphs.is_graph_weight(layer.args[1]) and (
        graphs.groups_in_graph(layer) == 1 or _is_depthwise_to_equalize(module, layer)
    )


def _is_depthwise_to_equalize(module: fx.GraphModule, layer: fx.Node) -> bool:
    if not graphs.is_graph_weight(layer.args[1]):
        return False
    weight = graph_attribute(module, str(layer.args[1].target))  # type: ignore[union-attr]
    return weight.shape[1] == 1 and weight.shape[0] == graphs.groups_in_graph(layer) > 1


def _owns_weights_to_equalize(layer: fx.Node) -> bool:
    """Return whether no other operator uses the layer's weight or bias."""
    parameters = [node for node in layer.all_input_nodes if node.op == "get_attr"]
    return layer.args[1] in parameters and all(len(node.users) == 1 for node in parameters)


def _clamp_to_equalize(node: fx.Node) -> float | None:
    """Return a node's largest value: infinite without a clamp, None where its range does not begin at 0."""
    if node.target not in graphs.CLAMPS:
        return float("inf")
    low, high = (*node.args[1:], -1.0, 1.0)[:2]  # hardtanh's own defaults
    return float(high) if low == 0 else None  # type: ignore[arg-type]


def _reach_to_equalize(
    module: fx.GraphModule, tensors: Sequence[fx.Node], samples: Sequence[tuple[Tensor, ...]]
) -> dict[fx.Node, Tensor]:
    """Return the largest magnitude of each channel in each sample, [samples, channels]."""
    reaches: dict[fx.Node, list[Tensor]] = {tensor: [] for tensor in tensors}

    def look(walk: GraphWalk, node: fx.Node) -> Any | None:
        if node not in reaches:
            return None
        value = walk.compute(node)
        reaches[node].append(value.abs().amax([d for d in range(value.dim()) if d != 1]))
        return value

    with torch.no_grad():
        for sample in samples if tensors else ():
            GraphWalk(module, look).run(*sample)
    return {tensor: torch.stack(rows) for tensor, rows in reaches.items()}


def _reach_beyond_samples_to_equalize(
    tensor: fx.Node,
    places: Sequence[int],
    seen: Mapping[fx.Node, Tensor],
    spreads: Mapping[str, ChannelSpread],
) -> Tensor:
    """Return how far channels may reach on other inputs; no further than a clamp lets them."""
    largest, spread = seen[tensor][list(places)].amax(0), channel_spread_of_tensor(tensor, spreads)
    if spread is None:
        return largest
    return reach_by_channel_spread(tensor, largest, spread).clamp_max(
        _clamp_to_equalize(tensor) or float("inf")
    )


def _parameter_to_equalize(module: fx.GraphModule, layer: fx.Node, place: int) -> Tensor | None:
    node = layer.args[place] if len(layer.args) > place else None
    return graph_attribute(module, str(node.target)) if isinstance(node, fx.Node) else None


def _equalization_along(factor: Tensor, parameter: Tensor, dimension: int) -> Tensor:
    return factor.reshape(*[1] * dimension, -1, *[1] * (parameter.dim() - 1 - dimension))
