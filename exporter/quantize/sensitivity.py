"""Measure what each operator costs the outputs when it alone is quantised."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, fx
from torch.utils.flop_counter import FlopCounterMode

from exporter.quantize import dynamic_int8
from exporter.quantize.graphs import graph_outputs, spread_graph_samples
from exporter.quantize.mixed_precision import (
    MixedOperator,
    keep_float_in_mixed_precision,
    mixed_precision_operators,
)
from exporter.records import OperatorCost

MOST_SAMPLES = 4
"""How many calibration samples each operator is judged on."""
MOST_FLOPS = 4e12
"""Floating-point operations of all runs together, a few minutes of a core. Mask R-CNN's third stage has 101
operators and 110 GFLOPs a call, and would take an hour."""


def measure_sensitivity(
    module: fx.GraphModule, weights: Mapping[str, Tensor], samples: Sequence[tuple[Tensor, ...]]
) -> tuple[OperatorCost, ...]:
    """Run the program with one operator after the other in int8 and all others in float.

    Args:
        module: The whole program in int8.
        weights: Layer's node name -> its weight before rounding.
        samples: Samples of one call each; a few of them are used.

    Returns:
        The costs in the order in which the operators run. Where all would take too long, those of layers,
        and of as many layers as `MOST_FLOPS` allows.
    """
    listed = mixed_precision_operators(module)
    names = {operator.name for operator in listed}
    in_float = keep_float_in_mixed_precision(module, weights, names)
    runs = int(MOST_FLOPS // max(1, _flops_for_sensitivity(in_float, samples[0])))
    few = spread_graph_samples(samples, max(1, min(MOST_SAMPLES, runs // max(1, len(listed)))))
    expected = run_for_sensitivity(in_float, few)

    def alone(name: str) -> fx.GraphModule:
        return dynamic_int8.dynamic_int8_by_rows(
            keep_float_in_mixed_precision(module, weights, names - {name})
        )

    return tuple(
        OperatorCost(
            operator.name,
            operator.layer,
            operator.kind,
            sensitivity_noise(expected, run_for_sensitivity(alone(operator.name), few)),
        )
        for operator in _operators_for_sensitivity(listed, set(weights), runs)
    )


def _operators_for_sensitivity(
    listed: Sequence[MixedOperator], layers: Collection[str], runs: int
) -> Sequence[MixedOperator]:
    """Return the operators that so many runs judge: all, or layers spread over the network, at least one.

    Args:
        listed: All operators, in running order.
        layers: The names of those with weights.
        runs: How often the program may run.
    """
    if runs >= len(listed):
        return listed
    chosen = [operator for operator in listed if operator.name in layers] or listed
    return spread_graph_samples(chosen, max(1, runs))


def _flops_for_sensitivity(module: fx.GraphModule, sample: tuple[Tensor, ...]) -> int:
    """Count the floating-point operations of one call, by running it once."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*sample)
    return int(counter.get_total_flops())


def run_for_sensitivity(
    module: fx.GraphModule, samples: Sequence[tuple[Tensor, ...]]
) -> list[tuple[Tensor, ...]]:
    """Return the outputs of each call."""
    with torch.no_grad():
        return [graph_outputs(module(*sample)) for sample in samples]


def sensitivity_noise(expected: Sequence[tuple[Tensor, ...]], actual: Sequence[tuple[Tensor, ...]]) -> float:
    """Return the error's energy as a share of the output's, for the worst output: 0.01 is 20 dB SQNR."""
    shares = []
    for wanted, got in zip(zip(*expected, strict=True), zip(*actual, strict=True), strict=True):
        y, a = (
            torch.cat([t.flatten() for t in wanted]).double(),
            torch.cat([t.flatten() for t in got]).double(),
        )
        shares.append(float((a - y).square().sum() / y.square().sum().clamp_min(torch.finfo(y.dtype).tiny)))
    return max(shares)
