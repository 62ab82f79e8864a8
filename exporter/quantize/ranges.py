"""The range of each activation that loses least, for PT2E.

An int8 range is a bargain: a wide one clips nothing and rounds coarsely. The best is where the squared error
is least (Nagel et al., "A White Paper on Neural Network Quantization", 2021, section 3.1), which is searched
for among shrunken copies of the range that was seen, on values drawn from every calibration sample.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchao.quantization.pt2e.observer import UniformQuantizationObserverBase

VALUES = 4096
"""Values kept of each sample's tensor: 64 samples give 262,144."""

SHRINKS = torch.linspace(1.0, 0.3, 36)
"""Parts of the full range that are tried."""


class LeastSquaresObserver(UniformQuantizationObserverBase):  # type: ignore[misc]
    """Sees calibration samples go by, then gives the scale and zero point of least squared error."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._drawn: list[Tensor] = []
        self._low, self._high = torch.tensor(0.0), torch.tensor(0.0)
        # A strided choice would see the same channels and columns each time; a seed keeps runs alike.
        self._random = torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Tensor:
        """Remember the extremes and some of the values; returns `x` itself."""
        values = x.detach().flatten().float()
        self._low = torch.minimum(self._low, values.min())
        self._high = torch.maximum(self._high, values.max())
        if values.numel() > VALUES:
            values = values[torch.randint(values.numel(), (VALUES,), generator=self._random)]
        self._drawn.append(values)
        return x

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point, one element each; those of the full range where nothing was drawn."""
        if not self._drawn:
            return self._of(1.0)
        values = torch.cat(self._drawn)
        return min((self._of(float(part)) for part in SHRINKS), key=lambda found: self._error(values, *found))

    def _of(self, part: float) -> tuple[Tensor, Tensor]:
        scale, zero = self._calculate_qparams(self._low * part, self._high * part)
        return scale, zero

    def _error(self, values: Tensor, scale: Tensor, zero: Tensor) -> float:
        steps = (torch.round(values / scale) + zero).clamp_(self.quant_min, self.quant_max)
        return float(((steps - zero) * scale - values).square_().sum())
