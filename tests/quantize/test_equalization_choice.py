"""Tests that channels are rescaled as far as scenes confirm that others set no factor."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from exporter.quantize.cross_layer_equalization import equalize_across_layers
from exporter.quantize.equalization_choice import EqualizedChannels, clearly_better_equalization

CHANNELS = 32
SCENES = 8
ACTIVATIONS = [nn.ReLU6(), nn.ReLU(), nn.Identity()]


STEADY = torch.logspace(0, -2, CHANNELS) * 3.5
"""A hundredfold difference between the reach of the first and of the last channel."""


class Net(nn.Module):
    """A layer that copies its input, an activation, and a depthwise or dense convolution that reads it."""

    def __init__(self, activation: nn.Module, groups: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.writer = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.activation = activation
        self.reader = nn.Conv2d(CHANNELS, CHANNELS, 1, groups=groups)
        nn.init.dirac_(self.writer.weight)
        nn.init.zeros_(self.writer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(self.activation(self.writer(x)))  # type: ignore[no-any-return]


def scene(number: int) -> Tensor:
    """Return a picture that excites two channels of its own; others are nearly idle."""
    generator = torch.Generator().manual_seed(number)
    reach = torch.full((CHANNELS,), 0.02)
    reach[2 * number : 2 * number + 2] = 4.0
    return reach.reshape(1, -1, 1, 1) * torch.rand(1, CHANNELS, 6, 6, generator=generator)


def similar(number: int, reach: Tensor) -> Tensor:
    """Return a picture in which each channel reaches as far as in every other such picture."""
    generator = torch.Generator().manual_seed(number)
    return reach.reshape(1, -1, 1, 1) * torch.rand(1, CHANNELS, 6, 6, generator=generator)


def factors(net: nn.Module, samples: Sequence[Tensor], scenes: Sequence[int] = ()) -> Tensor:
    """Return by what the channels of the first layer are multiplied."""
    module = copy.deepcopy(torch.export.export(net.eval(), (samples[0],)).module())
    equalize_across_layers(module, [(sample,) for sample in samples], scenes=scenes)
    return module.get_parameter("writer.weight").detach().flatten(1).sum(1)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("groups", [1, CHANNELS])
def test_channels_that_other_scenes_excite_stay(activation: nn.Module, groups: int) -> None:
    """What is idle in some scenes reaches far in others, so that idle channels are not enlarged."""
    torch.testing.assert_close(
        factors(Net(activation, groups), [scene(number) for number in range(SCENES)]), torch.ones(CHANNELS)
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_frames_of_a_scene_do_not_confirm_each_other(activation: nn.Module) -> None:
    """Each scene's second frame excites the channels of its first, which says nothing of other scenes."""
    frames = [scene(number) for number in range(SCENES) for _ in range(2)]
    net = Net(activation, CHANNELS)
    scenes = [place // 2 for place in range(len(frames))]
    torch.testing.assert_close(factors(net, frames, scenes), torch.ones(CHANNELS))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("count", "spread"), [(6, 100.0), (7, 1000.0), (8, 10.0)])
def test_channels_of_steady_reach_are_rescaled(activation: nn.Module, count: int, spread: float) -> None:
    """Channels whose reach differs by a constant factor come close to each other, from six scenes on."""
    reach = torch.logspace(0, 1, CHANNELS, base=1 / spread) * 3.5
    scaled = factors(Net(activation, CHANNELS), [similar(number, reach) for number in range(count)])
    before, after = (r.max() / r.min() for r in (reach, reach * scaled))
    assert after < 0.4 * before


@pytest.mark.parametrize("clamp", [1.0, 6.0])
@pytest.mark.parametrize("scenes", [[0], [0, 0, 0, 0], [0, 1], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]])
def test_few_scenes_enlarge_no_clamped_channel(clamp: float, scenes: list[int]) -> None:
    """They say little of how far channels reach on other scenes; without a clamp channels are enlarged."""
    samples = [similar(number, 0.1 * STEADY) for number in range(len(scenes))]
    clamped, free = (
        factors(Net(activation, CHANNELS), samples, scenes)
        for activation in (nn.Hardtanh(0.0, clamp), nn.ReLU())
    )
    torch.testing.assert_close(clamped, torch.ones(CHANNELS))
    assert free.max() > 10


def test_small_channels_grow_before_a_dense_layer_that_needs_them() -> None:
    """A dense layer whose weights are large where its inputs are small gets both even."""
    net = Net(nn.ReLU(), 1)
    with torch.no_grad():
        net.reader.weight.div_(STEADY.reshape(1, -1, 1, 1))
    scaled = factors(net, [similar(number, STEADY) for number in range(SCENES)])
    assert scaled.max() / scaled.min() > 8


def test_small_channels_stay_before_a_dense_layer_that_hardly_reads_them() -> None:
    """Where one channel has the largest weights, enlarging the others rounds their weights away."""
    samples = [similar(number, torch.tensor([0.0, *[0.3] * (CHANNELS - 1)])) for number in range(SCENES)]
    net = Net(nn.ReLU(), 1)
    with torch.no_grad():
        net.reader.weight.mul_(0.1)
        net.reader.weight[:, 0] = 1.0
    for sample in samples:
        sample[:, 0, 0, 0] = 4.0
    torch.testing.assert_close(factors(net, samples), torch.ones(CHANNELS))


@pytest.mark.parametrize(
    ("costs", "strength"),
    [
        ([1.0, 2.0, 10.0], 0.0),
        ([2.0, 1.0, 10.0], 0.5),
        ([9.0, 8.0, 1.0], 1.0),
        ([1.0, 2.0, 3.0], 1.0),  # the usual strength costs more, but not clearly
        ([0.01, 0.02, 0.1], 1.0),  # clearly more, of next to nothing
    ],
)
def test_the_usual_strength_stays_where_little_is_lost(costs: list[float], strength: float) -> None:
    """Another strength needs a much lower cost, and one that counts beside what other groups cost."""
    groups = [EqualizedChannels((), float("inf"), ()) for _ in range(2)]
    chosen = clearly_better_equalization(groups, [torch.tensor([9.0, 9.0, 5.0]), torch.tensor(costs)])
    assert chosen == [1.0, strength]


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        (scene, ""),
        (partial(similar, reach=STEADY), "int8: channels are rescaled in 1 of 1 groups of layers"),
    ],
)
def test_the_note_counts_the_rescaled_groups(pictures: Callable[[int], Tensor], expected: str) -> None:
    """The note says in how many groups of layers channels were enlarged; there is none where none were."""
    samples = [(pictures(number),) for number in range(SCENES)]
    module = copy.deepcopy(torch.export.export(Net(nn.ReLU(), CHANNELS).eval(), samples[0]).module())
    assert equalize_across_layers(module, samples) == expected


@pytest.mark.parametrize("groups", [1, CHANNELS])
def test_equal_channels_stay_as_they_are(groups: int) -> None:
    """Where rescaling makes no difference, no weight changes."""
    samples = [torch.full((1, CHANNELS, 6, 6), 2.0 + number) for number in range(4)]
    assert torch.equal(factors(Net(nn.ReLU6(), groups), samples), torch.ones(CHANNELS))
