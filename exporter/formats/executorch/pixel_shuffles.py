"""Replaces pixel shuffles by reshapes, so that their outputs lie in memory row by row.

PyTorch's own decomposition gives the output the layout of the input. Behind a transposed sequence, as the
image made of a transformer's tokens, that is channels last, which no other operator of ExecuTorch has: its
runtime then refuses the operators that mix both, and an app would read an output wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def replaced_pixel_shuffles(program: torch.export.ExportedProgram) -> Mapping[Any, Callable[..., Any]]:
    """Return what replaces the pixel shuffles of a program; nothing where it has none."""
    import torch

    shuffles = {
        torch.ops.aten.pixel_shuffle.default: _pixel_shuffle_by_rows,
        torch.ops.aten.pixel_unshuffle.default: _pixel_unshuffle_by_rows,
    }
    return shuffles if any(node.target in shuffles for node in program.graph.nodes) else {}


def _pixel_shuffle_by_rows(image: Tensor, factor: int) -> Tensor:
    *batch, channels, height, width = image.shape
    blocks = image.reshape(*batch, channels // factor**2, factor, factor, height, width)
    count = len(batch)
    order = (*range(count + 1), count + 3, count + 1, count + 4, count + 2)
    pixels = blocks.permute(order).contiguous()
    return pixels.view(*batch, channels // factor**2, height * factor, width * factor)


def _pixel_unshuffle_by_rows(image: Tensor, factor: int) -> Tensor:
    *batch, channels, height, width = image.shape
    blocks = image.reshape(*batch, channels, height // factor, factor, width // factor, factor)
    count = len(batch)
    order = (*range(count + 1), count + 2, count + 4, count + 1, count + 3)
    pixels = blocks.permute(order).contiguous()
    return pixels.view(*batch, channels * factor**2, height // factor, width // factor)
