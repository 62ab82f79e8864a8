"""Operators whose arguments XNNPACK ignores are computed by others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from exporter.formats.executorch.spelled_out import with_operators_spelled_out
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


class Called(nn.Module):
    """A function as a network."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _resized(**options: Any) -> Called:
    return Called(lambda x: functional.interpolate(x, mode="bilinear", **options))


CALLS: dict[str, tuple[nn.Module, tuple[int, ...], bool]] = {
    "gelu by tanh": (nn.Sequential(nn.Linear(8, 6), nn.GELU("tanh"), nn.Linear(6, 3)), (1, 8), True),
    "gelu by tanh in an image": (nn.Sequential(nn.Conv2d(2, 4, 3), nn.GELU("tanh")), (1, 2, 9, 9), True),
    "exact gelu": (nn.Sequential(nn.Linear(8, 6), nn.GELU()), (1, 8), False),
    "a scale that rounds": (_resized(scale_factor=1.7), (1, 2, 9, 12), True),
    "a shrinking that rounds": (_resized(scale_factor=0.5), (1, 2, 9, 13), True),
    "one side's scale rounds": (_resized(scale_factor=(2.0, 1.3)), (1, 2, 9, 12), True),
    "a whole scale": (_resized(scale_factor=2.0), (1, 2, 9, 12), False),
    "a scale that fits": (_resized(scale_factor=0.5), (1, 2, 8, 12), False),
    "a size": (_resized(size=(7, 19)), (1, 2, 9, 12), False),
    "corners aligned": (_resized(scale_factor=1.7, align_corners=True), (1, 2, 9, 12), False),
    "a pad that cuts": (Called(lambda x: functional.pad(x, (-1, 2, 3, -4), value=0.5)), (1, 2, 9, 12), True),
    "a pad that only cuts": (Called(lambda x: functional.pad(x, (-2, -1)) * 2), (1, 2, 9), True),
    "a shuffle, a norm and a gelu": (
        nn.Sequential(nn.Conv2d(2, 8, 3), nn.GroupNorm(2, 8), nn.GELU("tanh"), nn.PixelShuffle(2)),
        (1, 2, 9, 9),
        True,
    ),
    "a pad": (Called(lambda x: functional.pad(x, (1, 2), value=0.5)), (1, 2, 9), False),
}


def _program(net: nn.Module, shape: tuple[int, ...]) -> torch.export.ExportedProgram:
    return torch.export.export(net.eval(), (torch.rand(shape),))


@pytest.mark.parametrize("name", CALLS)
def test_calls_that_xnnpack_computes_wrongly_are_spelled_out(name: str) -> None:
    """The others stay as they are, and the program gives what the network gives."""
    net, shape, is_spelled_out = CALLS[name]
    program = _program(net, shape)
    spelled_out = with_operators_spelled_out(program)
    assert (spelled_out is not program) == is_spelled_out
    x = torch.randn(shape)
    with torch.no_grad():
        torch.testing.assert_close(spelled_out.module()(x), net(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call[2]])
def test_spelled_out_calls_run_in_executorch(name: str, tmp_path: Path) -> None:
    """The file gives what the network gives, within float32's rounding."""
    net, shape, _ = CALLS[name]
    random = np.random.default_rng(0)
    samples = [(random.normal(size=shape).astype(np.float32),) for _ in range(8)]
    verdict = proof.prove(proof.capture(net, samples, tmp_path), "executorch-xnnpack-fp32", tmp_path)
    assert (verdict.status, verdict.reason) == ("passed", None)


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
