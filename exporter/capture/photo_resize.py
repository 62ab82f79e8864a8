"""Resizes and crops photos of any size within a network, as Pillow does: `--photo-sizes`.

Pillow's resize is separable: each column of the result is a weighted mean of the columns that it covers, and
then each row likewise. Both are therefore matrix products, with weights that follow from the photo's height
and width when the network runs. All runtimes can do that; not all have an antialiased resize. Cropping is a
choice of rows. Pillow rounds to bytes after both steps, which this does not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from exporter.errors import UsageError
from exporter.records import Preprocessing


class PhotoResize(nn.Module):
    """Makes planes [1, colours, crop height, crop width] of a photo [1, height, width, colours]."""

    def __init__(self, how: Preprocessing) -> None:
        super().__init__()
        if how.interpolation == "nearest":
            raise UsageError(
                "--photo-sizes resizes as bilinear and bicubic do; photos of this network are resized to the "
                "nearest pixel.",
                "Leave it out: the app resizes.",
                code="EM-EMBED-PREPROCESSING",
            )
        self.size, self.squash, self.cubic = how.resize, how.squash, how.interpolation == "bicubic"
        self.register_buffer("rows", torch.arange(how.crop[0], dtype=torch.float32))
        self.register_buffer("columns", torch.arange(how.crop[1], dtype=torch.float32))
        self.rows: Tensor
        self.columns: Tensor

    def forward(self, photo: Tensor) -> Tensor:
        height, width, colours = photo.shape[1], photo.shape[2], photo.shape[3]
        ys, xs = (torch.arange(n, dtype=self.rows.dtype) for n in (height, width))
        sides = ys.amax(0, keepdim=True) + 1, xs.amax(0, keepdim=True) + 1
        vertical, horizontal = (
            self._weights(positions, side, torch.minimum(*sides), wanted)
            for positions, side, wanted in zip((ys, xs), sides, (self.rows, self.columns), strict=True)
        )
        planes = photo.permute(0, 3, 1, 2).reshape(1, colours * height, width)
        # Products of batches, of one here, are the kind that XNNPACK computes without constant weights.
        narrow = self._clipped(torch.bmm(planes, horizontal.transpose(0, 1).unsqueeze(0)))
        columns = narrow.reshape(colours, height, -1).transpose(1, 2).reshape(1, -1, height)
        crop = self._clipped(torch.bmm(columns, vertical.transpose(0, 1).unsqueeze(0)))
        return crop.reshape(1, colours, len(self.columns), len(self.rows)).transpose(2, 3)

    def _clipped(self, values: Tensor) -> Tensor:
        """Clip what a cubic overshoots, as bytes do."""
        return values.clamp(0.0, 255.0) if self.cubic else values

    def _weights(self, positions: Tensor, side: Tensor, shorter: Tensor, wanted: Tensor) -> Tensor:
        """Return the weight of each of the photo's lines in each line of the crop, [wanted, positions].

        Args:
            positions: 0, 1, … up to the photo's side.
            side: Its length, [1].
            shorter: The length of the shorter side, [1].
            wanted: 0, 1, … up to the crop's side.
        """
        resized = torch.full_like(side, self.size) if self.squash else torch.floor(self.size * side / shorter)
        line = wanted + self._first_line(resized, len(wanted))
        inside = line.clamp(min=0.0).minimum(resized - 1)
        scale = side / resized
        centre = (inside + 0.5) * scale
        support = scale.clamp(min=1.0)
        away = (positions + 0.5 - centre.unsqueeze(1)).abs() / support
        weights = _cubic(away) if self.cubic else (1 - away).clamp(min=0.0)
        weights = weights / weights.sum(1, keepdim=True)
        if len(wanted) <= self.size:
            return weights
        return weights * (1 - (line - inside).abs().clamp(max=1.0)).unsqueeze(1)  # black beside the photo

    def _first_line(self, resized: Tensor, crop: int) -> Tensor:
        """Return the place of the crop's first line in the resized photo, by torchvision's CenterCrop."""
        larger = resized.clamp(min=float(crop))
        return torch.round((larger - crop) / 2) - torch.floor((larger - resized) / 2)


def _cubic(away: Tensor) -> Tensor:
    """Return Pillow's cubic filter (a = -0.5) at a distance: one polynomial up to 1, another up to 2."""
    near, far = away.clamp(max=1.0), away.clamp(1.0, 2.0)
    return (1.5 * near - 2.5) * near * near + 1 + ((-0.5 * far + 2.5) * far - 4) * far + 2
