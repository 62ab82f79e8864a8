"""Find concatenations at a network's end whose parts differ too much in range to share one.

XNNPACK's concatenation copies bytes, so that its inputs and its output have one range. A detector that
returns boxes in pixels and scores from 0 to 1 in one tensor would keep two steps for its scores. Arithmetic
after the last layer that costs anything is cheap: it stays in float, before such a concatenation as after it.
So what the last layers give is rounded once, each with its own range, and boxes are not rounded to whole
pixels on their way from distances. A layer that costs next to nothing, such as Ultralytics' mean over a box's
16 distances, is arithmetic as well.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import prod

import torch
from torch import Tensor, fx

from exporter.quantize.graphs import (
    ACTIVATIONS,
    LAYERS,
    GraphWalk,
    aten,
    example_sizes_in_graph,
    graph_attribute,
    spread_graph_samples,
)

RATIO = 4.0
"""The ranges of parts may differ by this factor, two of the eight bits."""

MOST_SAMPLES = 4

FEW_WEIGHTS = 64
CHEAP = 0.01
"""A layer with few weights and a smaller share of the network's multiply-accumulates is mere arithmetic."""


def float_tail(module: fx.GraphModule, samples: Sequence[tuple[Tensor, ...]]) -> frozenset[str]:
    """Return the names of such concatenations, and of all operators before and behind them in the tail.

    Args:
        module: A float module from `torch.export`.
        samples: One call of the model each.
    """
    layers = _costly_layers(module)
    before = _before_layers_of_tail(module, layers)
    joins = [node for node in module.graph.nodes if node.target is aten.cat.default and node not in before]
    joins = [node for node, ratio in _tail_ratios(module, joins, samples).items() if ratio > RATIO]
    fixed = before | _ends_of_layers(layers)
    tail = {behind for node in joins for behind in _reached_from_tail(node, forward=True)}
    tail |= {node for join in joins for node in _reached_from_tail(join, forward=False, stop=fixed)}
    return frozenset(node.name for node in tail if node.op in ("call_function", "output"))


def _costly_layers(module: fx.GraphModule) -> set[fx.Node]:
    """Return the layers but for those that are mere arithmetic."""
    layers = [node for node in module.graph.nodes if node.target in LAYERS]
    weights = {node: _weights_of_tail_layer(module, node) for node in layers}
    costs = {node: _places_of_tail_layer(node) * prod(shape[1:]) for node, shape in weights.items()}
    least = CHEAP * sum(costs.values())
    return {node for node in layers if prod(weights[node]) > FEW_WEIGHTS or costs[node] >= least}


def _weights_of_tail_layer(module: fx.GraphModule, node: fx.Node) -> Sequence[int]:
    """Return the shape of a layer's weight; that of a large one where it is computed."""
    weight = node.args[1]
    stored = isinstance(weight, fx.Node) and weight.op == "get_attr"
    return graph_attribute(module, str(weight.target)).shape if stored else (2**16, 2**16)  # type: ignore[union-attr]


def _places_of_tail_layer(node: fx.Node) -> int:
    """Return how many values a layer gives."""
    return prod(example_sizes_in_graph(node.meta["val"].shape))


def _before_layers_of_tail(module: fx.GraphModule, layers: Collection[fx.Node]) -> set[fx.Node]:
    """Return every node that one of the layers depends on."""
    before: set[fx.Node] = set()
    for node in reversed(module.graph.nodes):
        if any(user in before or user in layers for user in node.users):
            before.add(node)
    return before


def _ends_of_layers(layers: Collection[fx.Node]) -> set[fx.Node]:
    """Return the layers and the activations that are computed with them: their results are rounded."""
    return set(layers) | {
        user for node in layers if len(node.users) == 1 for user in node.users if user.target in ACTIVATIONS
    }


def _reached_from_tail(start: fx.Node, forward: bool, stop: Collection[fx.Node] = ()) -> set[fx.Node]:
    """Return a node and all that depend on it, or that it depends on, up to and without `stop`."""
    reached: set[fx.Node] = set()
    left = [start]
    while left:
        node = left.pop()
        if node not in reached and node not in stop:
            reached.add(node)
            left += node.users if forward else node.all_input_nodes
    return reached


def _tail_ratios(
    module: fx.GraphModule, joins: Sequence[fx.Node], samples: Sequence[tuple[Tensor, ...]]
) -> dict[fx.Node, float]:
    """Return how many times as far the furthest part of each concatenation reaches as the nearest."""
    reach: dict[fx.Node, dict[fx.Node, float]] = {node: {} for node in joins}

    def look(walk: GraphWalk, node: fx.Node) -> None:
        for part in node.args[0] if node in reach else ():  # type: ignore[union-attr]
            value = walk.env[part]  # type: ignore[index]
            if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
                known = reach[node].get(part, 0.0)  # type: ignore[arg-type]
                reach[node][part] = max(known, float(value.abs().max()))  # type: ignore[index]

    with torch.no_grad():
        for sample in spread_graph_samples(samples, MOST_SAMPLES) if joins else ():
            GraphWalk(module, look).run(*sample)
    reaches = {node: [r for r in parts.values() if r > 0] for node, parts in reach.items()}
    return {node: max(parts) / min(parts) for node, parts in reaches.items() if parts}
