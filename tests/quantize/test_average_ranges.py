"""Tests of averages in int8, whose range is their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from exporter.formats import FORMATS, VARIANTS
from exporter.quantize import int8_recipe
from exporter.quantize.graphs import AVERAGES, rounded_graph_tensor
from exporter.quantize.int8_recipe import Int8Program
from exporter.records import Captured, Sample, TensorSpec
from exporter.verify.compare_outputs import compare_sqnr_db

WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "pool": lambda x: nn.functional.adaptive_avg_pool2d(x, 1).flatten(1),
    "mean over places": lambda x: x.mean((2, 3)),
    "mean that keeps dimensions": lambda x: x.mean((2, 3), keepdim=True).flatten(1),
    "mean over rows, turned": lambda x: x.mean(2).permute(0, 2, 1),
}
FEW_LOUD, ONE_LOUD = 40, 1
"""Numbers of loud places of 1600; the average of one alone reaches a thousandth as far as it does."""


class Averaged(nn.Module):
    """Averages a layer's outputs before the last layer reads them."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 8, 1, bias=False), nn.Linear(8, 4)
        self.way = WAYS[way]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.way(self.first(x).relu()))
        return y


def quantized(way: str, loud: int) -> tuple[Int8Program, list[Sample], Captured]:
    """Return a network that averages, in int8, with its calls."""
    generator = torch.Generator().manual_seed(1)
    calls = []
    for _ in range(8):
        x = torch.zeros(1, 3, 1600)
        x[..., torch.randperm(1600, generator=generator)[:loud]] = torch.rand(3, loud, generator=generator)
        calls.append((x.reshape(1, 3, 40, 40),))
    net = Averaged(way).eval()
    program = int8_recipe.quantize_by_static_int8_recipe(torch.export.export(net, calls[0]), calls)
    specs = (TensorSpec("x", (1, 3, 40, 40)),), (TensorSpec("y", tuple(net(*calls[0]).shape)),)
    captured = Captured(net, program.program(), "", calls[0], *specs)
    return program, [tuple(x.numpy() for x in call) for call in calls], captured


@pytest.mark.parametrize("way", WAYS)
def test_an_average_has_finer_steps_than_what_it_is_taken_of(way: str) -> None:
    """It reaches less far, and its rounding is not averaged out any more."""
    program, _, _ = quantized(way, FEW_LOUD)
    nodes = [node for node in program.module.graph.nodes if rounded_graph_tensor(node) is not None]
    scales = {rounded_graph_tensor(node).target: node.args[1] for node in nodes}  # type: ignore[union-attr]
    averaged = next(scale for target, scale in scales.items() if target in AVERAGES)
    assert averaged < 0.5 * scales[torch.ops.aten.relu.default]


@pytest.mark.parametrize(
    ("way", "name"), [*((way, "executorch-xnnpack-int8") for way in WAYS), ("pool", "onnx-int8")]
)
def test_runtimes_average_into_much_finer_steps(way: str, name: str, tmp_path: Path) -> None:
    """Files compute what the program does, though steps differ a thousandfold."""
    program, samples, captured = quantized(way, ONE_LOUD)
    variant = VARIANTS[name]
    form = FORMATS[variant.format]
    run = form.load(form.emit(captured, variant, tmp_path).path, variant, 1)[0]
    expected = int8_recipe.int8_recipe_runner(program.module)
    for sample in samples[:3]:
        for y, a in zip(expected(sample), run(sample), strict=True):
            assert compare_sqnr_db(y, a) > 40
