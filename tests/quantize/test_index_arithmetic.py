"""Arithmetic that ends in a table's row is computed in float: int8 looks up the rows that float does."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.quantize import int8_recipe
from exporter.quantize.index_arithmetic import index_arithmetic

ROWS = 16


def steps_of_a_logarithm(apart: Tensor) -> Tensor:
    """Return T5's steps: near tokens one by one, far ones by the logarithm of their distance."""
    near, distance = ROWS // 4, apart.abs()
    far = near + (torch.log(distance.float() / near) / math.log(32 / near) * near).to(torch.int64)
    rows = (apart > 0).to(torch.int64) * (ROWS // 2)
    rows += torch.where(distance < near, distance, far.clamp(max=ROWS // 2 - 1))
    return rows


def fine_steps(apart: Tensor) -> Tensor:
    """Return more rows than 8 bits tell apart."""
    return (apart.abs().float() * 12.3 + 0.4).to(torch.int64)


class Apart(nn.Module):
    """Adds, for each pair of places, a table's row for their distance, which depends on the input."""

    def __init__(self, steps: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.steps, self.layer, self.table = steps, nn.Linear(8, 8), nn.Embedding(512, 8)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        rows = self.steps(places[:, None, :] - places[:, :, None])
        return torch.relu(self.layer(x)) + self.table(rows).mean(1)  # type: ignore[no-any-return]


class OnlyWhole(nn.Module):
    """Returns the number of the largest channel: its layers are quantised all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return (self.layer(x) * 0.5 + 1.0).argmax(-1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("steps", [steps_of_a_logarithm, fine_steps])
def test_int8_looks_up_the_rows_that_float_does(steps: Callable[[Tensor], Tensor]) -> None:
    """The rounding of the table and the layer is all that is lost."""
    net = Apart(steps).eval()
    chance = np.random.default_rng(0)
    samples = [
        (chance.normal(size=(1, 12, 8)).astype(np.float32), np.sort(chance.integers(0, 40, (1, 12))))
        for _ in range(8)
    ]
    program = torch.export.export(net, tuple(map(torch.from_numpy, samples[0])))
    assert index_arithmetic(program.module())
    quantised = int8_recipe.quantize_by_int8_recipe(program, samples[:4])
    run = int8_recipe.int8_recipe_runner(quantised.module)
    for sample in samples[4:]:
        with torch.no_grad():
            expected = net(*map(torch.from_numpy, sample)).numpy()
        assert np.square(run(sample)[0] - expected).sum() < 1e-2 * np.square(expected).sum()


def test_what_a_layer_gives_is_quantised() -> None:
    """An answer in whole numbers leaves nothing of the network in float."""
    program = torch.export.export(OnlyWhole().eval(), (torch.rand(1, 8),))
    assert not index_arithmetic(program.module())
