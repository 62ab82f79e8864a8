"""Norms with statistics of their input give numbers for constants in ExecuTorch, as in PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.capture import captured_program
from exporter.formats import FORMATS, VARIANTS
from exporter.formats.executorch.spelled_out import with_operators_spelled_out
from exporter.records import Model, Runner, TensorSpec

SHAPE = (2, 4, 600)


class Norms(nn.Module):
    """Every norm whose statistics are the input's own."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleDict(
            {
                "group": nn.GroupNorm(2, 4),
                "channel": nn.GroupNorm(4, 4),
                "instance": nn.InstanceNorm1d(4),
                "scaled instance": nn.InstanceNorm1d(4, affine=True),
                "batch": nn.BatchNorm1d(4, track_running_stats=False),
                "layer": nn.LayerNorm(SHAPE[-1]),
            }
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(norm(x) for norm in self.norms.values())


NAMES = tuple(Norms().norms)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Run the network's .pte."""
    example = (np.random.default_rng(0).normal(size=SHAPE).astype(np.float32),)
    model = Model(Norms().eval(), "tests:norms", (TensorSpec("x", SHAPE, "float32"),), None, 0)
    variant = VARIANTS["executorch-xnnpack-fp32"]
    captured = captured_program.capture_program(model, example, others=[])
    path = FORMATS["executorch"].emit(captured, variant, tmp_path_factory.mktemp("norms")).path
    return FORMATS["executorch"].load(path, variant, 1)[0]


def reference(x: np.ndarray) -> list[np.ndarray]:
    with torch.no_grad():
        return [y.numpy() for y in Norms().double()(torch.from_numpy(x).double())]


CONSTANT: dict[str, Callable[[], np.ndarray]] = {
    "silence with an offset": lambda: np.full(SHAPE, 1.3),
    "large": lambda: np.full(SHAPE, -3000.7),
    "one per channel": lambda: np.broadcast_to([[0.1], [-7.3], [30.3], [0.0]], SHAPE).copy(),
}


@pytest.mark.parametrize("name", CONSTANT)
def test_constants_have_no_variance(run: Runner, name: str) -> None:
    """The square of a mean, less the mean of the squares, is negative by rounding: its root is NaN."""
    x = CONSTANT[name]().astype(np.float32)
    for norm, expected, actual in zip(NAMES, reference(x), run((x,)), strict=True):
        assert np.abs(actual - expected).max() < 1e-3, norm


def test_small_changes_of_a_large_value_keep_their_digits(run: Runner) -> None:
    """A signal of a thousandth of its offset leaves six of float32's seven digits to the squares."""
    x = (100 + 0.1 * np.random.default_rng(1).normal(size=SHAPE)).astype(np.float32)
    for norm, expected, actual in zip(NAMES, reference(x), run((x,)), strict=True):
        assert np.abs(actual - expected).max() < 1e-3, norm


def test_a_norm_with_statistics_stays_as_it_is() -> None:
    """A program without such a norm is not decomposed."""
    net = nn.Sequential(nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4)).eval()
    program = torch.export.export(net, (torch.zeros(SHAPE),))
    assert with_operators_spelled_out(program) is program
