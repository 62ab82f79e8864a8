"""Subtracts the mean before group, instance and batch norms, whose variance cancels in ExecuTorch.

Its kernel takes the mean of the squares less the square of the mean. Where a group's values differ by less
than a thousandth of their mean, few digits of that are left, and on a constant (a silent recording, a black
photo) the difference is negative, so that its root is NaN. Values without a mean have nothing to cancel.
PyTorch and ONNX Runtime compute the variance around the mean as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, fx


def replaced_norms(program: torch.export.ExportedProgram) -> Mapping[Any, Callable[..., Any]]:
    """Return norms of values around zero for those of a program; nothing where it has none."""
    import torch

    aten = torch.ops.aten
    if not any(map(_takes_own_statistics, program.graph.nodes)):
        return {}
    return {
        aten.group_norm.default: _shifted_group_norm,
        aten.instance_norm.default: _shifted_instance_norm,
        aten._native_batch_norm_legit.no_stats: _shifted_batch_norm,
    }


def _takes_own_statistics(node: fx.Node) -> bool:
    """Tell whether a node is a norm whose mean and variance are those of its input."""
    import torch

    aten = torch.ops.aten
    if node.target is aten.batch_norm.default:
        return node.args[3] is None
    return node.target in (
        aten.group_norm.default,
        aten.instance_norm.default,
        aten._native_batch_norm_legit.no_stats,
    )


def _shifted_group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    import torch

    batch, channels, *rest = x.shape
    groups = x.reshape(batch, num_groups, -1)
    shifted = (groups - groups.mean(-1, keepdim=True)).reshape(x.shape)
    normed: Tensor = torch.ops.aten.native_group_norm.default(
        shifted, weight, bias, batch, channels, prod(rest), num_groups, eps
    )[0]
    return normed


def _shifted_instance_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    if not use_input_stats or running_mean is not None:
        return NotImplemented  # type: ignore[no-any-return]
    return _shifted_group_norm(x, x.shape[1], weight, bias, eps)


def _shifted_batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, training: bool, momentum: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what a batch norm without statistics of its own does: each channel of the batch is a group."""
    channels_first = x.transpose(0, 1)
    rows = channels_first.reshape(1, x.shape[1], -1)
    normed = _shifted_group_norm(rows, x.shape[1], weight, bias, eps)
    mean, variance = rows[0].mean(-1), rows[0].var(-1, correction=0)
    return normed.reshape(channels_first.shape).transpose(0, 1), mean, (variance + eps).rsqrt()
