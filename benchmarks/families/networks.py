"""Networks whose own packages cannot be imported beside today's torch, written anew."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class VoiceEncoder(nn.Module):
    """Resemblyzer's network: three LSTM layers over a mel spectrogram, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mels: torch.Tensor) -> Any:
        _, (hidden, _) = self.lstm(mels)
        raw = self.linear(hidden[-1]).relu()
        return raw / raw.norm(dim=1, keepdim=True)


class Recognizer(nn.Module):
    """Calls EasyOCR's recogniser without its second argument, which it does not use."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.module = network

    def forward(self, image: torch.Tensor) -> Any:
        return self.module(image, None)


def make_crnn() -> nn.Module:
    """Make EasyOCR's recogniser of English."""
    from easyocr.model.vgg_model import Model  # type: ignore[import-not-found, unused-ignore]

    return Recognizer(Model(1, 256, 256, 97))
