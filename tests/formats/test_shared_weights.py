"""Int8 weights that two operators share load in ONNX Runtime: heads over several levels, twin towers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from exporter.formats import FORMATS, VARIANTS
from tests import proof


class Twins(nn.Module):
    """One tower and one head for two pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 16), nn.ReLU()
        )
        self.head = nn.Linear(16, 6)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.tower(left)), self.head(self.tower(right))


def test_int8_with_shared_weights_loads_and_passes(tmp_path: Path) -> None:
    """ONNX Runtime's conversion of weights for x86 stops at one that it has converted before."""
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    samples = [
        tuple(generator.uniform(0, 1, (1, 1, 8, 8)).astype(np.float32) for _ in range(2)) for _ in range(32)
    ]
    captured = proof.capture(Twins(), samples[:16], tmp_path)
    quantized = proof.quantize(captured, samples[16:], tmp_path)
    variant = VARIANTS["onnx-int8"]
    path = FORMATS["onnx"].emit(quantized, variant, tmp_path).path
    run, _ = FORMATS["onnx"].load(path, variant, 1)
    assert [output.shape for output in run(samples[0])] == [(1, 6), (1, 6)]
    assert "Its runtime refuses it" not in (proof.judge(quantized, path, "onnx-int8").reason or "")
