"""Replaces operators where XNNPACK ignores some of their arguments, by others that it computes rightly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, fx

IMAGE_DIMENSIONS = 4


def replaced_ignored_arguments(program: torch.export.ExportedProgram) -> Mapping[Any, Callable[..., Any]]:
    """Return what replaces the operators of which XNNPACK computes a call of the program wrongly."""
    table = _ignored_argument_replacements()
    called = {node.target for node in program.graph.nodes if node.target in table and _is_replaced(node)}
    return {operator: table[operator] for operator in called}


def _ignored_argument_replacements() -> Mapping[Any, Callable[..., Tensor]]:
    """Return a function for each operator, which gives NotImplemented where XNNPACK computes rightly."""
    import torch

    aten = torch.ops.aten
    return {
        aten.prelu.default: _prelu_as_two_relus,
        aten.gelu.default: _gelu_by_tanh,
        aten.upsample_bilinear2d.vec: _resize_by_given_scales,
        aten.pad.default: _pad_that_cuts,
    }


def _is_replaced(node: fx.Node) -> bool:
    """Tell whether a call is replaced, by replacing it on tensors without values."""
    from torch import fx

    args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), lambda argument: argument.meta["val"])
    return _ignored_argument_replacements()[node.target](*args, **kwargs) is not NotImplemented


def _prelu_as_two_relus(x: Tensor, weight: Tensor) -> Tensor:
    """XNNPACK's PReLU takes images only."""
    if x.dim() == IMAGE_DIMENSIONS:
        return NotImplemented  # type: ignore[no-any-return]
    slope = weight.reshape(-1, *[1] * (x.dim() - 2)) if x.dim() > 1 else weight
    return x.relu() - slope * (-x).relu()


def _gelu_by_tanh(x: Tensor, approximate: str = "none") -> Tensor:
    """XNNPACK's GELU is the exact one, also where the program asks for the approximation by tanh.

    The constants are those of PyTorch's documentation of GELU.
    """
    if approximate == "none":
        return NotImplemented  # type: ignore[no-any-return]
    return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)).tanh())


def _resize_by_given_scales(
    x: Tensor, size: Sequence[int] | None, align_corners: bool, scales: Sequence[float] | None
) -> Tensor:
    """XNNPACK resizes by the ratio of the two sizes, which rounding makes another than the given scale."""
    from torch._decomp.decompositions import upsample_bilinear2d

    if align_corners or scales is None or all(map(_is_scale_of_sizes, x.shape[2:], scales)):
        return NotImplemented  # type: ignore[no-any-return]
    sides = [math.floor(side * scale) for side, scale in zip(x.shape[2:], scales, strict=True)]
    resized: Tensor = upsample_bilinear2d(x, sides, align_corners, *scales)
    return resized


def _is_scale_of_sizes(side: int, scale: float) -> bool:
    """Tell whether the side times the scale is whole; of an open side, whether it is for every length."""
    return float(scale).is_integer() or (type(side) is int and float(side * scale).is_integer())


def _pad_that_cuts(
    x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """XNNPACK pads; a negative width, which cuts, stops the runtime."""
    from torch.nn import functional

    if mode != "constant" or all(type(width) is not int or width >= 0 for width in pad):
        return NotImplemented  # type: ignore[no-any-return]
    for i, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        side = x.dim() - 1 - i
        begin, end = max(0, -before), x.shape[side] - max(0, -after)
        x = x.narrow(side, begin, end - begin)
    wider = [max(0, width) for width in pad]
    return functional.pad(x, wider, value=value) if any(wider) else x
