"""Spells out pixel shuffles, so that their outputs lie in memory row by row.

PyTorch's own decomposition gives the output the layout of the input. Behind a transposed sequence, as the
image made of a transformer's tokens, that is channels last, which no other operator of ExecuTorch has: its
runtime then refuses the operators that mix both, and an app would read an output wrongly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def with_pixel_shuffles_by_rows(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return the program with pixel shuffles as reshapes; the program itself where it has none."""
    import torch

    shuffles = {
        torch.ops.aten.pixel_shuffle.default: _pixel_shuffle_by_rows,
        torch.ops.aten.pixel_unshuffle.default: _pixel_unshuffle_by_rows,
    }
    if not any(node.target in shuffles for node in program.graph.nodes):
        return program
    by_rows: torch.export.ExportedProgram = program.run_decompositions(shuffles)
    return by_rows


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
