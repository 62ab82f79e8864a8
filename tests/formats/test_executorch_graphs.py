"""Graphs at which ExecuTorch's compiler stumbles become files that pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.records import Sample
from tests import proof


class KeyCache(nn.Module):
    """A buffer takes what a layer with parameters computes: it would require a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(1, 4, 6))
        self.project = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        self.keys.copy_(torch.cat([self.keys[:, 1:], self.project(x)], 1))  # type: ignore[operator,index]
        attended: Tensor = (x @ self.keys.transpose(1, 2)).softmax(-1) @ self.keys  # type: ignore[operator]
        return attended


class Counts(nn.Module):
    """The count waits for operators of one group, whose other outputs wait for the same features."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, 1, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (self.body(x) > 0.1).sum((2, 3)), self.head(self.body(x).mean((2, 3)))


class Number(nn.Module):
    """A regressor that returns a number without any axis."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, 1, 1), nn.ReLU())
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        number: Tensor = self.head(self.body(x).mean((2, 3))).squeeze()
        return number


class Enlarged(nn.Module):
    """An image made of a transformer's tokens, which PyTorch keeps channels last, is pooled and enlarged."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 3, 1, 1), nn.Conv2d(8, 16, 3, 1, 1)
        self.mix = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        image = self.first(x)
        image = self.mix(image.flatten(2).transpose(1, 2)).transpose(1, 2).view(image.shape) + image
        large = nn.functional.pixel_shuffle(nn.functional.max_pool2d(self.last(image), 2), 4) / 2
        smaller: Tensor = nn.functional.pixel_unshuffle(large + 0.5, 2)[..., : x.shape[2], : x.shape[3]]
        return smaller


def rows(*shape: int) -> list[Sample]:
    generator = np.random.default_rng(0)
    levels = generator.uniform(0.2, 2, (24, *[1] * len(shape)))
    return [(row.astype(np.float32),) for row in levels * generator.normal(1, 0.5, (24, *shape))]


@pytest.mark.parametrize(
    ("make", "variant", "shape"),
    [
        (KeyCache, "executorch-xnnpack-fp32", (1, 1, 6)),
        (Counts, "executorch-xnnpack-fp32", (1, 1, 8, 8)),
        (Number, "executorch-xnnpack-int8", (1, 1, 8, 8)),
        (Enlarged, "executorch-xnnpack-fp32", (1, 1, 8, 8)),
    ],
)
def test_it_becomes_a_file_that_passes(
    make: Callable[[], Any], variant: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    """Messages were about a leaf, a cycle, the axis of a tensor without axes, and orders of dimensions."""
    torch.manual_seed(0)
    samples = rows(*shape)
    network = proof.capture(make(), samples[:12], tmp_path)
    if variant.endswith("int8"):
        network = proof.quantize(network, samples[12:], tmp_path)
    verdict = proof.prove(network, variant, tmp_path)
    assert verdict.status == "passed", verdict.reason
