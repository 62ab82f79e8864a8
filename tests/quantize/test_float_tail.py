"""Tests that quantities of different size, returned in one tensor, keep ranges of their own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.quantize import float_tail, int8_recipe
from exporter.quantize.graphs import QUANTIZE

Join = Callable[[Tensor, Tensor], Tensor]
JOINS: dict[str, Join] = {
    "boxes first": lambda boxes, scores: torch.cat([boxes, scores], 1),
    "scores first": lambda boxes, scores: torch.cat([scores, boxes], 1),
    "flattened": lambda boxes, scores: torch.cat([boxes.flatten(2), scores.flatten(2)], 1),
    "turned": lambda boxes, scores: torch.cat([boxes, scores], 1).permute(0, 2, 3, 1),
    "of two levels": lambda boxes, scores: torch.cat([torch.cat([boxes, scores], 1).flatten(2)] * 2, 2),
    "and shifted": lambda boxes, scores: torch.cat([boxes, scores], 1) + 1e-3,
    "with an index": lambda boxes, scores: torch.cat([boxes, scores, scores.argmax(1, True).float()], 1),
}


class Head(nn.Module):
    """A detector that returns boxes in pixels and scores from 0 to 1."""

    def __init__(self, join: Join, pixels: float = 640.0, after: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())
        self.boxes, self.scores = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 6, 1)
        self.join, self.pixels, self.after = join, pixels, after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        joined = self.join(self.boxes(y).sigmoid() * self.pixels, self.scores(y).sigmoid())
        return self.after(joined)  # type: ignore[no-any-return]


def prepared(net: nn.Module) -> tuple[torch.export.ExportedProgram, list[tuple[Tensor, ...]]]:
    torch.manual_seed(1)
    samples: list[tuple[Tensor, ...]] = [(torch.randn(1, 1, 8, 8),) for _ in range(6)]
    return torch.export.export(net.eval(), samples[0]), samples


@pytest.mark.parametrize("join", JOINS.values(), ids=JOINS)
def test_scores_beside_boxes_stay_exact(join: Join) -> None:
    """Scores beside boxes of 640 pixels have at least 25 dB, where one range for both leaves them under 5."""
    torch.manual_seed(0)
    net = Head(join)
    program, samples = prepared(net)
    run = int8_recipe.int8_recipe_runner(
        int8_recipe.quantize_by_int8_recipe(program, [(x.numpy(),) for (x,) in samples]).module
    )
    pairs = [(net(x).detach().numpy(), run((x.numpy(),))[0]) for (x,) in samples]
    expected, actual = (np.concatenate([y.ravel() for y in column]) for column in zip(*pairs, strict=True))
    small = np.abs(expected) < 1.1
    error = np.square(actual - expected)[small].sum() / np.square(expected)[small].sum()
    assert -10 * np.log10(error) > 25


@pytest.mark.parametrize(
    ("pixels", "after"),
    [(1.0, None), (640.0, nn.Conv2d(10, 3, 1)), (640.0, nn.Sequential(nn.ReLU(), nn.Conv2d(10, 3, 1)))],
    ids=["equal ranges", "read by a layer", "read by a layer later"],
)
def test_other_concatenations_are_quantised(pixels: float, after: nn.Module | None) -> None:
    """A concatenation of equal ranges, or one that a layer reads, has one range as before."""
    torch.manual_seed(0)
    program, samples = prepared(Head(JOINS["boxes first"], pixels, after))
    assert float_tail.float_tail(program.module(), samples) == frozenset()
    nodes = int8_recipe.quantize_by_int8_recipe(
        program, [(x.numpy(),) for (x,) in samples]
    ).module.graph.nodes
    join = next(node for node in nodes if node.target is torch.ops.aten.cat.default)
    assert any(user.target is QUANTIZE for user in join.users)
