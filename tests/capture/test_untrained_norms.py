"""Outputs that are tiny in their unit, and outputs that are what is left of a signal that faded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.zoo import Does, conv
from exporter.verify.reference_io import load_reference_io
from tests import proof

ROWS = [(np.random.default_rng(i).normal(size=(1, 3, 16, 16)).astype(np.float32),) for i in range(8)]


def amperes(scale: float) -> Callable[[], nn.Module]:
    return lambda: Does(
        lambda net, x: net.head(net.body(x).mean((2, 3))) * scale, body=conv(3, 8), head=nn.Linear(8, 2)
    )


def small_weights() -> nn.Module:
    layer = nn.Linear(8, 2)
    with torch.no_grad():
        layer.weight.mul_(1e-10)
        layer.bias.mul_(1e-10)
    return Does(lambda net, x: net.head(net.body(x).mean((2, 3))), body=conv(3, 8), head=layer)


class Fading(nn.Module):
    """Every layer makes its input ten times smaller, as random weights may; no norm corrects it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(conv(3, 3) for _ in range(10)))
        with torch.no_grad():
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.weight.mul_(0.2)
                    assert layer.bias is not None
                    layer.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y.mean((2, 3))


@pytest.mark.parametrize("make", [amperes(1e-9), amperes(1e-20), small_weights])
def test_a_network_with_small_units_passes(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    """Its batch norms see what they expect: only its unit is large."""
    torch.manual_seed(0)
    captured = proof.capture(make(), ROWS, tmp_path)
    assert load_reference_io(tmp_path / proof.EVIDENCE).untrained_norm == ""
    assert proof.prove(captured, "onnx-fp32", tmp_path).reason is None


def test_a_network_whose_signal_fades_is_refused(tmp_path: Path) -> None:
    """The first batch norm that is reached by next to nothing is named."""
    torch.manual_seed(0)
    captured = proof.capture(Fading(), ROWS, tmp_path)
    verdict = proof.prove(captured, "onnx-fp32", tmp_path)
    assert verdict.status == "failed"
    assert "what reaches its batch norm 'layers." in str(verdict.reason)
    assert "randomly initialised" in str(verdict.reason)
