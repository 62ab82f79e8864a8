"""Find weights of recurrent layers that 8 bits do not hold, and that cost few bytes in float.

A step's rounding error is fed back to the next, so that some recurrent networks amplify what a weight loses.
Resemblyzer's first layer reads energies of 40 bands, a hundred times as loud in a low band as in a high one.
Its weights rounded by rows leave the speaker's vector 18.5 dB, and steps a quarter as large no more than 19;
each of the other five matrices leaves 36 dB or more. It has 3 % of the weights.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, fx

from exporter.quantize import sensitivity
from exporter.quantize.graphs import GraphWalk, graph_attribute, graph_outputs, spread_graph_samples
from exporter.quantize.recurrent_weights import RECURRENT, round_recurrent_weight, stored_recurrent_weights

MOST_NOISE = 1e-3
"""The error's energy, as a share of the outputs', that the rounding of these weights may cause: 30 dB, which
leaves nearly all of the limit (20 dB) to the other layers."""

FLOAT_SHARE = 0.05
"""The share of these weights that may stay in float: they grow by 15 % at most."""

LESS_NOISE = 0.5
"""A weight stays in float if the noise falls below this share of what it was."""

MOST_SAMPLES = 4


def recurrent_weights_in_float(
    module: fx.GraphModule, samples: Sequence[tuple[Tensor, ...]]
) -> frozenset[str]:
    """Return the names of the weights that are to stay in float; none where rounding all costs little.

    Args:
        module: A float module from `torch.export`.
        samples: One call of the model each.
    """
    names = {
        str(weight.target): None
        for node in module.graph.nodes
        if node.target in RECURRENT
        for weight in stored_recurrent_weights(module, node)
    }
    weights = {name: graph_attribute(module, name).detach() for name in names}
    trial = _RecurrentTrial(module, weights, spread_graph_samples(samples, MOST_SAMPLES) if names else ())
    noise = trial.noise(weights) if names else 0.0
    if noise <= MOST_NOISE:
        return frozenset()
    alone = {name: trial.noise({name}) for name in weights}
    room = FLOAT_SHARE * sum(weight.numel() for weight in weights.values())
    in_float: set[str] = set()
    for name in sorted(alone, key=lambda name: -alone[name]):
        if noise <= MOST_NOISE or weights[name].numel() > room:
            break
        less = trial.noise(weights.keys() - in_float - {name})
        if less > LESS_NOISE * noise:
            break
        in_float.add(name)
        noise, room = less, room - weights[name].numel()
    return frozenset(in_float)


class _RecurrentTrial:
    """Runs a module with some of its recurrent weights rounded."""

    def __init__(
        self, module: fx.GraphModule, weights: Mapping[str, Tensor], samples: Sequence[tuple[Tensor, ...]]
    ) -> None:
        self._module = module
        self._samples = samples
        self._rounded = {name: _rounded_recurrent_weight(weight) for name, weight in weights.items()}
        self._exact = self._outputs(())

    def noise(self, rounded: Collection[str]) -> float:
        """Return the error's energy as a share of the outputs', with these weights rounded."""
        return sensitivity.sensitivity_noise(self._exact, self._outputs(rounded))

    def _outputs(self, rounded: Collection[str]) -> list[tuple[Tensor, ...]]:
        def around(_: GraphWalk, node: fx.Node) -> Tensor | None:
            return self._rounded[str(node.target)] if str(node.target) in rounded else None

        with torch.no_grad():
            walk = GraphWalk(self._module, around)
            return [graph_outputs(walk.run(*sample)) for sample in self._samples]


def _rounded_recurrent_weight(weight: Tensor) -> Tensor:
    steps, scale = round_recurrent_weight(weight)
    return steps * scale[:, None]
