"""Find concatenations at a network's end whose parts differ too much in range to share one.

XNNPACK's concatenation copies bytes, so that its inputs and its output have one range. A detector that
returns boxes in pixels and scores from 0 to 1 in one tensor would keep two steps for its scores. What comes
after such a concatenation and reads no weights is cheap: it stays in float, and each part keeps the range
that it has.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from exporter.quantize.graphs import LAYERS, GraphWalk, aten, spread_graph_samples

RATIO = 4.0
"""The ranges of parts may differ by this factor, two of the eight bits."""

MOST_SAMPLES = 4


def float_tail(module: fx.GraphModule, samples: Sequence[tuple[Tensor, ...]]) -> frozenset[str]:
    """Return the names of such concatenations, and of all operators behind them.

    Args:
        module: A float module from `torch.export`.
        samples: One call of the model each.
    """
    layers = _before_layers_of_tail(module)
    joins = [node for node in module.graph.nodes if node.target is aten.cat.default and node not in layers]
    names: set[str] = set()
    for node, ratio in _tail_ratios(module, joins, samples).items():
        if ratio > RATIO:
            names |= {behind.name for behind in _behind_float_tail(node)}
    return frozenset(names)


def _before_layers_of_tail(module: fx.GraphModule) -> set[fx.Node]:
    """Return every node that a layer with weights depends on."""
    before: set[fx.Node] = set()
    for node in reversed(module.graph.nodes):
        if any(user in before or user.target in LAYERS for user in node.users):
            before.add(node)
    return before


def _behind_float_tail(start: fx.Node) -> set[fx.Node]:
    behind: set[fx.Node] = set()
    left = [start]
    while left:
        node = left.pop()
        if node not in behind:
            behind.add(node)
            left += node.users
    return behind


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
