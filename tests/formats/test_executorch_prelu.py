"""PReLU on anything but an image is computed by XNNPACK as two ReLUs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests import proof

NETS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "a matrix": (nn.Sequential(nn.Linear(8, 6), nn.PReLU(6), nn.Linear(6, 3)), (1, 8)),
    "one slope": (nn.Sequential(nn.Linear(8, 6), nn.PReLU()), (1, 8)),
    "a sequence": (nn.Sequential(nn.Conv1d(2, 4, 3), nn.PReLU(4), nn.Conv1d(4, 2, 1)), (1, 2, 9)),
    "an image, and a matrix": (
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.PReLU(4), nn.Flatten(), nn.Linear(196, 3), nn.PReLU(3)),
        (1, 2, 9, 9),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_prelu_lowers_whatever_it_is_applied_to(name: str, tmp_path: Path) -> None:
    """The file runs, and is right on negative values with a slope for each channel."""
    net, shape = NETS[name]
    random = np.random.default_rng(0)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.PReLU):
                layer.weight.copy_(torch.linspace(-0.5, 0.5, layer.weight.numel()))
    samples = [(random.normal(size=shape).astype(np.float32),) for _ in range(8)]
    verdict = proof.prove(proof.capture(net, samples, tmp_path), "executorch-xnnpack-fp32", tmp_path)
    assert (verdict.status, verdict.reason) == ("passed", None)
