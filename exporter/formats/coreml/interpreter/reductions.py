"""Reductions along axes. Sums and means are of float32 values; only the result is rounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from exporter.formats.coreml.interpreter.mil_call import Call

Reduce: TypeAlias = Callable[[Tensor, list[int], bool], Tensor]


def reduction(reduce: Reduce) -> Callable[[Call], Tensor]:
    """Return the operator that reduces `x` along `axes`, all of them where none is given."""

    def compute(call: Call) -> Tensor:
        x = call.tensor("x")
        axes = [axis % x.dim() for axis in call.integers("axes", range(x.dim()))]
        return reduce(x, axes, call.flag("keep_dims"))

    return compute


def reduction_product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Multiply along axes."""
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def reduction_l1_norm(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Sum the magnitudes along axes."""
    return x.abs().sum(axes, keep)


def reduction_l2_norm(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Return the root of the sum of squares along axes."""
    return x.square().sum(axes, keep).sqrt()


def reduction_log_sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Return the logarithm of the sum along axes."""
    return x.sum(axes, keep).log()


def reduction_sum_square(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Sum the squares along axes."""
    return x.square().sum(axes, keep)


def reduction_mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Average along axes; a mean of integers is rounded towards zero."""
    return x.mean(axes, keep) if x.is_floating_point() else x.double().mean(axes, keep)


def reduction_position(largest: bool) -> Callable[[Call], Tensor]:
    """Return the operator for the position of the largest (or smallest) value; the first of equal ones."""

    def compute(call: Call) -> Tensor:
        x, axis, keep = call.tensor("x"), call.integer("axis", -1), call.flag("keep_dims")
        best = x.amax(axis, keepdim=True) if largest else x.amin(axis, keepdim=True)
        # The position of the first truth value: PyTorch says nothing about which of equal values it finds.
        return (x == best).to(torch.int8).argmax(axis, keepdim=keep)

    return compute


def reduction_cumulative(call: Call) -> Tensor:
    """Compute `cumsum`, from either end, with or without the value itself."""
    x, axis = call.tensor("x"), call.integer("axis", 0)
    x = x.flip(axis) if call.flag("reverse") else x
    sums = x.cumsum(axis)
    sums = sums - x if call.flag("exclusive") and not x.is_floating_point() else sums
    if call.flag("exclusive") and x.is_floating_point():
        sums = torch.cat(
            [torch.zeros_like(x.narrow(axis, 0, 1)), sums.narrow(axis, 0, x.shape[axis] - 1)], axis
        )
    return sums.flip(axis) if call.flag("reverse") else sums
