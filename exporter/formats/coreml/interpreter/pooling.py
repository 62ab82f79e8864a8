"""Pooling. With `ceil_mode`, the last windows may reach over the padding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from exporter.formats.coreml.interpreter.convolutions import padding_for_convolution
from exporter.formats.coreml.interpreter.mil_call import Call


@dataclass(frozen=True, eq=False)
class _Pooling:
    """The windows of one pooling; a dimension of size 1 is added to what has one spatial dimension only."""

    x: Tensor
    kernel: list[int]
    strides: list[int]
    before: list[int]
    after: list[int]
    """Zeros that the program asks for after each dimension."""
    beyond: list[int]
    """What the last windows reach over those."""

    @classmethod
    def of(cls, call: Call) -> _Pooling:
        x, kernel = call.tensor("x"), call.integers("kernel_sizes")
        strides = call.integers("strides", [1] * len(kernel))
        pad = padding_for_convolution(call, x.shape[2:], kernel, strides)
        if len(kernel) == 1:
            x, kernel, strides, pad = x.unsqueeze(2), [1, *kernel], [1, *strides], [0, 0, *pad]
        before, after = pad[::2], pad[1::2]
        beyond = []
        for axis, (width, stride) in enumerate(zip(kernel, strides, strict=True)):
            size = x.shape[2 + axis] + before[axis] + after[axis]
            count = _count_of_pooling(size, width, stride, after[axis], call.flag("ceil_mode"))
            beyond.append(max((count - 1) * stride + width - size, 0))
        return cls(x, kernel, strides, before, after, beyond)

    def padded(self, x: Tensor, value: float, beyond: float | None = None) -> Tensor:
        """Return a tensor with `value` in its padding, and `beyond` in what windows reach over it."""
        padded = functional.pad(x, _pooling_order(self.before, self.after), value=value)
        zeros = [0] * len(self.kernel)
        return functional.pad(
            padded, _pooling_order(zeros, self.beyond), value=value if beyond is None else beyond
        )

    def sums(self, x: Tensor) -> Tensor:
        """Sum each window of a tensor that is padded already."""
        pool: Callable[..., Tensor] = (
            functional.avg_pool2d if len(self.kernel) == 2 else functional.avg_pool3d
        )
        return pool(x, self.kernel, self.strides, divisor_override=1)


def _count_of_pooling(size: int, kernel: int, stride: int, after: int, ceil_mode: bool) -> int:
    """Count the windows; one that begins in the padding after the values is left out."""
    if not ceil_mode:
        return (size - kernel) // stride + 1
    count = math.ceil((size - kernel) / stride) + 1
    return count - 1 if (count - 1) * stride >= size - after else count


def _pooling_order(before: Sequence[int], after: Sequence[int]) -> list[int]:
    return [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]


def _pooling_result(call: Call, result: Tensor) -> Tensor:
    return result.squeeze(2) if len(call.integers("kernel_sizes")) == 1 else result


def average_pooling(call: Call) -> Tensor:
    """Compute `avg_pool` as PyTorch does: what a window reaches over the padding never counts.

    With `exclude_padding_from_average` the padding does not count either.
    """
    pooling = _Pooling.of(call)
    counted = 0.0 if call.flag("exclude_padding_from_average") else 1.0
    ones = torch.ones_like(pooling.x[:1, :1])
    counts = pooling.sums(pooling.padded(ones, counted, 0.0))
    return _pooling_result(call, pooling.sums(pooling.padded(pooling.x, 0.0)) / counts)


def largest_pooling(call: Call) -> Tensor:
    """Compute `max_pool`; padding is never the largest."""
    pooling = _Pooling.of(call)
    pool: Callable[..., Tensor] = functional.max_pool2d if len(pooling.kernel) == 2 else functional.max_pool3d
    return _pooling_result(call, pool(pooling.padded(pooling.x, -math.inf), pooling.kernel, pooling.strides))


def l2_pooling(call: Call) -> Tensor:
    """Compute `l2_pool`: the root of each window's sum of squares."""
    pooling = _Pooling.of(call)
    return _pooling_result(call, pooling.sums(pooling.padded(pooling.x.square(), 0.0)).sqrt())
