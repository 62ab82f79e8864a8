"""What only moves values is quantised as its input was, and runs in XNNPACK."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.formats import FORMATS, VARIANTS
from exporter.quantize import int8_recipe
from exporter.quantize.data_movement import share_quantisation_of_data_movement
from exporter.quantize.graphs import DEQUANTIZE, QUANTIZE, graph_outputs
from exporter.records import Captured, TensorSpec

HALVES: dict[str, Callable[[Tensor], Sequence[Tensor]]] = {
    "slices": lambda y: (y[:, :4], y[:, 4:]),
    "chunk": lambda y: y.chunk(2, 1),
    "split": lambda y: torch.split(y, 4, 1),
    "split of other sizes": lambda y: (torch.split(y, [4, 4], 1)[0], torch.split(y, [2, 2, 4], 1)[2]),
    "narrow": lambda y: (y.narrow(1, 0, 4), y.narrow(1, 4, 4)),
    "a view and slices": lambda y: (y.view(1, 8, 16)[:, :4], y.view(1, 8, 16)[:, 4:]),
    "transposed slices": lambda y: (y.transpose(2, 3)[:, :4], y.transpose(2, 3)[:, 4:]),
    "slices with a border of zeros": lambda y: (nn.functional.pad(y[:, :4], (1, 2, 0, 1)), y[:, 4:]),
    "a layer with a border of zeros": lambda y: nn.functional.pad(y, (0, 2, 0, 1)).chunk(2, 1),
    "transposed with a border of zeros": lambda y: (
        nn.functional.pad(y.permute(0, 2, 3, 1), (0, 0, 0, 1, 0, 2))[..., :4],
        y[:, 4:],
    ),
    "a border of no width": lambda y: (nn.functional.pad(y[:, :4], (0, 0, 0, 0)), y[:, 4:]),
    "a border of ones": lambda y: (nn.functional.pad(y[:, :4], (1, 2), value=1.0), y[:, 4:]),
    "a slice joined with a sum": lambda y: (torch.cat([y[:, 4:] + y[:, 4:], y[:, 4:]], 1), y[:, :4]),
    "a sum joined with a slice": lambda y: (torch.cat([y[:, 4:], y[:, 4:] + y[:, 4:]], 1), y[:, :4]),
    "rolled slices": lambda y: (y.roll(1, 2)[:, :4], y.roll((1, -1), (2, 3))[:, 4:]),
    "slices that float operators read": lambda y: (y[:, :4] * 3.0, y[:, 4:].sigmoid() * 480.0),
}


class Halves(nn.Module):
    """Adds a quiet half of a layer's channels to a loud one: each sum has a range of its own."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(1, 3)
        with torch.no_grad():
            self.first.weight[4:] *= 20
        self.halves = HALVES[how]

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.halves(self.first(x))
        both = (a + a * 0.1).flatten(1).mean(1, keepdim=True) + (b + b).flatten(1).mean(1, keepdim=True)
        answer: Tensor = self.last(both)
        return answer


def samples() -> list[tuple[np.ndarray]]:
    generator = np.random.default_rng(0)
    return [(generator.normal(size=(1, 1, 4, 4)).astype(np.float32),) for _ in range(16)]


@pytest.mark.parametrize("how", HALVES)
def test_int8_of_what_moves_values_runs_in_xnnpack(how: str, tmp_path: Path) -> None:
    """XNNPACK copies bytes there: it refuses two quantisations."""
    net = Halves(how).eval()
    example = (torch.from_numpy(samples()[0][0]),)
    program = torch.export.export(net, example)
    quantized = int8_recipe.quantize_by_int8_recipe(program, samples())
    captured = Captured(
        net, quantized.program(), "", example, (TensorSpec("x", (1, 1, 4, 4)),), (TensorSpec("y", (1, 3)),)
    )
    variant = VARIANTS["executorch-xnnpack-int8"]
    path = FORMATS["executorch"].emit(replace(captured), variant, tmp_path).path
    run, _ = FORMATS["executorch"].load(path, variant, 1)
    expected = int8_recipe.int8_recipe_runner(quantized.module)
    for sample in samples()[:4]:
        np.testing.assert_allclose(run(sample)[0], expected(sample)[0], atol=1e-5)


def graph(first: float, second: float, move: Callable[[Tensor], Tensor]) -> torch.fx.GraphModule:
    """A quantised tensor, moved, and quantised again with another scale."""

    class Moved(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = DEQUANTIZE(QUANTIZE(x, first, 0, -128, 127, torch.int8), first, 0, -128, 127, torch.int8)
            return DEQUANTIZE(  # type: ignore[no-any-return]
                QUANTIZE(move(x), second, 0, -128, 127, torch.int8), second, 0, -128, 127, torch.int8
            )

    return torch.export.export(Moved(), (torch.ones(2, 4),)).module()


def test_a_move_is_rounded_once() -> None:
    """The values are those of the first quantiser, to the last bit."""
    module = graph(0.1, 0.37, lambda x: x[:, 1:].t())
    assert share_quantisation_of_data_movement(module) == 1
    x = torch.randn(2, 4)
    once = DEQUANTIZE(QUANTIZE(x, 0.1, 0, -128, 127, torch.int8), 0.1, 0, -128, 127, torch.int8)
    assert torch.equal(graph_outputs(module(x))[0], once[:, 1:].t())


@pytest.mark.parametrize(
    "move", [lambda x: x * 2, lambda x: x[:, 1:] + 1, lambda x: x], ids=["mul", "add", "none"]
)
def test_what_computes_keeps_its_own_range(move: Callable[[Tensor], Tensor]) -> None:
    """Twice a value does not fit the range of the value."""
    assert share_quantisation_of_data_movement(graph(0.1, 0.37, move)) == 0
