"""Predict from batch norms how far channels reach on inputs that calibration did not show.

A channel that calibration hardly excites looks as if it could be enlarged without harm: MobileNetV2's late
layers have channels for things that eight photos do not show, and on other photos those are clipped. A batch
norm gives each channel a mean and a deviation over the training data. So a channel is taken to reach at least
as far, counted in its deviations, as half of its layer's channels did during calibration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, fx

from exporter.quantize import graphs
from exporter.quantize.graphs import aten, graph_attribute


class ChannelSpread(NamedTuple):
    """Each channel's mean and standard deviation over the training data: [C] both."""

    mean: Tensor
    deviation: Tensor


def channel_spread_of_norms(module: fx.GraphModule) -> dict[str, ChannelSpread]:
    """Return the spread of each convolution's channels after its batch norm, by the convolution's node.

    Args:
        module: A captured program whose batch norms are not yet folded; folding keeps the nodes' names.
    """
    spreads = {}
    for norm in module.graph.nodes:
        before = norm.args[0] if norm.target is aten.batch_norm.default else None
        if not isinstance(before, fx.Node) or before.target not in graphs.CONVOLUTIONS or not norm.args[1]:
            continue
        weight, bias = (graph_attribute(module, str(norm.args[place].target)).detach() for place in (1, 2))
        spreads[before.name] = ChannelSpread(bias.clone(), weight.abs())
    return spreads


def channel_spread_of_tensor(tensor: fx.Node, spreads: Mapping[str, ChannelSpread]) -> ChannelSpread | None:
    """Return the spread of a tensor's channels before its activation; None where a norm is missing."""
    if tensor.target in graphs.CONVOLUTIONS:
        return spreads.get(tensor.name)
    if tensor.target in graphs.ACTIVATIONS:
        return channel_spread_of_tensor(tensor.all_input_nodes[0], spreads)
    if tensor.target is not aten.add.Tensor:
        return None
    terms = [channel_spread_of_tensor(source, spreads) for source in tensor.all_input_nodes]
    known = [term for term in terms if term is not None]
    if len(known) < 2 or len(known) < len(terms):
        return None
    # As if the terms were independent.
    variance = torch.stack([term.deviation.square() for term in known]).sum(0)
    return ChannelSpread(torch.stack([term.mean for term in known]).sum(0), variance.sqrt())


def reach_by_channel_spread(tensor: fx.Node, seen: Tensor, spread: ChannelSpread) -> Tensor:
    """Return each channel's reach: what was seen of it, or more where others were seen further out.

    Args:
        tensor: The tensor, after its activation if it has one.
        seen: The largest magnitude of each channel during calibration.
        spread: The channels' spread before the activation.
    """
    deviation = spread.deviation.clamp_min(torch.finfo(seen.dtype).eps)
    # What an activation lets through is positive; without one, a channel may reach out on both sides.
    mean = spread.mean if tensor.target in graphs.ACTIVATIONS else spread.mean.abs()
    used = seen > 0
    if not used.any():
        return seen
    typical = ((seen - mean) / deviation)[used].median()
    return torch.maximum(seen, mean + typical * deviation)
