"""Cut the features of regions from a pyramid, as torchvision's RoIAlign does, for a fixed number of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SAMPLES = 2
"""Points in a bin's side that torchvision's RoIAlign averages."""


class RegionCrops(nn.Module):
    """Returns the features of each region from the level of the pyramid that suits the region's size."""

    def __init__(self, pool: Any, heights: Sequence[int], photo_height: int) -> None:
        """Take the settings of torchvision's layer.

        Args:
            pool: A MultiScaleRoIAlign of torchvision.
            heights: The heights of the levels that it pools.
            photo_height: The height of the network's input.
        """
        super().__init__()
        self.scales = [2 ** round(math.log2(height / photo_height)) for height in heights]
        self.usual_side, self.usual_level = pool.canonical_scale, pool.canonical_level
        self.bins = int(pool.output_size[0])

    def forward(self, features: Sequence[Tensor], regions: Tensor) -> Tensor:
        """Return each region's features [n, channels, bins, bins] from the level that suits its size."""
        smallest = -math.log2(self.scales[0])
        area = (regions[:, 2] - regions[:, 0]) * (regions[:, 3] - regions[:, 1])
        side = area.clamp_min(0).sqrt()
        level = torch.floor(self.usual_level + torch.log2(side / self.usual_side) + 1e-6).clamp(
            smallest, smallest + len(features) - 1
        )
        crops = None
        for place, (feature, scale) in enumerate(zip(features, self.scales, strict=True)):
            crop = self._aligned(feature, regions, scale)
            chosen = (level == smallest + place)[:, None, None, None]
            crops = crop if crops is None else torch.where(chosen, crop, crops)
        assert crops is not None
        return crops

    def _aligned(self, feature: Tensor, regions: Tensor, scale: float) -> Tensor:
        """Compute RoIAlign: the mean of bilinear samples in each bin of each region."""
        channels, height, width = feature.shape[1:]
        x = self._points(regions[:, 0] * scale, regions[:, 2] * scale)
        y = self._points(regions[:, 1] * scale, regions[:, 3] * scale)
        points = x.shape[1]
        grid = torch.stack(
            [
                (x / max(width - 1, 1) * 2 - 1)[:, None, :].expand(-1, points, -1),
                (y / max(height - 1, 1) * 2 - 1)[:, :, None].expand(-1, -1, points),
            ],
            dim=-1,
        )
        flat = grid.reshape(1, -1, points, 2)
        sampled = functional.grid_sample(feature, flat, padding_mode="border", align_corners=True)
        bins = sampled.reshape(channels, -1, self.bins, SAMPLES, self.bins, SAMPLES).mean((3, 5))
        return bins.transpose(0, 1)

    def _points(self, low: Tensor, high: Tensor) -> Tensor:
        """Return the places of the samples along one side of each region, [n, bins * samples]."""
        step = (high - low).clamp_min(1) / self.bins
        places = (torch.arange(self.bins * SAMPLES, dtype=low.dtype) + 0.5) / SAMPLES
        return low[:, None] + step[:, None] * places
