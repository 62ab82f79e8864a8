"""Sums what a network's graph tells of one inference, for estimates. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.estimate.cache_misses import TensorUse, missed_bytes
from exporter.estimate.operator_split import GraphOperator


@dataclass(frozen=True)
class GraphWork:
    """What a graph tells of one inference."""

    macs: int
    """Multiply-accumulates of convolutions and matrix products, but for the depthwise ones."""
    depthwise_macs: int
    """Multiply-accumulates of convolutions with one input channel a group: they reuse little."""
    values: int
    """Values that operators read, but for weights, and write."""
    missed_bytes: int
    """What of a call comes from beyond the last cache."""
    depthwise_values: int = 0
    """Those values that depthwise convolutions read and write."""
    conv_values: int = 0
    """Those that convolutions of any kind do."""
    patches: int = 0
    """Values of the patches that convolutions larger than 1x1 multiply."""
    functions: int = 0
    """Values of exponentials and the like, which take a series to evaluate."""


def work_of_graph(operators: Sequence[GraphOperator], bytes_per_value: int, cache_bytes: float) -> GraphWork:
    """Sum a graph's operators.

    Args:
        operators: What `operators_to_split` returns.
        bytes_per_value: 4 in float32, 1 in int8.
        cache_bytes: The last cache.
    """
    uses = [
        TensorUse(name, count * bytes_per_value) for operator in operators for name, count in operator.touched
    ]
    return GraphWork(
        macs=sum(operator.macs for operator in operators if not operator.depthwise),
        depthwise_macs=sum(operator.macs for operator in operators if operator.depthwise),
        values=sum(operator.values for operator in operators),
        depthwise_values=sum(operator.values for operator in operators if operator.depthwise),
        conv_values=sum(operator.values for operator in operators if operator.kind == "Conv"),
        patches=sum(operator.patches for operator in operators),
        functions=sum(operator.functions for operator in operators),
        missed_bytes=missed_bytes(uses, cache_bytes),
    )
