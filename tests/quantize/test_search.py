"""From what each activation costs to candidates."""

from __future__ import annotations

import itertools

import pytest

from exporter.quantize import int8, mixed, search
from exporter.quantize.search import Activation, candidates
from tests.nets import quantized, samples

# a -> x -> b -> y -> c: x is loud, y is not.
CHAIN = (
    Activation(0.01, frozenset({"a"})),
    Activation(0.1, frozenset({"a", "b"})),
    Activation(0.001, frozenset({"b", "c"})),
)


def test_what_removes_most_noise_per_second_comes_first() -> None:
    """The loud activation goes first; of two alike, the one whose operators are cheap."""
    assert candidates(CHAIN, {"a": 1.0, "b": 1.0, "c": 1.0})[0] == {"a", "b"}
    twins = (Activation(0.1, frozenset({"slow"})), Activation(0.1, frozenset({"fast"})))
    assert candidates(twins, {"slow": 2.0, "fast": 1.0})[0] == {"fast"}


def test_candidates_grow_and_each_is_better_by_a_step() -> None:
    """A later one keeps all that an earlier one keeps; little gains make no candidate of their own."""
    quiet = tuple(Activation(0.001, frozenset({f"q{i}"})) for i in range(20))
    found = candidates((*CHAIN, *quiet), {})
    assert all(before < after for before, after in itertools.pairwise(found))
    assert len(found) <= 8


def test_what_cannot_be_improved_has_no_candidates() -> None:
    """A program without int8 operators."""
    assert candidates((), {}) == ()


@pytest.mark.slow
def test_an_activations_operators_are_those_around_it() -> None:
    """The residual addition reads the stem's and the pointwise convolution's results."""
    made = quantized("cnn")
    calls = [int8.tensors(sample) for sample in samples("cnn", 0, 4)]
    activations, seconds = search.measure(made.module, made.float_weights, calls)
    around = {activation.operators for activation in activations}
    assert frozenset({"conv2d", "conv2d_1", "add"}) in around
    assert frozenset({"conv2d_2", "add"}) in around
    assert all(activation.noise > 0 for activation in activations)
    assert {operator.name for operator in mixed.operators(made.module)} <= set(seconds)
