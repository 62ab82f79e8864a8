"""Computes what operators cost from their tensors' shapes, to tell which share a backend executes.

Only multiply-accumulates count. With out = elements of the output, k = length of the summed dimension:
    convolution             output pixels x weight elements (transposed: input pixels x weight elements);
                            pixels are batch x spatial positions, and grouped weights are small already
    linear, mm, bmm, addmm  out x k
    anything else           0
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

Shape: TypeAlias = "Sequence[int]"

CONVOLUTIONS = frozenset({"convolution", "conv1d", "conv2d", "conv_with_clamp"})
LEFT_MATRIX = {"linear": 0, "mm": 0, "bmm": 0, "matmul": 0, "addmm": 1, "baddbmm": 1}
"""Operator -> which of its tensors is the left factor, whose last dimension is summed over."""
ELEMENTWISE = frozenset({"add", "sub", "mul", "div", "maximum", "minimum"})


@dataclass(frozen=True)
class Work:
    """Multiply-accumulates, and elements written, which count where a network has no multiplications."""

    macs: int = 0
    elements: int = 0


def total_operator_work(works: Iterable[Work]) -> Work:
    """Add up the work of several operators."""
    works = tuple(works)
    return Work(sum(w.macs for w in works), sum(w.elements for w in works))


def operator_work(name: str, tensors: Sequence[Shape], transposed: bool) -> Work:
    """Return what an ATen operator costs.

    Args:
        name: "aten::convolution", "aten.linear.default", "et_vk.conv_with_clamp.default", …
        tensors: Shapes of its tensor arguments in order; the output is last.
        transposed: The convolution is transposed.
    """
    if not tensors:
        return Work()
    output = prod(tensors[-1])
    operator = _short_name_for_operator_work(name)
    if operator in CONVOLUTIONS:
        image = tensors[0] if transposed else tensors[-1]
        return Work(image[0] * prod(image[2:]) * prod(tensors[1]), output)
    if operator in LEFT_MATRIX:
        return Work(output * tensors[LEFT_MATRIX[operator]][-1], output)
    return Work(0, output)


def is_operator_work_elementwise(name: str) -> bool:
    """Tell whether an ATen operator only adds or scales: its constants are not weights of a layer."""
    return _short_name_for_operator_work(name) in ELEMENTWISE


def _short_name_for_operator_work(name: str) -> str:
    return name.replace("::", ".").split(".")[1]
