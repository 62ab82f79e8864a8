"""Networks that some format cannot carry, importable so that worker processes find them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Branching(nn.Module):
    """The layer depends on the input's values, so a trace would keep one only."""

    def __init__(self) -> None:
        super().__init__()
        self.dark = nn.Linear(64, 10)
        self.light = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        pixels = image.flatten(1)
        if pixels.mean() > 0.3:
            return self.light(pixels)  # type: ignore[no-any-return]
        return self.dark(pixels)  # type: ignore[no-any-return]


class Single(nn.Module):
    """The network cannot run in float64: it counts on 32 bits in each value of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        bits = x.view(torch.int32).reshape(1, 8)
        return self.layer(bits.view(torch.float32))  # type: ignore[no-any-return]


class Determinant(nn.Module):
    """The network uses an operator that ONNX has and Core ML lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        volume = torch.det(image[:, 0, :3, 2:5])
        return self.layer(image.flatten(1)) + volume[:, None]  # type: ignore[no-any-return]


class Does(nn.Module):
    """A linear layer, and a function after it."""

    def __init__(self, then: Callable[[Tensor], Tensor], width: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.then = nn.Linear(width, width), then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.layer(x))
