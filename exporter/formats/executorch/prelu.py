"""Spells out PReLU where XNNPACK cannot compute it: its own takes images only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor, fx

IMAGE_DIMENSIONS = 4


def with_prelu_on_images_only(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return the program with every other PReLU as two ReLUs; the program itself where it has none."""
    import torch

    prelu = torch.ops.aten.prelu.default

    def is_spelled_out(node: fx.Node) -> bool:
        return node.target is prelu and _prelu_dimensions(node) != IMAGE_DIMENSIONS

    if not any(map(is_spelled_out, program.graph.nodes)):
        return program
    spelled_out: torch.export.ExportedProgram = program.run_decompositions({prelu: _prelu_as_two_relus})
    return spelled_out


def _prelu_dimensions(node: fx.Node) -> int:
    value: Tensor = node.meta["val"]
    return value.dim()


def _prelu_as_two_relus(x: Tensor, weight: Tensor) -> Tensor:
    if x.dim() == IMAGE_DIMENSIONS:
        return NotImplemented  # type: ignore[no-any-return]
    slope = weight.reshape(-1, *[1] * (x.dim() - 2)) if x.dim() > 1 else weight
    return x.relu() - slope * (-x).relu()
