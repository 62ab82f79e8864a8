"""Networks that draw random numbers are refused, with the operator and the line."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from exporter.capture import program, randomness
from exporter.errors import CaptureError
from exporter.records import Model, TensorSpec


class Does(nn.Module):
    """A linear layer, and a function after it."""

    def __init__(self, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.then = nn.Linear(4, 4), then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.layer(x))


def drop_path(x: Tensor, keep: float = 0.999) -> Tensor:
    return x.div(keep) * x.new_empty((x.shape[0], 1)).bernoulli_(keep)


def seeded(x: Tensor) -> Tensor:
    torch.manual_seed(0)
    return x + torch.rand(4)


def own_generator(x: Tensor) -> Tensor:
    return x + torch.rand(4, generator=torch.Generator().manual_seed(1))


def depth(x: Tensor) -> Tensor:
    return x if random.random() < 0.999 else x * 0


def from_numpy(x: Tensor) -> Tensor:
    return x + float(np.random.normal())


def gumbel(x: Tensor) -> Tensor:
    return functional.gumbel_softmax(x)


def clock(x: Tensor) -> Tensor:
    return x + time.perf_counter_ns() % 1000


def rare(x: Tensor) -> Tensor:
    return torch.cond(x.sum() > 1e6, lambda t: functional.dropout(t, 0.5), lambda t: t * 2, (x,))  # type: ignore[no-any-return]


DRAWS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "dropout left on": (lambda x: functional.dropout(x, 0.3), "dropout"),
    "alpha dropout": (lambda x: functional.alpha_dropout(x, 0.2, training=True), "dropout"),
    "dropout2d": (lambda x: functional.dropout2d(x[..., None, None], 0.3).flatten(1), "dropout"),
    "leaky randomised": (lambda x: functional.rrelu(x, training=True), "rrelu"),
    "rand": (lambda x: x + torch.rand(4), "rand"),
    "rand_like": (lambda x: x * torch.rand_like(x), "rand"),
    "randn": (lambda x: x + torch.randn(1, 4), "randn"),
    "randn_like": (lambda x: x + 1e-2 * torch.randn_like(x), "randn"),
    "normal_": (lambda x: x + torch.empty(4).normal_(), "normal"),
    "uniform_": (lambda x: x + torch.empty(4).uniform_(), "uniform"),
    "gumbel": (gumbel, "gumbel_softmax"),
    "bernoulli": (lambda x: x * torch.bernoulli(torch.full((4,), 0.5)), "bernoulli"),
    "drop path that hardly ever drops": (drop_path, "bernoulli"),
    "a seed set in forward": (seeded, "rand"),
    "a generator of its own": (own_generator, "rand"),
    "attention with dropout": (
        lambda x: functional.scaled_dot_product_attention(x[None], x[None], x[None], dropout_p=0.4)[0] + x,
        "dropout",
    ),
    "Python's random, hardly ever": (depth, "Python's random module"),
    "NumPy's random": (from_numpy, "numpy.random"),
}


def line_of(function: Callable[[Tensor], Tensor]) -> range:
    first = function.__code__.co_firstlineno
    return range(first, first + 5)


@pytest.mark.parametrize("case", DRAWS)
def test_what_draws_is_refused_by_operator_and_line(case: str) -> None:
    """A network that draws is refused, however rarely it changes anything, and whoever seeds it."""
    then, operator = DRAWS[case]
    with pytest.raises(CaptureError, match="draws random numbers") as caught:
        randomness.check(Does(then).eval(), [torch.ones(1, 4)])
    assert caught.value.code == "EM-RANDOM"
    assert operator in caught.value.message
    file, _, rest = caught.value.message.partition(" at ")[2].partition(":")
    assert Path(file) == Path(__file__)
    assert int(rest.split()[0].rstrip(".")) in line_of(then)


@pytest.mark.parametrize(
    "draw", [torch.multinomial, torch.randint, torch.randperm], ids=["multinomial", "randint", "randperm"]
)
def test_drawn_integers_are_refused(draw: Callable[..., Tensor]) -> None:
    """Draws without extremes to force are found by different seeds."""
    weights = {
        torch.multinomial: (torch.ones(1000), 4),
        torch.randint: (0, 1000, (4,)),
        torch.randperm: (1000,),
    }
    net = Does(lambda x: x + draw(*weights[draw])[:4])
    with pytest.raises(CaptureError, match="draws random numbers"):
        randomness.check(net, [torch.ones(1, 4)])


def test_outputs_that_differ_for_no_known_reason_are_refused() -> None:
    """A network that reads a clock is refused, though no generator decides."""
    with pytest.raises(CaptureError, match="neither torch's"):
        randomness.check(Does(clock), [torch.ones(1, 4)])


def reseeded(x: Tensor) -> Tensor:
    random.seed(3)
    return x + random.random()


QUIET: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout in eval mode": nn.Dropout(0.5),
    "functional.dropout switched off": lambda x: functional.dropout(x, 0.5, training=False),
    "dropout of nothing": lambda x: functional.dropout(x, 0.0, training=True),
    "noise that counts nothing": lambda x: x + 0.0 * torch.randn_like(x),
    "noise that nobody reads": lambda x: (torch.rand(3), x)[1],
    "attention without dropout": lambda x: functional.scaled_dot_product_attention(x[None], x[None], x[None])[
        0
    ],
    "a constant drawn from a seed": reseeded,
    "rrelu in eval mode": nn.RReLU(),
}


@pytest.mark.parametrize("case", QUIET)
def test_what_draws_nothing_is_captured(case: str) -> None:
    """A random operator that no output depends on is accepted."""
    net = Does(QUIET[case]).eval()
    captured = program.capture(
        Model(net, "tests:net", (TensorSpec("x", (1, 4)),), None, 0), (np.ones((1, 4), np.float32),)
    )
    assert captured.outputs[0].shape == (1, 4)


def test_a_branch_that_the_example_does_not_take_is_refused() -> None:
    """A branch that the example does not take is found in the graph."""
    model = Model(Does(rare).eval(), "tests:net", (TensorSpec("x", (1, 4)),), None, 0)
    with pytest.raises(CaptureError, match="draws random numbers") as caught:
        program.capture(model, (np.ones((1, 4), np.float32),))
    assert Path(__file__).name in caught.value.message


def test_the_callers_generators_are_left_where_they_were() -> None:
    """The check leaves three global generators as they were: torch's, NumPy's and Python's."""
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    randomness.check(Does(lambda x: x * 2), [torch.ones(1, 4)])
    with pytest.raises(CaptureError):
        randomness.check(Does(from_numpy), [torch.ones(1, 4)])
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # type: ignore[index]
    assert before[2] == random.getstate()


@pytest.mark.parametrize("draw", [functional.dropout, gumbel, from_numpy], ids=["dropout", "gumbel", "numpy"])
def test_a_network_that_draws_is_not_taken_for_one_with_state(draw: Callable[[Tensor], Tensor]) -> None:
    """Random outputs of several samples look like something that earlier calls change."""
    model = Model(Does(draw).eval(), "net", (TensorSpec("x", (1, 4)),), None, 20)
    samples = [(np.full((1, 4), value, np.float32),) for value in (1.0, 2.0, 3.0)]
    with pytest.raises(CaptureError) as caught:
        program.capture(model, samples[0], others=samples[1:])
    assert caught.value.code == "EM-RANDOM"
