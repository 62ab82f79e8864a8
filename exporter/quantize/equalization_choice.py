"""Choose how far each group of channels is rescaled, by what that costs the outputs on held-out scenes.

Rescaling makes the rounding of small channels finer. It costs where a channel reaches further on other scenes
than on those that set its factor: what was far from a clamp (ReLU6) or from the end of the int8 range is then
clipped. It also costs where a dense convolution reads the channels: the columns of its weights that become
smaller are rounded more coarsely. EfficientNet-Lite0 has channels that few scenes excite: rescaled by what 16
scenes show, the float network itself keeps no more than 20 dB of its outputs on other scenes.

So each fold of scenes is judged with the factors that follow from the other folds, for several strengths: the
errors of rounding, clipping and weights on it are weighed by the gradients of the outputs (`error_probes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from exporter.quantize.error_probes import Probe, make_error_probes
from exporter.quantize.graphs import spread_graph_samples
from exporter.quantize.scene_folds import folds_of_scenes

MOST = 16.0
"""The largest factor: channels that are nearly unused stay small."""

STRENGTHS = (0.0, 0.5, 1.0)
"""The powers to try of what would let each channel reach as far as the furthest; 0 rescales nothing."""

USUAL, USUAL_DENSE = 1.0, 0.5
"""The strengths that stay unless another is clearly better; the second where a dense convolution reads the
channels, whose weights a larger factor would cost too much."""

CLEARLY = 4.0
"""How many times the least cost the usual strength may have: costs on a few samples are estimates. What harms
EfficientNet-Lite0 costs it 14 to 230 times as much."""

SHARE = 0.1
"""The share of all groups' least costs that the usual strength may cost more in one group."""

WEIGHTS_LEFT = 0.25
"""The share of the error of weights, each rounded to the nearest step, that is left when their errors cancel
(`weight_rounding`): the median of MobileNetV2's dense layers."""

HEADROOM = 1.5
"""A clamped channel may grow until its reach, times this, meets the clamp."""

PARTS = (1.0, 0.6, 0.35)
"""The parts of a tensor's reach to try as its range: a range need not hold everything, rescaled or not."""

FEWEST_SCENES = 6
"""Clamped channels are left alone with fewer scenes: held-out ones are too few to show what goes wrong.
MobileNetV2 has 11.5, 16.1 and 19.6 dB rescaled by 1, 2 and 4 photos, and 19.7, 18.5 and 21.2 dB without."""

MOST_SAMPLES = 8
"""How many samples are judged in all."""

Reach = Callable[[fx.Node, Sequence[int]], Tensor]
"""Returns how far each channel of a tensor reaches, by the samples at some places."""


@dataclass(frozen=True, eq=False)
class EqualizedChannels:
    """Channels that are rescaled alike in several tensors."""

    tensors: Sequence[fx.Node]
    """The tensors that int8 rounds."""
    clamp: float
    """The value at which they are clamped; infinite without a clamp."""
    weights: Sequence[fx.Node]
    """The weights of dense convolutions that read them."""

    def usual_strength(self) -> float:
        """Return the strength that other strengths are compared with."""
        return USUAL_DENSE if self.weights else USUAL

    def unjudged_strength(self) -> float:
        """Return the strength where too few scenes judge: a clamp would cut off what others reach."""
        return self.usual_strength() if self.clamp == float("inf") else 0.0

    def factor(self, reaches: Sequence[Tensor], strength: float) -> Tensor:
        """Return each channel's factor.

        Args:
            reaches: The reach of each channel, tensor by tensor.
            strength: The power of what would let each channel reach as far as the furthest.
        """
        tiny = torch.finfo(reaches[0].dtype).tiny
        shares = [(reach / reach.max().clamp_min(tiny)).clamp_min(1 / MOST**2) for reach in reaches]
        wanted = torch.stack(shares).log().mean(0).neg().mul(strength).exp()
        furthest = torch.stack(list(reaches)).amax(0).clamp_min(tiny)
        return torch.minimum(wanted, self.clamp / (HEADROOM * furthest)).clamp(1.0, MOST)


def choose_equalization_factors(
    module: fx.GraphModule,
    groups: Sequence[EqualizedChannels],
    samples: Sequence[tuple[Tensor, ...]],
    scenes: Sequence[int],
    reach: Reach,
) -> list[Tensor]:
    """Return the factors of each group's channels.

    Args:
        module: The float module, before anything is rescaled.
        groups: The groups.
        samples: One call of the model each.
        scenes: The scene of each sample.
        reach: How far channels reach.
    """
    strengths = _choose_equalization_strengths(module, groups, samples, scenes, reach)
    everywhere = range(len(samples))
    return [
        group.factor([reach(tensor, everywhere) for tensor in group.tensors], strength)
        for group, strength in zip(groups, strengths, strict=True)
    ]


def _choose_equalization_strengths(
    module: fx.GraphModule,
    groups: Sequence[EqualizedChannels],
    samples: Sequence[tuple[Tensor, ...]],
    scenes: Sequence[int],
    reach: Reach,
) -> list[float]:
    if len(set(scenes)) < FEWEST_SCENES or not groups:
        return [group.unjudged_strength() for group in groups]
    folds = folds_of_scenes(scenes)
    trials = [_EqualizationTrial(group, _reaches_without_folds(group, folds, reach)) for group in groups]
    fold_of = {place: number for number, fold in enumerate(folds) for place in fold}
    judged = spread_graph_samples(range(len(samples)), MOST_SAMPLES)
    nodes = [node for group in groups for node in (*group.tensors, *group.weights)]
    probes = make_error_probes(module, nodes, [samples[place] for place in judged])
    for place, probes_here in zip(judged, probes, strict=True):
        for trial in trials:
            trial.judge(probes_here, fold_of[place])
    return clearly_better_equalization(groups, [trial.costs() for trial in trials])


def clearly_better_equalization(groups: Sequence[EqualizedChannels], costs: Sequence[Tensor]) -> list[float]:
    """Return the strength of each group: the usual one, unless the cheapest is clearly better."""
    least_share = SHARE * sum(float(of_group.min()) for of_group in costs)
    strengths = []
    for group, of_group in zip(groups, costs, strict=True):
        usual, least = float(of_group[STRENGTHS.index(group.usual_strength())]), float(of_group.min())
        better = usual > CLEARLY * least and usual - least > least_share
        strengths.append(STRENGTHS[int(of_group.argmin())] if better else group.usual_strength())
    return strengths


def _reaches_without_folds(
    group: EqualizedChannels, folds: Sequence[Sequence[int]], reach: Reach
) -> list[list[Tensor]]:
    """Return, for each fold, the reach of each tensor's channels by the samples of the other folds."""
    others = [[place for fold in folds if fold is not held_out for place in fold] for held_out in folds]
    return [[reach(tensor, places) for tensor in group.tensors] for places in others]


class _EqualizationTrial:
    """The cost of each strength for a group, summed over held-out samples."""

    def __init__(self, group: EqualizedChannels, reaches: Sequence[Sequence[Tensor]]) -> None:
        self._group = group
        self._reaches = reaches
        """The reaches that hold for each fold's samples, tensor by tensor."""
        self._factors = [[group.factor(here, strength) for strength in STRENGTHS] for here in reaches]
        self._tensor_costs = torch.zeros(len(group.tensors), len(STRENGTHS), len(PARTS))
        self._weight_costs = torch.zeros(len(STRENGTHS))

    def judge(self, probes: Mapping[fx.Node, Probe], fold: int) -> None:
        """Add the costs for one sample of a fold."""
        for number, factor in enumerate(self._factors[fold]):
            for place, tensor in enumerate(self._group.tensors):
                if tensor in probes:
                    reach = float((self._reaches[fold][place] * factor).max())
                    self._tensor_costs[place, number] += self._rounding_costs(probes[tensor], factor, reach)
            for weight in self._group.weights:
                if weight in probes:
                    self._weight_costs[number] += _equalized_weight_cost(probes[weight], factor)

    def costs(self) -> Tensor:
        """Return the cost of each strength, each tensor with its best range."""
        return self._tensor_costs.amin(2).sum(0) + WEIGHTS_LEFT * self._weight_costs

    def _rounding_costs(self, probe: Probe, factor: Tensor, reach: float) -> Tensor:
        """Return the cost of rounding a rescaled tensor to int8, for each part of its reach."""
        value = probe.value
        factor = factor.reshape(-1, *[1] * (value.dim() - 2))
        low, high = (-128, 127) if (value < 0).any() else (0, 255)
        costs = []
        for part in PARTS:
            end = max(min(reach * part, self._group.clamp), torch.finfo(value.dtype).tiny)
            steps_per_value = factor * (high / end)
            steps = (value * steps_per_value).round_().clamp_(low, high)
            costs.append(probe.cost(steps.div_(steps_per_value).sub_(value)))
        return torch.tensor(costs)


def _equalized_weight_cost(probe: Probe, factor: Tensor) -> float:
    """Return the expected cost of rounding a weight, (outputs, inputs, ...), whose inputs are rescaled.

    A weight's error is up to half its output's step, times the factor of the input that it multiplies.
    """
    weight = probe.value
    factor = factor.reshape(-1, *[1] * (weight.dim() - 2))
    steps = (weight / factor).flatten(1).abs().amax(1).reshape(-1, *[1] * (weight.dim() - 1)) / 127
    gradients = probe.gradients.reshape(-1, *weight.shape).square().mean(0)
    return float((gradients * (factor * steps).square()).sum() / 12)
