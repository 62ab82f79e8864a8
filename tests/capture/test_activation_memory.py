"""What the values of one call take in float64, read from the graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from exporter.capture.activation_memory import activation_memory_bytes

MB = 1 << 20
SIDE = 256
PLANE = SIDE * SIDE * 8
"""One channel in float64."""


class Calls(nn.Module):
    """A function as a network without weights."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x)


def bytes_of(net: nn.Module, *shape: int) -> int:
    return activation_memory_bytes(torch.export.export(net.eval(), (torch.zeros(shape),)))


def kept(x: Tensor) -> Tensor:
    """Hold the input to the end, beside the two values of the last step."""
    y = torch.relu(x)
    return torch.sigmoid(torch.tanh(y)) + x


@pytest.mark.parametrize(
    ("function", "channels"),
    [
        pytest.param(
            lambda x: torch.tanh(torch.relu(torch.sigmoid(x))), 2 * 4, id="a chain holds two values"
        ),
        pytest.param(kept, 3 * 4, id="a value that is read later is held"),
        pytest.param(lambda x: x.reshape(4, -1).t().unsqueeze(0).relu(), 2 * 4, id="views take nothing"),
        pytest.param(lambda x: torch.cat([x, x.relu()], 1), 4 * 4, id="a joined value is a copy"),
        pytest.param(lambda x: x.chunk(2, 1)[1] + x[:, 2:], 4 + 2, id="parts are views"),
        pytest.param(lambda x: (x > 0).sum(), 4 + 0.5, id="a mask takes a byte"),
        pytest.param(lambda x: tuple(x * n for n in range(1, 6)), 6 * 4, id="outputs are held to the end"),
    ],
)
def test_values_are_held_up_to_their_last_reader(
    function: Callable[[Tensor], object], channels: float
) -> None:
    """The peak is in float64 channels of an input of four."""
    assert bytes_of(Calls(function), 1, 4, SIDE, SIDE) == pytest.approx(channels * PLANE, rel=1e-3)


@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        pytest.param(nn.Conv2d(4, 8, 3, padding=1), 4 + 8 + 4 * 9, id="3x3 writes out nine of each input"),
        pytest.param(nn.Conv2d(4, 8, 1), 4 + 8, id="1x1 writes out nothing"),
        pytest.param(nn.Conv2d(4, 4, 3, padding=1, groups=4), 4 + 4 + 4 + 9, id="a group at a time"),
        pytest.param(nn.Conv2d(4, 8, 3, padding=1, stride=2), 4 + 8 / 4 + 9, id="strided"),
    ],
)
def test_a_convolution_has_a_workspace(layer: nn.Module, channels: float) -> None:
    """PyTorch multiplies written-out inputs in float64; weights are not counted."""
    assert bytes_of(layer, 1, 4, SIDE, SIDE) == pytest.approx(channels * PLANE, rel=1e-3)


def test_a_batch_is_convolved_one_sample_after_the_other() -> None:
    """The workspace is one sample's."""
    assert bytes_of(nn.Conv2d(4, 8, 3, padding=1), 5, 4, SIDE, SIDE) == pytest.approx(
        (5 * 12 + 36) * PLANE, rel=1e-3
    )


def test_attention_holds_its_scores() -> None:
    """A thousand tokens have a million scores per head, twice."""
    net = Calls(lambda x: scaled_dot_product_attention(x, x, x))
    assert bytes_of(net, 1, 2, 1000, 16) == pytest.approx(2 * 2 * 1_000_000 * 8, rel=0.1)


def test_weights_and_constants_are_not_values() -> None:
    """Only the row that is looked up is a value."""
    table = nn.Embedding(100_000, 64)
    program = torch.export.export(table.eval(), (torch.zeros(1, 4, dtype=torch.int64),))
    assert activation_memory_bytes(program) < 10_000 < table.weight.nbytes


def test_open_sizes_are_the_examples() -> None:
    """A size that differs from call to call stays open, and counts as it is in the example."""
    net = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU())
    side = torch.export.Dim("side", min=8, max=512)
    example = torch.zeros(1, 4, SIDE, SIDE)
    program = torch.export.export(net.eval(), (example,), dynamic_shapes=({2: side},))
    assert activation_memory_bytes(program) == pytest.approx((4 + 8 + 36) * PLANE, rel=1e-3)
    assert program.range_constraints
