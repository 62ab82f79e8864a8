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


class Distances(nn.Module):
    """Ultralytics' head: a box's sides are means over distances, in strides from an anchor of each level."""

    def __init__(self, bins: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1))
        self.boxes = nn.ModuleList([nn.Conv2d(32, 4 * bins, 1) for _ in range(2)])
        self.scores = nn.ModuleList([nn.Conv2d(32, 6, 1) for _ in range(2)])
        self.mean = nn.Conv2d(bins, 1, 1, bias=False)
        self.bins = bins
        with torch.no_grad():
            self.mean.weight[:] = torch.arange(bins).reshape(1, bins, 1, 1)
            for weight in self.boxes.parameters():
                weight.mul_(8)
        sizes, strides = (16, 8), (32.0, 64.0)
        places = [torch.stack(torch.meshgrid(*[torch.arange(n) + 0.5] * 2, indexing="xy")) for n in sizes]
        self.register_buffer("anchors", torch.cat([p.reshape(1, 2, -1) for p in places], 2))
        repeated = [torch.full((1, 1, n * n), s) for n, s in zip(sizes, strides, strict=True)]
        self.register_buffer("strides", torch.cat(repeated, 2))

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.body(x), nn.functional.max_pool2d(self.body(x), 2)]
        boxes, scores = (
            torch.cat([layer(y).flatten(2) for layer, y in zip(layers, levels, strict=True)], 2)
            for layers in (self.boxes, self.scores)
        )
        shares = boxes.view(1, 4, self.bins, -1).transpose(2, 1).softmax(1)
        near, far = self.mean(shares).view(1, 4, -1).chunk(2, 1)
        anchors, strides = self.get_buffer("anchors"), self.get_buffer("strides")
        low, high = anchors - near, anchors + far
        box = torch.cat([(low + high) / 2, high - low], 1) * strides
        return torch.cat([box, scores.sigmoid()], 1)


def test_boxes_are_not_rounded_on_their_way_from_distances() -> None:
    """Only the last layers' results are rounded, each once: sides of 1,000 pixels are off by a few."""
    torch.manual_seed(0)
    net = Distances().eval()
    samples: list[tuple[Tensor, ...]] = [(torch.randn(1, 1, 16, 16),) for _ in range(6)]
    program = torch.export.export(net, samples[0])
    module = int8_recipe.quantize_by_int8_recipe(program, [(x.numpy(),) for (x,) in samples]).module
    rounded = [node.all_input_nodes[0] for node in module.graph.nodes if node.target is QUANTIZE]
    after = {node.name for node in module.graph.nodes if node.op == "call_function"} & {
        node.name for node in rounded
    }
    assert not {name for name in after if name.startswith(("softmax", "mul", "div", "sub", "sigmoid", "cat"))}
    assert {name.rpartition("_")[0] or name for name in after} >= {"conv2d"}
    run = int8_recipe.int8_recipe_runner(module)
    pairs = [(net(x).detach().numpy()[:, :4], run((x.numpy(),))[0][:, :4]) for (x,) in samples]
    expected, actual = (np.concatenate(column) for column in zip(*pairs, strict=True))
    assert np.sqrt(np.square(actual - expected).mean()) < 0.01 * np.ptp(expected)


def test_a_last_layer_stays_int8() -> None:
    """Few weights alone make no arithmetic of a layer: it must cost next to nothing, too."""
    torch.manual_seed(0)
    net = nn.Sequential(Head(JOINS["boxes first"]), nn.Conv2d(10, 3, 1, bias=False))
    program, samples = prepared(net)
    assert float_tail.float_tail(program.module(), samples) == frozenset()
