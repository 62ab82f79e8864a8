"""Order the operators to keep in float by the noise that they remove for their price.

The order follows from what each activation costs the output when it alone is rounded, which adds up well,
and from the price of the operators around it in float: their share of the network's time and of its weights.
Time alone favours late layers, whose many weights are in a cache when layers are timed one by one and come
from memory in a real call. By time, MobileNetV2 reaches 24 dB at 1.35 times int8's latency and three times
its size; by both, at 1.2 times both. Neither decides anything: candidates become real artifacts, and of those
that are good enough the fastest, as measured, is taken.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.records import decibel_value

if TYPE_CHECKING:
    from torch import Tensor, fx

    from exporter.quantize.graphs import GraphWalk

STEP_DB = 0.4
"""How much better each candidate is expected to be than the one before, in dB."""

MOST_SAMPLES = 4


@dataclass(frozen=True)
class RankedActivation:
    """A tensor that is rounded to int8."""

    noise: float
    """The cost of rounding it alone, as a share of the output's energy."""
    operators: frozenset[str]
    """The int8 operators that write and read it; it stays unrounded only if all are in float."""


@dataclass(frozen=True)
class RankedMix:
    """A candidate: the operators to keep in float."""

    float_ops: tuple[str, ...]
    gain_db: float
    """The SQNR gain over all-int8 if weights were not rounded; the real gain is less."""


def rank_operators(
    activations: Sequence[RankedActivation], prices: Mapping[str, float]
) -> tuple[RankedMix, ...]:
    """List sets of operators to keep in float, each within the next, never all; about `STEP_DB` apart.

    Args:
        activations: The activations of the whole int8 program.
        prices: Operator -> price of keeping it in float, in any unit.
    """
    every: frozenset[str] = frozenset().union(*(a.operators for a in activations))
    in_float: frozenset[str] = frozenset()
    mixes: list[RankedMix] = []
    remaining = whole = _noise_for_operator_ranking(activations, in_float)
    while remaining > 0:
        step = max(
            {a.operators for a in activations if not a.operators <= in_float},
            key=lambda more: (
                (remaining - _noise_for_operator_ranking(activations, in_float | more))
                / (1e-9 + sum(prices.get(name, 0.0) for name in more - in_float))
            ),
        )
        in_float |= step
        if in_float == every:
            break
        remaining = _noise_for_operator_ranking(activations, in_float)
        gain_db = decibel_value(remaining / whole)
        if gain_db >= STEP_DB + (mixes[-1].gain_db if mixes else 0.0):
            mixes.append(RankedMix(tuple(sorted(in_float)), gain_db))
    return tuple(mixes)


def _noise_for_operator_ranking(activations: Sequence[RankedActivation], in_float: frozenset[str]) -> float:
    return sum(a.noise for a in activations if not a.operators <= in_float)


def measure_for_operator_ranking(
    module: fx.GraphModule, weights: Mapping[str, Tensor], samples: Sequence[tuple[Tensor, ...]]
) -> tuple[tuple[RankedActivation, ...], dict[str, float]]:
    """Round one activation after the other; also time each operator in float, and count its weights.

    Args:
        module: The whole program in int8.
        weights: Layer's node name -> its weight before rounding.
        samples: Samples of one call each; a few are used.

    Returns:
        Every activation, and each operator's price: its share of the time plus its share of the weights.
    """
    from exporter.quantize.graphs import spread_graph_samples
    from exporter.quantize.sensitivity import sensitivity_noise

    few = spread_graph_samples(samples, MOST_SAMPLES)
    seconds: dict[str, float] = {}
    expected = _run_for_operator_ranking(module, weights, few, None, seconds)
    rounded = []
    for source, operators in _touching_ranked_operator(module).items():
        share = sensitivity_noise(expected, _run_for_operator_ranking(module, weights, few, source, {}))
        rounded.append(RankedActivation(share, operators))
    return tuple(rounded), _prices_for_operator_ranking(
        seconds, {name: weight.numel() for name, weight in weights.items()}
    )


def _prices_for_operator_ranking(
    seconds: Mapping[str, float], sizes: Mapping[str, float]
) -> dict[str, float]:
    prices: dict[str, float] = {}
    for shares in (seconds, sizes):
        whole = sum(shares.values())
        for name, share in shares.items():
            prices[name] = prices.get(name, 0.0) + share / whole
    return prices


def _touching_ranked_operator(module: fx.GraphModule) -> dict[fx.Node, frozenset[str]]:
    """Return rounded tensor -> the int8 operators around it."""
    from exporter.quantize import mixed_precision
    from exporter.quantize.graphs import DEQUANTIZE, rounded_graph_tensor

    names = {operator.name for operator in mixed_precision.mixed_precision_operators(module)}
    touching: dict[fx.Node, set[str]] = {}
    for node in module.graph.nodes:
        if (source := rounded_graph_tensor(node)) is not None:
            around = {reader.name for reader in node.users}
            if node.target is DEQUANTIZE:  # with a dynamic range, its writer gives float
                around.add(mixed_precision.writer_in_mixed_precision(source).name)
            touching.setdefault(source, set()).update(around & names)
    return {source: frozenset(around) for source, around in touching.items() if around}


def _run_for_operator_ranking(
    module: fx.GraphModule,
    weights: Mapping[str, Tensor],
    samples: Sequence[tuple[Tensor, ...]],
    rounded: fx.Node | None,
    seconds: dict[str, float],
) -> list[tuple[Tensor, ...]]:
    """Return the outputs with only one tensor rounded; record each operator's shortest time."""
    import torch

    from exporter.quantize.dynamic_int8 import dynamic_int8_rounded_rows
    from exporter.quantize.graphs import (
        DEQUANTIZE_CHANNELS,
        DEQUANTIZE_DYNAMIC,
        GraphWalk,
        graph_outputs,
        rounded_graph_tensor,
    )

    def around(walk: GraphWalk, node: fx.Node) -> Any | None:
        if (source := rounded_graph_tensor(node)) is not None and source is not rounded:
            return walk.env[source]
        if node.target is DEQUANTIZE_DYNAMIC:
            return dynamic_int8_rounded_rows(walk.env[source])  # type: ignore[index] # it has a source
        if node.target is DEQUANTIZE_CHANNELS:
            return next((weights[user.name] for user in node.users if user.name in weights), None)
        begin = time.perf_counter()
        value = walk.compute(node)
        seconds[node.name] = min(seconds.get(node.name, math.inf), time.perf_counter() - begin)
        return value

    with torch.no_grad():
        return [graph_outputs(GraphWalk(module, around, keep=True).run(*sample)) for sample in samples]
