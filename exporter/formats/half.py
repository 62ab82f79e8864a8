"""What stays in float32 in a half-precision artifact: the same table and rules for ONNX and for Core ML.

float16 ends at 65504 and has eleven bits. A norm squares its input before it averages, a softmax takes
exponentials, a sum over thousands of values loses the small ones: these are computed in float32. They do not
always come as one operator. An RMS norm that was written out is Mul, ReduceMean, Add, Sqrt, Div, Mul; a cast
between any two of them would bring the overflow back. So the operators of `FLOAT32` are only where it starts:
the cheap operators around them join, and each group is cast once on its way in and once on its way out.
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
"""Operator, as ONNX or as Core ML spells it -> why it is computed in float32.

`Square` is a multiplication of a value by itself. Matrix products and convolutions are not here: their
weights are what makes a half-precision artifact small, and the hardware chooses what they add up in.
"""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SHAPE = _names(
    "Constant Expand Flatten Identity Reshape Squeeze Transpose Unsqueeze "
    "expand_dims identity reshape squeeze transpose"
)
_BOUNDED = _names("Erf Sigmoid Tanh erf sigmoid tanh")
"""What they give is small, whatever they take."""
_CHEAP = (
    _SHAPE
    | _BOUNDED
    | _names(
        "Abs Add Clip Div Max Mean Min Mul Neg Sub Sum Where "
        "abs add clip maximum minimum mul real_div select sub"
    )
)
"""One pass over the values: joins a group rather than part it, unless it has weights."""

_WINDOWS = frozenset({"AveragePool", "LpPool", "CumSum", "avg_pool", "l2_pool", "cumsum"})
"""Sums that leave an image an image: what follows is no statistic of it."""
_WIDE = frozenset({"Exp", "Pow", "Square", "exp", "exp2", "pow", "square"})


@dataclass(frozen=True)
class Node:
    """An operator, as far as the rules look: `inputs` and `outputs` are values' names, constants left out."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: bool = False
    """One of its constants is a matrix or more (a position embedding): half precision is to make it small."""


def is_matrix(shape: Iterable[int]) -> bool:
    """Whether a constant is more than a value per channel: two or more dimensions larger than one."""
    return sum(size > 1 for size in shape) > 1


def float32_nodes(
    nodes: Sequence[Node], kept: Iterable[str] = (), also: Iterable[int] = ()
) -> frozenset[int]:
    """Positions of the nodes that stay in float32.

    Args:
        nodes: One graph, every node after those it reads from.
        kept: Values that something outside of the graph reads (its outputs).
        also: Positions that stay in float32 for reasons of the caller's own.

    Returns:
        `also`, the nodes of `FLOAT32`, and the cheap ones that (1) read a statistic, (2) read what may be out
        of float16's range, (3) are read by such nodes only, or (4) lie between two of them.
    """
    inside = set(also) | {i for i, node in enumerate(nodes) if node.operator in FLOAT32}
    cheap = {i for i, n in enumerate(nodes) if n.operator in _CHEAP and not n.weights}
    readers = _readers(nodes)
    while True:
        more = _reading(nodes, inside, cheap, _statistics(nodes, inside))
        more |= _reading(nodes, inside, cheap, _wide(nodes, inside))
        more |= _feeding(nodes, inside, cheap, readers, frozenset(kept))
        more |= _between(nodes, inside, cheap, readers)
        if more <= inside:
            return frozenset(inside)
        inside |= more


def _readers(nodes: Sequence[Node]) -> Mapping[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, node in enumerate(nodes):
        for value in node.inputs:
            found.setdefault(value, []).append(index)
    return found


def _statistics(nodes: Sequence[Node], inside: set[int]) -> set[str]:
    """Sums over whole axes, and what was computed from nothing else: a variance, its root, one over that."""
    found: set[str] = set()
    for index, node in enumerate(nodes):
        if index not in inside:
            continue
        is_sum = FLOAT32.get(node.operator) == SUM and node.operator not in _WINDOWS
        if is_sum or (node.inputs and found.issuperset(node.inputs)):
            found.update(node.outputs)
    return found


def _wide(nodes: Sequence[Node], inside: set[int]) -> set[str]:
    """What may be too large for float16, on to the next function that is bounded."""
    found: set[str] = set()
    for index, node in enumerate(nodes):
        grows = node.operator in _WIDE or (
            node.operator in _CHEAP - _BOUNDED and found.intersection(node.inputs)
        )
        if index in inside and grows:
            found.update(node.outputs)
    return found


def _reading(nodes: Sequence[Node], inside: set[int], cheap: set[int], values: set[str]) -> set[int]:
    return {i for i in cheap - inside if values.intersection(nodes[i].inputs)}


def _feeding(
    nodes: Sequence[Node],
    inside: set[int],
    cheap: set[int],
    readers: Mapping[str, list[int]],
    kept: frozenset[str],
) -> set[int]:
    """Nodes whose every reader is inside; constants' producers among them."""
    found: set[int] = set()
    for index in sorted(cheap - inside, reverse=True):
        outputs = nodes[index].outputs
        reading = [r for value in outputs for r in readers.get(value, ())]
        if reading and kept.isdisjoint(outputs) and all(r in inside or r in found for r in reading):
            found.add(index)
    return found


def _between(
    nodes: Sequence[Node], inside: set[int], cheap: set[int], readers: Mapping[str, list[int]]
) -> set[int]:
    """Nodes on a path of cheap ones from inside to inside."""
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
