"""Decides what stays in float32 in a half-precision artifact: one table of rules for ONNX and Core ML.

float16 ends at 65504 and has eleven bits. A norm squares its input before it averages, a softmax takes
exponentials, a sum over thousands of values loses the small ones: these are computed in float32. They are
not always a single operator. A decomposed RMS norm is Mul, ReduceMean, Add, Sqrt, Div, Mul; a cast between
any two of them would bring the overflow back. So the operators of `FLOAT32` are only where a float32 group
starts: the cheap operators around them join it, and each group is cast once on entry and once on exit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

NORM = "squares and averages its input: 256² is beyond float16"
SOFTMAX = "sums exponentials over an axis"
SUM = "adds up many values: the sum leaves float16's range or swallows the small ones"
STEEP = "leaves float16's range for ordinary inputs (256², exp(12), 1/1e-5)"

_REASONS: Mapping[str, str] = {
    NORM: "BatchNormalization GroupNormalization InstanceNormalization LayerNormalization LpNormalization "
    "LRN MeanVarianceNormalization RMSNormalization "
    "batch_norm instance_norm l2_norm layer_norm local_response_norm",
    SOFTMAX: "LogSoftmax Softmax softmax",
    SUM: "CumSum GlobalAveragePool GlobalLpPool ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMean "
    "ReduceProd ReduceSum ReduceSumSquare AveragePool LpPool "
    "cumsum reduce_l1_norm reduce_l2_norm reduce_log_sum reduce_log_sum_exp reduce_mean reduce_prod "
    "reduce_sum reduce_sum_square avg_pool l2_pool",
    STEEP: "Exp Log Pow Reciprocal Sqrt Square exp exp2 inverse log pow rsqrt sqrt square",
}
FLOAT32: Mapping[str, str] = {name: why for why, names in _REASONS.items() for name in names.split()}
"""Operator name, in ONNX or in Core ML -> why it is computed in float32.

`Square` is a multiplication of a value by itself. Matrix products and convolutions are not here: their
weights make a half-precision artifact small, and the hardware chooses the precision of their sums.
"""


def _names_in_half_precision(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SHAPE = _names_in_half_precision(
    "Constant Expand Flatten Identity Reshape Squeeze Transpose Unsqueeze "
    "expand_dims identity reshape squeeze transpose"
)
_BOUNDED = _names_in_half_precision("Erf Sigmoid Tanh erf sigmoid tanh")
"""Functions whose results are small, whatever their inputs."""
_CHEAP = (
    _SHAPE
    | _BOUNDED
    | _names_in_half_precision(
        "Abs Add Clip Div Max Mean Min Mul Neg Sub Sum Where "
        "abs add clip maximum minimum mul real_div select sub"
    )
)
"""Operators of one pass over the values: without weights, they join a group rather than divide it."""

_WINDOWS = frozenset({"AveragePool", "LpPool", "CumSum", "avg_pool", "l2_pool", "cumsum"})
"""Sums whose result is still an image: what follows is not a statistic of it."""
_WIDE = frozenset({"Exp", "Pow", "Square", "exp", "exp2", "pow", "square"})
"""Functions whose results may be beyond float16's range."""


@dataclass(frozen=True)
class HalfNode:
    """The parts of an operator that the rules read: `inputs` and `outputs` name values, without constants."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: bool = False
    """Whether a constant is a matrix or more (a position embedding), which half precision makes small."""


def is_half_precision_matrix(shape: Iterable[int]) -> bool:
    """Tell whether a constant is more than a value per channel: two or more dimensions larger than one."""
    return sum(size > 1 for size in shape) > 1


def nodes_not_in_half_precision(
    nodes: Sequence[HalfNode], external: Iterable[str] = (), also: Iterable[int] = ()
) -> frozenset[int]:
    """Return the positions of the nodes that stay in float32.

    Args:
        nodes: One graph, every node after those it reads from.
        external: Values that something outside of the graph reads (its outputs).
        also: Positions that stay in float32 for other reasons.

    Returns:
        `also`, the nodes of `FLOAT32`, and the cheap ones that (1) read a statistic, (2) read what may be out
        of float16's range, (3) are read by such nodes only, or (4) are between two of them.
    """
    inside = set(also) | {i for i, node in enumerate(nodes) if node.operator in FLOAT32}
    cheap = {i for i, n in enumerate(nodes) if n.operator in _CHEAP and not n.weights}
    readers = _readers_in_half_precision(nodes)
    while True:
        more = _nodes_reading_half_precision(nodes, inside, cheap, _half_precision_statistics(nodes, inside))
        more |= _nodes_reading_half_precision(
            nodes, inside, cheap, _too_wide_for_half_precision(nodes, inside)
        )
        more |= _nodes_feeding_half_precision(nodes, inside, cheap, readers, frozenset(external))
        more |= _nodes_between_half_precision(nodes, inside, cheap, readers)
        if more <= inside:
            return frozenset(inside)
        inside |= more


def _readers_in_half_precision(nodes: Sequence[HalfNode]) -> Mapping[str, list[int]]:
    readers: dict[str, list[int]] = {}
    for index, node in enumerate(nodes):
        for value in node.inputs:
            readers.setdefault(value, []).append(index)
    return readers


def _half_precision_statistics(nodes: Sequence[HalfNode], inside: set[int]) -> set[str]:
    """Name sums over whole axes, and values computed from nothing else: a variance, its root, its inverse."""
    statistics: set[str] = set()
    for index, node in enumerate(nodes):
        if index not in inside:
            continue
        is_sum = FLOAT32.get(node.operator) == SUM and node.operator not in _WINDOWS
        if is_sum or (node.inputs and statistics.issuperset(node.inputs)):
            statistics.update(node.outputs)
    return statistics


def _too_wide_for_half_precision(nodes: Sequence[HalfNode], inside: set[int]) -> set[str]:
    """Name the values that may be too large for float16, up to the next function that is bounded."""
    wide: set[str] = set()
    for index, node in enumerate(nodes):
        grows = node.operator in _WIDE or (
            node.operator in _CHEAP - _BOUNDED and wide.intersection(node.inputs)
        )
        if index in inside and grows:
            wide.update(node.outputs)
    return wide


def _nodes_reading_half_precision(
    nodes: Sequence[HalfNode], inside: set[int], cheap: set[int], values: set[str]
) -> set[int]:
    return {i for i in cheap - inside if values.intersection(nodes[i].inputs)}


def _nodes_feeding_half_precision(
    nodes: Sequence[HalfNode],
    inside: set[int],
    cheap: set[int],
    readers: Mapping[str, list[int]],
    external: frozenset[str],
) -> set[int]:
    """Return the nodes whose every reader is inside; constants' producers are among them."""
    feeding: set[int] = set()
    for index in sorted(cheap - inside, reverse=True):
        outputs = nodes[index].outputs
        reading = [r for value in outputs for r in readers.get(value, ())]
        if reading and external.isdisjoint(outputs) and all(r in inside or r in feeding for r in reading):
            feeding.add(index)
    return feeding


def _nodes_between_half_precision(
    nodes: Sequence[HalfNode], inside: set[int], cheap: set[int], readers: Mapping[str, list[int]]
) -> set[int]:
    """Return the nodes on a path of cheap ones from inside to inside."""
    after: set[str] = set()
    for index, node in enumerate(nodes):
        if index in inside or (index in cheap and after.intersection(node.inputs)):
            after.update(node.outputs)
    before: set[int] = set()
    for index in sorted(cheap - inside, reverse=True):
        reading = [r for value in nodes[index].outputs for r in readers.get(value, ())]
        if any(r in inside or r in before for r in reading):
            before.add(index)
    return {i for i in before if after.intersection(nodes[i].inputs)}
