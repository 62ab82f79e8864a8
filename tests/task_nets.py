"""Small networks of other tasks than classes, with labels that they meet, for whole exports."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _stem(width: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        nn.ReLU(),
    )


class Detector(nn.Module):
    """A detector of one box in each of 64 cells of 4x4 pixels, of two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _stem(16, 0)
        self.places, self.classes = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 2, 1)
        with torch.no_grad():
            self.classes.weight.mul_(6)
        steps = torch.arange(8.0) * 4 + 2
        self.register_buffer(
            "grid", torch.stack(torch.meshgrid(steps, steps, indexing="xy")), persistent=False
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = self.stem(image)
        place = self.places(x).sigmoid()
        centre = self.grid + 4 * place[:, :2] - 2
        half = 2 + 4 * place[:, 2:]
        boxes = torch.cat([centre - half, centre + half], dim=1).flatten(2).transpose(1, 2)
        return {"boxes": boxes, "scores": self.classes(x).flatten(2).transpose(1, 2).sigmoid()}


class Segmenter(nn.Module):
    """A class out of four for every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _stem(16, 1)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        x = self.head(x - x.mean((2, 3), keepdim=True))  # so that no class has all pixels
        return nn.functional.interpolate(x, scale_factor=4.0, mode="nearest")


class Reader(nn.Module):
    """A token out of six for each of 8 steps, as log-probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _stem(16, 2)
        self.head = nn.Linear(16, 6)

    def forward(self, image: Tensor) -> Tensor:
        steps = self.stem(image).mean(2).transpose(1, 2)
        steps = self.head(steps - steps.mean(1, keepdim=True))  # so that no token takes all steps
        return (steps * 40).log_softmax(-1)  # type: ignore[no-any-return]


class Gauge(nn.Module):
    """Two numbers for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _stem(16, 3)
        self.head = nn.Linear(16, 2)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.stem(image).mean((2, 3))) * 20  # type: ignore[no-any-return]
