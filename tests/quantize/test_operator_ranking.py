"""Tests of candidates, which follow from each activation's cost."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from exporter.quantize import int8_recipe, mixed_precision, operator_ranking
from exporter.quantize.operator_ranking import RankedActivation, rank_operators
from tests.nets import quantized, samples

# a -> x -> b -> y -> c: x is loud, y is not.
CHAIN = (
    RankedActivation(0.01, frozenset({"a"})),
    RankedActivation(0.1, frozenset({"a", "b"})),
    RankedActivation(0.001, frozenset({"b", "c"})),
)


def test_what_removes_most_noise_per_second_comes_first() -> None:
    """The loudest activation comes first; of two alike, the one with cheap operators."""
    assert rank_operators(CHAIN, {"a": 1.0, "b": 1.0, "c": 1.0})[0].float_ops == ("a", "b")
    twins = (RankedActivation(0.1, frozenset({"slow"})), RankedActivation(0.1, frozenset({"fast"})))
    assert rank_operators(twins, {"slow": 2.0, "fast": 1.0})[0].float_ops == ("fast",)


def test_candidates_grow_and_each_is_better_by_a_step() -> None:
    """Each candidate contains the one before; small gains make no candidate."""
    quiet = tuple(RankedActivation(0.001, frozenset({f"q{i}"})) for i in range(20))
    mixes = rank_operators((*CHAIN, *quiet), {})
    assert all(set(before.float_ops) < set(after.float_ops) for before, after in itertools.pairwise(mixes))
    assert len(mixes) < len(quiet)


def test_candidates_are_steps_apart_and_never_all() -> None:
    """Candidates gain at least 0.4 dB each, and none has everything in float."""
    loud, quiet = RankedActivation(1.0, frozenset({"loud"})), [frozenset({f"q{i}"}) for i in range(20)]
    mixes = rank_operators((loud, *(RankedActivation(0.05, name) for name in quiet)), {})
    # After n operators 10 log10(2 / (1.05 - n / 20)): 3.0, 3.2, 3.5, 3.7, 4.0, 4.3, 4.6, 4.9, 5.2, …
    assert [len(mix.float_ops) for mix in mixes] == [1, 3, 5, 7, 9, *range(11, 21)]
    assert [mix.gain_db for mix in mixes[:2]] == pytest.approx([3.0103, 3.4679], abs=1e-3)


def test_what_is_in_float_already_costs_nothing_more() -> None:
    """An operator that is already in float adds nothing to the price of the second step."""
    first, shared, other = (frozenset(names) for names in ({"slow"}, {"slow", "quick"}, {"other"}))
    activations = (
        RankedActivation(1.0, first),
        RankedActivation(0.4, shared),
        RankedActivation(0.4, other),
    )
    mixes = rank_operators(activations, {"slow": 1.0, "quick": 1.0, "other": 1.5})
    assert [set(mix.float_ops) for mix in mixes[:2]] == [first, shared]


def test_what_cannot_be_improved_has_no_candidates() -> None:
    """A program without int8 operators has no candidates."""
    assert rank_operators((), {}) == ()


@pytest.mark.slow
def test_an_activations_operators_are_those_around_it() -> None:
    """The residual addition reads the results of the stem and of the pointwise convolution."""
    made = quantized("cnn")
    calls = [int8_recipe.int8_recipe_tensors(sample) for sample in samples("cnn", 0, 4)]
    activations, prices = operator_ranking.measure_for_operator_ranking(
        made.module, made.float_weights, calls
    )
    around = {activation.operators for activation in activations}
    assert frozenset({"conv2d", "conv2d_1", "add"}) in around
    assert frozenset({"conv2d_2", "add"}) in around
    assert frozenset({"conv2d"}) in around  # the image's, whose writer is no operator
    assert all(activation.noise > 0 for activation in activations)
    assert {operator.name for operator in mixed_precision.mixed_precision_operators(made.module)} <= set(
        prices
    )


def noises(weights: dict[str, Tensor], calls: list[tuple[Tensor, ...]]) -> list[float]:
    return [
        a.noise
        for a in operator_ranking.measure_for_operator_ranking(quantized("cnn").module, weights, calls)[0]
    ]


@pytest.mark.slow
def test_one_activation_is_rounded_at_a_time() -> None:
    """A tensor that only a layer of zeros reads costs nothing."""
    calls = [int8_recipe.int8_recipe_tensors(sample) for sample in samples("cnn", 0, 4)]
    weights = quantized("cnn").float_weights
    measured = noises(weights, calls)
    assert len(set(measured)) == len(measured)
    silent = noises({**weights, "conv2d_2": torch.zeros_like(weights["conv2d_2"])}, calls)
    assert 0.0 in silent
    assert 0.0 not in measured


@pytest.mark.slow
def test_a_few_samples_are_spread_over_all() -> None:
    """Four of eight samples are one of each pair."""
    calls = [int8_recipe.int8_recipe_tensors(sample) for sample in samples("cnn", 0, 8)]
    measured = noises(quantized("cnn").float_weights, calls)
    counted = []
    for changed in range(8):
        others = [(call[0] * 3,) if i == changed else call for i, call in enumerate(calls)]
        if noises(quantized("cnn").float_weights, others) != measured:
            counted.append(changed // 2)
    assert counted == [0, 1, 2, 3]


def test_time_and_weights_make_the_price() -> None:
    """Shares of time and weights count equally; without weights only time counts."""
    prices = operator_ranking._prices_for_operator_ranking(
        {"conv": 3.0, "add": 1.0}, {"conv": 10.0, "head": 30.0}
    )
    assert prices == {"conv": 1.0, "add": 0.25, "head": 0.75}
