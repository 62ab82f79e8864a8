"""Tests that channels which calibration did not excite are not taken for small ones."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, fx, nn

from exporter.quantize import (
    batch_norms,
    channel_spread,
    cross_layer_equalization,
    equalization_choice,
    graphs,
)
from exporter.quantize.channel_spread import ChannelSpread

CHANNELS = 6
USUAL = torch.tensor([3.0, 2.8, 3.2, 3.0, 2.9, 3.1])
"""How far the training data excites each channel, in deviations of 1."""
CALIBRATION = torch.tensor([3.0, 2.8, 3.2, 3.0, 2.9, 0.02])
"""What calibration shows: nothing of the last channel."""


class Net(nn.Module):
    """A convolution with a batch norm that knows the training data, an activation, and a reader."""

    def __init__(self, activation: nn.Module, norm: nn.Module, groups: int) -> None:
        super().__init__()
        self.writer = nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False)
        self.norm = norm
        self.activation = activation
        self.reader = nn.Conv2d(CHANNELS, CHANNELS, 1, groups=groups)
        nn.init.dirac_(self.writer.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(self.activation(self.norm(self.writer(x))))  # type: ignore[no-any-return]


def image(reach: Tensor) -> Tensor:
    return reach.reshape(1, -1, 1, 1) * torch.linspace(0, 1, 16).reshape(1, 1, 4, 4)


def equalised(net: nn.Module, informed: bool) -> fx.GraphModule:
    """Return the module after equalisation on the calibration image."""
    sample = (image(CALIBRATION),)
    module = copy.deepcopy(torch.export.export(net.eval(), sample).module())
    spreads = channel_spread.channel_spread_of_norms(module) if informed else {}
    batch_norms.fold_batch_norms(module)
    cross_layer_equalization.equalize_across_layers(
        module, [sample] * equalization_choice.FEWEST_SCENES, spreads
    )
    return module


def writer_factors(net: nn.Module) -> Tensor:
    """Return by what the channels of the first convolution, which copies its input, were multiplied."""
    weight = graphs.graph_attribute(equalised(net, True), "writer.weight")
    return weight.detach().flatten(1).sum(1)


@pytest.mark.parametrize("groups", [1, CHANNELS])
def test_a_channel_that_calibration_left_idle_is_not_clipped(groups: int) -> None:
    """A clamp cuts nothing off on an image that excites it; without the norm's word it does."""
    net = Net(nn.ReLU6(), nn.BatchNorm2d(CHANNELS), groups)
    usual = image(USUAL)
    with torch.no_grad():
        error = {told: (equalised(net, told)(usual) - net(usual)).norm() for told in (True, False)}
    assert error[True] < 1e-4 < error[False]


@pytest.mark.parametrize("activation", [nn.ReLU6(), nn.ReLU(), nn.Identity()])
def test_an_idle_channel_gets_the_factor_of_a_used_one(activation: nn.Module) -> None:
    """The idle channel's weights grow as little as those of channels that calibration shows whole."""
    factors = writer_factors(Net(activation, nn.BatchNorm2d(CHANNELS), CHANNELS))
    assert factors.max() / factors.min() < 1.3


def test_a_channel_without_a_norm_reaches_as_far_as_was_seen() -> None:
    """Where nothing is known of the training data, calibration decides."""
    factors = writer_factors(Net(nn.ReLU(), nn.Identity(), CHANNELS))
    assert factors[-1] / factors[2] == pytest.approx(equalization_choice.MOST)


def test_a_sum_spreads_as_its_terms_do() -> None:
    """Means add up, and so do variances."""
    graph = fx.Graph()
    terms = [graph.create_node("call_function", torch.ops.aten.conv2d.default, name=n) for n in ("a", "b")]
    total = graph.call_function(torch.ops.aten.add.Tensor, tuple(terms))
    known = {"a": ChannelSpread(torch.tensor([1.0]), torch.tensor([3.0]))}
    assert channel_spread.channel_spread_of_tensor(total, known) is None
    known["b"] = ChannelSpread(torch.tensor([-2.0]), torch.tensor([4.0]))
    mean, deviation = channel_spread.channel_spread_of_tensor(total, known) or (None, None)
    assert (mean, deviation) == (torch.tensor([-1.0]), torch.tensor([5.0]))


def test_no_channel_is_taken_to_reach_less_than_was_seen() -> None:
    """A channel beyond what its norm says keeps its reach."""
    graph = fx.Graph()
    tensor = graph.create_node("call_function", torch.ops.aten.relu.default)
    seen, known = torch.tensor([1.0, 1.0, 9.0]), ChannelSpread(torch.zeros(3), torch.ones(3))
    assert channel_spread.reach_by_channel_spread(tensor, seen, known).tolist() == [1.0, 1.0, 9.0]
