"""Build Visual Attention Networks (arXiv:2202.09741), which neither timm nor `transformers` has.

They are written from the paper. Only shapes matter: the networks are described and never trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class VanSize:
    """One size of the paper's table 2."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]


WIDE = (64, 128, 320, 512)
VANS: Mapping[str, VanSize] = {
    "van-tiny": VanSize((32, 64, 160, 256), (3, 3, 5, 2)),
    "van-small": VanSize(WIDE, (2, 2, 4, 2)),
    "van-base": VanSize(WIDE, (3, 3, 12, 3)),
    "van-large": VanSize(WIDE, (3, 5, 27, 3)),
}
"""Published name -> its size."""
EXPANSIONS = (8, 8, 4, 4)
"""How much wider the hidden layer of a stage's feed-forward networks is."""
CLASSES = 1000


def van_network(name: str) -> Any:
    """Build the network of a published name."""
    from torch import nn

    size, layers, before = VANS[name], list[nn.Module](), 3
    stages = zip(size.widths, size.depths, EXPANSIONS, strict=True)
    for stage, (width, depth, expansion) in enumerate(stages):
        kernel, stride = (7, 4) if stage == 0 else (3, 2)
        layers += [nn.Conv2d(before, width, kernel, stride, kernel // 2), nn.BatchNorm2d(width)]
        for _ in range(depth):
            layers += [_residual(_attention(width)), _residual(_feed_forward(width, width * expansion))]
        layers.append(_normalised_positions(width))
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, CLASSES))


def _attention(width: int) -> Any:
    """Return the large-kernel attention between two 1x1 convolutions."""
    from torch import nn

    near = nn.Conv2d(width, width, 5, padding=2, groups=width)
    far = nn.Conv2d(width, width, 7, padding=9, groups=width, dilation=3)
    gate = _gated(nn.Sequential(near, far, nn.Conv2d(width, width, 1)))
    return nn.Sequential(
        nn.BatchNorm2d(width), nn.Conv2d(width, width, 1), nn.GELU(), gate, nn.Conv2d(width, width, 1)
    )


def _feed_forward(width: int, hidden: int) -> Any:
    from torch import nn

    depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
    return nn.Sequential(
        nn.BatchNorm2d(width), nn.Conv2d(width, hidden, 1), depthwise, nn.GELU(), nn.Conv2d(hidden, width, 1)
    )


def _gated(inner: Any) -> Any:
    """Return a module that multiplies its input by what `inner` makes of it."""
    from torch import nn

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, values: Any) -> Any:
            return values * self.inner(values)

    return Gated()


def _residual(inner: Any) -> Any:
    """Return a module that adds what `inner` makes of its input, scaled a channel."""
    import torch
    from torch import nn

    width = inner[0].num_features

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner
            self.scale = nn.Parameter(torch.ones(width, 1, 1))

        def forward(self, values: Any) -> Any:
            return values + self.scale * self.inner(values)

    return Residual()


def _normalised_positions(width: int) -> Any:
    """Return a layer norm over the channels of every position."""
    from torch import nn

    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(width)

        def forward(self, values: Any) -> Any:
            return self.norm(values.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, values.shape[2:])

    return Positions()
