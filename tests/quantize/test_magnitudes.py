"""Magnitudes are computed in float: quiet inputs stay apart from silence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.quantize import int8_recipe
from exporter.quantize.magnitudes import magnitudes
from exporter.records import Sample

SQUARES: dict[str, Callable[[Tensor], Tensor]] = {
    "power": lambda x: x**2,
    "product": lambda x: x * x,
    "square": torch.square,
}
LOUDNESS = (1.0, 0.1)


class Spectrum(nn.Module):
    """Magnitudes of complex bands, and a layer that reads them."""

    def __init__(self, square: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.square = square
        self.bands, self.head = nn.Conv1d(1, 16, 8, stride=4, bias=False), nn.Conv1d(8, 4, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        real, imaginary = self.bands(x).chunk(2, 1)
        return self.head((self.square(real) + self.square(imaginary)).sqrt())  # type: ignore[no-any-return]


class Distance(nn.Module):
    """A root of something else: of a sum with one square."""

    def forward(self, x: Tensor) -> Tensor:
        return (x**2 + 1e-3).sqrt() + (x**2 + x.abs()).sqrt() + (x**3 + x**2).relu().sqrt()


def sounds(seed: int) -> list[Sample]:
    chance = np.random.default_rng(seed)
    return [
        ((LOUDNESS[number % 2] * chance.normal(size=(1, 1, 64))).astype(np.float32),) for number in range(16)
    ]


@pytest.mark.parametrize("kind", SQUARES)
def test_quiet_magnitudes_are_heard(kind: str) -> None:
    """Inputs that are 20 dB quieter than others keep most of their magnitudes."""
    net = Spectrum(SQUARES[kind]).eval()
    program = torch.export.export(net, (torch.zeros(1, 1, 64),))
    assert len(magnitudes(program.module())) == 4
    run = int8_recipe.int8_recipe_runner(int8_recipe.quantize_by_int8_recipe(program, sounds(0)).module)
    judged = sounds(1)[1::2]
    with torch.no_grad():
        expected = np.stack([net(torch.from_numpy(x)).numpy() for (x,) in judged])
    error = np.stack([run(sample)[0] for sample in judged]) - expected
    assert np.square(error).sum() < 0.1 * np.square(expected).sum()


def test_other_roots_are_quantised() -> None:
    """A sum with something that is no square is no magnitude, but for a square and a constant."""
    program = torch.export.export(Distance(), (torch.rand(1, 4),))
    assert not magnitudes(program.module()) - {"pow_1", "add", "sqrt"}
