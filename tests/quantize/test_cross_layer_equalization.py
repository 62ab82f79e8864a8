"""Tests that channels use the whole range, and that the network's outputs do not change."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, fx, nn

from exporter.quantize.cross_layer_equalization import equalize_across_layers
from exporter.quantize.equalization_choice import FEWEST_SCENES, HEADROOM, MOST, USUAL_DENSE

REACH = torch.tensor([4.0, 2.0, 0.5, 1e-4])
"""The largest value of each channel of the first convolution on an image of ones."""


class Pair(nn.Module):
    """A convolution with channels of different reach, an activation, and a depthwise convolution."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.writer = nn.Conv2d(1, 4, 1)
        self.activation = activation
        self.reader = nn.Conv2d(4, 4, 3, groups=4)
        with torch.no_grad():
            self.writer.weight.copy_(REACH.reshape(-1, 1, 1, 1))
            nn.init.zeros_(self.writer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(self.activation(self.writer(x)))  # type: ignore[no-any-return]


class Branching(Pair):
    """An addition also reads the input of the depthwise convolution."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.writer(x))
        return self.reader(y) + y[..., 1:-1, 1:-1]  # type: ignore[no-any-return]


class Tied(Pair):
    """The first convolution runs twice."""

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(self.activation(self.writer(x))) + self.writer(x)[..., 1:-1, 1:-1]  # type: ignore[no-any-return]


def equalised(net: nn.Module) -> tuple[fx.GraphModule, Tensor, Tensor]:
    """Return the scaled module, and the outputs of it and of the original."""
    image = torch.ones(1, 1, 5, 5)
    module = copy.deepcopy(torch.export.export(net, (image,)).module())
    with torch.no_grad():
        expected = net(image)
        equalize_across_layers(module, [(image,)] * FEWEST_SCENES)  # scenes that confirm each other
        return module, module(image), expected


@pytest.mark.parametrize(
    ("activation", "factors"),
    [
        (nn.Identity(), [1.0, 2.0, 8.0, MOST]),
        (nn.ReLU(), [1.0, 2.0, 8.0, MOST]),
        # ReLU6 must not meet what has been seen: 4 may not grow, 2 may to 6 / HEADROOM.
        (nn.ReLU6(), [1.0, 6 / HEADROOM / 2, 6 / HEADROOM / 0.5, MOST]),
    ],
)
def test_channels_grow_as_far_as_they_may(activation: nn.Module, factors: list[float]) -> None:
    """Channels grow up to the largest channel or the clamp, and the outputs stay."""
    module, actual, expected = equalised(Pair(activation))
    weight = module.get_parameter("writer.weight").detach().flatten()
    torch.testing.assert_close(weight / REACH, torch.tensor(factors))
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    "net", [Branching(nn.ReLU()), Tied(nn.ReLU()), Pair(nn.Hardswish()), Pair(nn.Hardtanh())]
)
def test_channels_that_something_else_depends_on_stay(net: nn.Module) -> None:
    """Another reader, a shared weight or a non-linear activation prevents scaling."""
    module, actual, expected = equalised(net)
    torch.testing.assert_close(module.get_parameter("writer.weight").detach().flatten(), REACH)
    torch.testing.assert_close(actual, expected)


class Dense(Pair):
    """The reader is a dense convolution, whose weights share a scale among what they read."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__(activation)
        self.reader = nn.Conv2d(4, 3, 1)


class Residual(nn.Module):
    """Two convolutions write into one sum, which a convolution in the middle and one at the end read."""

    def __init__(self) -> None:
        super().__init__()
        self.writer, self.middle = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1)
        self.activation, self.second = nn.ReLU(), nn.Conv2d(4, 4, 1)
        self.reader = nn.Conv2d(4, 2, 1)
        with torch.no_grad():
            self.writer.weight.copy_(REACH.reshape(-1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.writer(x)
        return self.reader(y + self.second(self.activation(self.middle(y))))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("activation", "factors"),
    [
        (nn.Identity(), [1.0, 2.0**0.5, 8.0**0.5, MOST]),
        (nn.ReLU(), [1.0, 2.0**0.5, 8.0**0.5, MOST]),
        (nn.ReLU6(), [1.0, 2.0**0.5, 8.0**0.5, MOST]),
    ],
)
def test_channels_go_half_way_before_a_dense_convolution(activation: nn.Module, factors: list[float]) -> None:
    """A channel grows by the root of what would let it reach as far as the furthest; the outputs stay."""
    assert USUAL_DENSE == 0.5
    module, actual, expected = equalised(Dense(activation))
    weight = module.get_parameter("writer.weight").detach().flatten()
    torch.testing.assert_close(weight / REACH, torch.tensor(factors))
    torch.testing.assert_close(actual, expected)


def test_tensors_that_are_added_share_their_factors() -> None:
    """Both writers of a sum grow alike, both readers shrink alike, and the outputs stay."""
    torch.manual_seed(0)
    net = Residual()
    module, actual, expected = equalised(net)
    first, second, reader = (
        module.get_parameter(f"{name}.weight").detach() / net.get_parameter(f"{name}.weight").detach()
        for name in ("writer", "second", "reader")
    )
    grown = first.flatten()
    assert grown.max() > 1.5 * grown.min()
    for column in second.reshape(4, 4).T:  # each is divided by a factor of the tensor in the middle
        torch.testing.assert_close(column / column[0], grown / grown[0])
    torch.testing.assert_close(reader.reshape(2, 4) * grown, torch.ones(2, 4))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
