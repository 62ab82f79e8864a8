"""Weights that a network computes from others are stored in what is made of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

from exporter.capture import captured_program
from exporter.capture.folded_weights import with_folded_weights
from exporter.formats import FORMATS, VARIANTS
from exporter.records import Model, TensorSpec
from tests import proof


class Symmetric(nn.Module):
    """A parametrization of the user's own."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).transpose(-1, -2)


def symmetric(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return layer


NORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight norm": parametrizations.weight_norm,
    "weight norm along time": lambda layer: parametrizations.weight_norm(layer, dim=2),
    "spectral norm": parametrizations.spectral_norm,
    "old weight norm": old_weight_norm,
    "old spectral norm": old_spectral_norm,
    "own": symmetric,
}
ROWS = [(np.random.default_rng(i).normal(size=(1, 8, 32)).astype(np.float32),) for i in range(12)]


class Net(nn.Module):
    """A convolution with a computed weight, and a layer after it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = NORMS[name](nn.Conv1d(8, 8, 8))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().mean(2))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", NORMS)
def test_the_graph_holds_the_weight_itself(name: str) -> None:
    """The graph computes the same, from a stored weight; the network stays as it was."""
    net = Net(name).eval()
    before, answer = set(net.state_dict()), net(torch.from_numpy(ROWS[0][0]))
    model = Model(net, "tests:Net", (TensorSpec("x", (1, 8, 32)),), None, 0)
    captured = captured_program.capture_program(model, ROWS[0])
    assert captured.program is not None
    assert {"conv.weight", "conv.bias", "head.weight", "head.bias"} == set(captured.program.state_dict)
    torch.testing.assert_close(captured.program.module()(torch.from_numpy(ROWS[0][0])), answer)
    assert set(net.state_dict()) == before


def test_a_network_without_computed_weights_is_left_alone() -> None:
    """It is not copied; neither is a scripted one."""
    plain = nn.Sequential(nn.Linear(4, 4))
    assert with_folded_weights(plain) is plain
    scripted = torch.jit.script(plain)
    assert with_folded_weights(scripted) is scripted


@pytest.mark.parametrize("name", ["weight norm along time", "spectral norm"])
def test_xnnpack_takes_the_layer(name: str, tmp_path: Path) -> None:
    """Its weight is counted, and all of its compute is delegated."""
    captured = proof.capture(Net(name), ROWS, tmp_path)
    variant = VARIANTS["executorch-xnnpack-fp32"]
    verdict = proof.prove(captured, variant.name, tmp_path)
    assert (verdict.status, verdict.reason) == ("passed", None)
    structure = FORMATS["executorch"].structure(tmp_path / f"{variant.name}.pte", variant)
    assert structure.delegated_fraction is not None
    assert structure.delegated_fraction > 0.9
