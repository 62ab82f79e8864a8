"""Concatenations with tensors that have no elements are quantised as what is left."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.quantize import int8_recipe


class PartlyTurned(nn.Module):
    """Changes a share of the features and joins the rest, as rotary embeddings do."""

    def __init__(self, share: int, more: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(16 if more else 8, 4)
        self.share, self.more = share, more

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.first(x)
        turned = y[..., : self.share].flip(-1)
        parts = [turned, y[..., self.share :], *([y] if self.more else [])]
        return self.last(torch.cat(parts, -1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("more", [False, True], ids=["alone", "with another"])
@pytest.mark.parametrize("share", [8, 5, 0])
def test_empty_tensors_are_left_out(share: int, more: bool) -> None:
    """All, some or none of the features are turned; int8 is near float each time."""
    torch.manual_seed(0)
    net = PartlyTurned(share, more).eval()
    samples = [(np.random.default_rng(i).normal(size=(1, 6, 8)).astype(np.float32),) for i in range(8)]
    program = torch.export.export(net, (torch.from_numpy(samples[0][0]),))
    quantized = int8_recipe.quantize_by_int8_recipe(program, samples)
    x = torch.from_numpy(samples[-1][0])
    with torch.no_grad():
        expected, actual = net(x), quantized.module(x)
    actual = actual[0] if isinstance(actual, tuple | list) else actual
    assert float((actual - expected).norm() / expected.norm()) < 0.1
