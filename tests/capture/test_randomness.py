"""Networks that draw random numbers are refused, with the operator and the line."""

from __future__ import annotations

import itertools
import random
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from exporter.capture import captured_program, randomness
from exporter.errors import CaptureError
from exporter.records import Model, TensorSpec
from tests.odd_nets import Does


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


COUNT = itertools.count()


def counted(x: Tensor) -> Tensor:
    return x + next(COUNT)


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
        randomness.check_randomness(Does(then).eval(), [torch.ones(1, 4)])
    assert caught.value.code == "EM-RANDOM"
    assert operator in caught.value.message
    file, _, rest = caught.value.message.partition(" at ")[2].partition(":")
    assert Path(file) == Path(__file__)
    assert int(rest.split()[0].rstrip(".")) in line_of(then)


@pytest.mark.parametrize(
    "draw", [torch.multinomial, torch.randint, torch.randperm], ids=["multinomial", "randint", "randperm"]
)
def test_drawn_integers_are_refused(draw: Callable[..., Tensor]) -> None:
    """Integers are found like other draws."""
    weights = {
        torch.multinomial: (torch.ones(1000), 4),
        torch.randint: (0, 1000, (4,)),
        torch.randperm: (1000,),
    }
    net = Does(lambda x: x + draw(*weights[draw])[:4])
    with pytest.raises(CaptureError, match="draws random numbers"):
        randomness.check_randomness(net, [torch.ones(1, 4)])


def rare_branch(x: Tensor) -> Tensor:
    return x if torch.randint(0, 1000, (1,)).item() > 0 else x * 0


def old_drop_path(x: Tensor, keep: float = 0.9999) -> Tensor:
    return x.div(keep) * (keep + torch.rand(x.shape[0], 1)).floor()


def gate(distribution: Callable[[], Tensor], limit: float) -> Callable[[Tensor], Tensor]:
    return lambda x: x * (distribution() > limit)


def joint(x: Tensor) -> Tensor:
    return x * ((torch.rand(1) > 0.99) & (torch.rand(1) < 0.01))


def raises(x: Tensor) -> Tensor:
    if torch.rand(1).item() > 0.9999:
        raise ValueError("too much noise")
    return x


RARE: dict[str, Callable[[Tensor], Tensor]] = {
    "normal, beyond 2.9": lambda x: x * (torch.randn_like(x) < 2.9),
    "normal, below -4.5": lambda x: x * (torch.randn(4) > -4.5),
    "normal with a mean and a width": gate(lambda: torch.normal(torch.zeros(4), 2.0), 9.0),
    "one uniform number": lambda x: x * torch.where(torch.rand(()) < 1e-5, 1.5, 1.0),
    "the floor of a uniform number": old_drop_path,
    "a narrow band of uniform numbers": lambda x: x * ((torch.rand(4) - 0.5).abs() > 0.001),
    "uniform_ between limits": gate(lambda: torch.empty(4).uniform_(-2, 3), 2.999),
    "two draws at once": joint,
    "an error, hardly ever": raises,
    "a branch of Python": rare_branch,
    "randint's first": lambda x: x * (torch.randint(0, 1000, (4,)) > 0),
    "randint's last": gate(lambda: torch.randint(-50, 1000, (4,)), 998),
    "random_": gate(lambda: torch.empty(4).random_(0, 5000), 4998),
    "randint_like": gate(lambda: torch.randint_like(torch.ones(4), 3, 2000), 1998),
    "a coin, hardly ever": gate(lambda: torch.empty(4).bernoulli_(1e-4), 0.5),
    "dropout of little": lambda x: functional.dropout(x, 1e-4),
    "randperm": lambda x: x * (torch.randperm(1000)[0] > 0),
    "multinomial": lambda x: x + torch.multinomial(torch.tensor([1.0, 1e4]), 4, replacement=True),
    "multinomial without replacement": lambda x: x + torch.multinomial(torch.tensor([1.0, 1e4]), 1)[0],
    "exponential_": gate(lambda: torch.empty(4).exponential_(2.0), 6.0),
    "cauchy_": gate(lambda: torch.empty(4).cauchy_(), 1e4),
    "log_normal_": gate(lambda: torch.empty(4).log_normal_(), 100.0),
    "geometric_": gate(lambda: torch.empty(4).geometric_(0.5), 15.0),
    "poisson": gate(lambda: torch.poisson(torch.full((4,), 0.01)), 0.5),
    "binomial": gate(lambda: torch.binomial(torch.full((4,), 10.0), torch.full((4,), 0.1)), 8.0),
    "a gamma distribution": gate(lambda: torch.distributions.Gamma(2.0, 1.0).sample(), 25.0),
    "a dirichlet distribution": gate(lambda: torch.distributions.Dirichlet(torch.ones(4)).sample(), 0.99),
    "randn in float16": gate(lambda: torch.randn(4, dtype=torch.float16), 4.0),
}


@pytest.mark.parametrize("case", RARE)
def test_a_rare_draw_is_refused_by_operator_and_line(case: str) -> None:
    """A draw that changes the outputs once in thousands of calls is refused like one that always does."""
    with pytest.raises(
        CaptureError, match=r"draws random numbers in forward: aten\..* at .*test_randomness\.py"
    ):
        randomness.check_randomness(Does(RARE[case]).eval(), [torch.ones(1, 4)])


NUMPY, PYTHON = np.random.default_rng(5), random.Random(5)


class Holds(nn.Module):
    """A network with a generator among its attributes."""

    def __init__(self, generator: np.random.Generator | random.Random) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        return x if self.generator.random() > 1e-3 else x * 0


def in_closure() -> Callable[[Tensor], Tensor]:
    state = np.random.RandomState(5)
    return lambda x: x if state.rand() > 1e-3 else x * 0


def through_a_helper(x: Tensor) -> Tensor:
    return helper(x)


def helper(x: Tensor) -> Tensor:
    return x if NUMPY.random() > 1e-3 else x * 0


def hasty(x: Tensor) -> Tensor:
    start = time.perf_counter()
    if time.perf_counter() - start > 30:
        raise TimeoutError("too slow")
    return x


OUTSIDE: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "NumPy's generator, a global": (
        lambda x: x if NUMPY.random() > 1e-3 else x * 0,
        "numbers in forward: a numpy.random.Generator at",
    ),
    "NumPy's generator, in a helper": (through_a_helper, "numbers in forward: a numpy.random.Generator at"),
    "NumPy's generator, an attribute": (
        Holds(np.random.default_rng(5)),
        "numbers in forward: a numpy.random.Generator at",
    ),
    "Python's generator, a global": (
        lambda x: x if PYTHON.random() > 1e-3 else x * 0,
        "numbers in forward: a random.Random at",
    ),
    "Python's generator, an attribute": (Holds(random.Random(5)), "numbers in forward: a random.Random at"),
    "NumPy's old generator, in a closure": (
        in_closure(),
        "numbers in forward: a numpy.random.RandomState at",
    ),
    "a new generator without a seed": (
        lambda x: x if np.random.default_rng().random() > 1e-3 else x * 0,
        "the system's random bytes at",
    ),
    "a new generator of Python without a seed": (
        lambda x: x if random.Random().random() > 1e-3 else x * 0,
        "a random.Random without a seed at",
    ),
    "the system's random bytes": (
        lambda x: x if secrets.randbelow(1000) else x * 0,
        "the system's random bytes at",
    ),
    "a clock": (
        lambda x: x + time.perf_counter_ns() % 1000,
        "reads a clock in forward: time.perf_counter_ns at",
    ),
    "a clock, once a day": (
        lambda x: x + (time.time_ns() // 10**9 // 86400) % 60,
        "reads a clock in forward: time.time_ns at",
    ),
    "a clock that ends the call": (hasty, "reads a clock in forward: time.perf_counter at"),
    "a clock by its own name": (
        lambda x: x + int(monotonic()) // 60,
        "reads a clock in forward: time.monotonic at",
    ),
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_draws_outside_torch_are_refused_by_source_and_line(case: str) -> None:
    """A network that draws with a generator of its own, or whose outputs depend on a clock, is refused."""
    then, message = OUTSIDE[case]
    with pytest.raises(CaptureError, match=f"{message} .*test_randomness") as caught:
        randomness.check_randomness(Does(then).eval(), [torch.ones(1, 4)])
    assert caught.value.code == "EM-RANDOM"


def test_clocks_and_generators_are_left_as_they_were() -> None:
    """The check puts back the clocks, and the states of the generators that the network refers to."""
    clocks = time.time, time.perf_counter_ns, monotonic, random.Random.seed
    before = NUMPY.bit_generator.state, PYTHON.getstate()
    for then, _ in OUTSIDE.values():
        with pytest.raises(CaptureError):
            randomness.check_randomness(Does(then).eval(), [torch.ones(1, 4)])
    assert clocks == (time.time, time.perf_counter_ns, monotonic, random.Random.seed)
    assert before == (NUMPY.bit_generator.state, PYTHON.getstate())


def test_a_debugger_keeps_its_tracer() -> None:
    """To find the line of a draw takes a trace function; a debugger's, or coverage's, is put back."""

    def tracer(frame: object, event: str, argument: object) -> None:
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        with pytest.raises(CaptureError, match="test_randomness"):
            randomness.check_randomness(Does(from_numpy).eval(), [torch.ones(1, 4)])
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)


def test_outputs_that_differ_for_no_known_reason_are_refused() -> None:
    """A network that counts its calls outside itself is refused, though no generator decides."""
    with pytest.raises(CaptureError, match="neither an operator of torch"):
        randomness.check_randomness(Does(counted), [torch.ones(1, 4)])


def reseeded(x: Tensor) -> Tensor:
    random.seed(3)
    return x + random.random()


def anew(x: Tensor) -> Tensor:
    return x + float(np.random.default_rng(3).normal()) + random.Random(3).random()


def timed(x: Tensor) -> Tensor:
    start = time.perf_counter()
    y = x * 2
    SECONDS.append(time.perf_counter() - start)
    return y


SECONDS: list[float] = []


class Reseeds(nn.Module):
    """A network that makes its generator anew in every call."""

    def forward(self, x: Tensor) -> Tensor:
        self.generator = np.random.default_rng(3)
        return x + float(self.generator.normal())


def written(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    out[:, :2], out[:, 2:] = x[:, 2:], x[:, :2]
    return out


UNWRITTEN: dict[str, Callable[[Tensor], Tensor]] = {
    "empty": lambda x: x + torch.empty(4),
    "empty_like, times zero": lambda x: x + 0 * torch.empty_like(x),
    "new_empty, of which a half is written": lambda x: (e := x.new_empty(1, 4), e[:, :2].fill_(1), x + e)[2],
    "empty_strided": lambda x: x * torch.empty_strided((1, 4), (4, 1)),
    "empty, whole numbers": lambda x: x + torch.empty(4, dtype=torch.int64),
}


@pytest.mark.parametrize("case", UNWRITTEN)
def test_memory_that_nothing_has_written_is_refused(case: str) -> None:
    """What an earlier call left in memory is no part of a network, be it zeros most of the time."""
    then = UNWRITTEN[case]
    with pytest.raises(
        CaptureError, match=r"reads memory that nothing has written in forward: aten.*empty"
    ) as e:
        randomness.check_randomness(Does(then).eval(), [torch.ones(1, 4)])
    assert e.value.code == "EM-RANDOM"
    assert f"{Path(__file__)}:{then.__code__.co_firstlineno}" in e.value.message


QUIET: dict[str, Callable[[Tensor], Tensor]] = {
    "memory that is filled": lambda x: x + torch.empty(4).fill_(2.0),
    "memory that is written in parts": written,
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
    "generators made from a seed": anew,
    "an attribute made from a seed": Reseeds(),
    "a generator that forward does not use": lambda x: x * (NUMPY is not None),
    "a clock around a layer": timed,
    "a coin that always falls on one side": lambda x: x * torch.empty(4).bernoulli_(1.0),
    "an integer of one value": lambda x: x + torch.randint(3, 4, (4,)),
    "a category without rivals": lambda x: x + torch.multinomial(torch.tensor([0.0, 1.0, 0.0]), 4, True),
    "noise without a width": lambda x: x + torch.normal(torch.zeros(4), 0.0),
    "a permutation that is sorted again": lambda x: x + torch.randperm(4).sort().values,
}


@pytest.mark.parametrize("case", QUIET)
def test_what_draws_nothing_is_captured(case: str) -> None:
    """A random operator that no output depends on is accepted."""
    net = Does(QUIET[case]).eval()
    captured = captured_program.capture_program(
        Model(net, "tests:net", (TensorSpec("x", (1, 4)),), None, 0), (np.ones((1, 4), np.float32),)
    )
    assert captured.outputs[0].shape == (1, 4)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("layer", [nn.LSTM(4, 4, 2, dropout=0.5), nn.TransformerEncoderLayer(4, 2)])
def test_a_traced_network_with_dropout_in_eval_mode_is_accepted(layer: nn.Module) -> None:
    """The check copies a TorchScript network, whose shared constants are compared while it is saved."""
    traced = torch.jit.trace(nn.Sequential(layer).eval(), torch.ones(1, 4))  # type: ignore[no-untyped-call]
    randomness.check_randomness(traced, [torch.ones(1, 4)])


def test_a_branch_that_the_example_does_not_take_is_refused() -> None:
    """A branch that the example does not take is found in the graph."""
    model = Model(Does(rare).eval(), "tests:net", (TensorSpec("x", (1, 4)),), None, 0)
    with pytest.raises(CaptureError, match="draws random numbers") as caught:
        captured_program.capture_program(model, (np.ones((1, 4), np.float32),))
    assert "odd_nets.py" in caught.value.message


def test_the_callers_generators_are_left_where_they_were() -> None:
    """The check leaves three global generators as they were: torch's, NumPy's and Python's."""
    still, drawing = Does(lambda x: x * 2), Does(from_numpy)  # their constructor seeds torch
    torch.rand(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    randomness.check_randomness(still, [torch.ones(1, 4)])
    with pytest.raises(CaptureError):
        randomness.check_randomness(drawing, [torch.ones(1, 4)])
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # type: ignore[index]
    assert before[2] == random.getstate()


@pytest.mark.parametrize("draw", [functional.dropout, gumbel, from_numpy], ids=["dropout", "gumbel", "numpy"])
def test_a_network_that_draws_is_not_taken_for_one_with_state(draw: Callable[[Tensor], Tensor]) -> None:
    """Random outputs of several samples look like something that earlier calls change."""
    model = Model(Does(draw).eval(), "net", (TensorSpec("x", (1, 4)),), None, 20)
    samples = [(np.full((1, 4), value, np.float32),) for value in (1.0, 2.0, 3.0)]
    with pytest.raises(CaptureError) as caught:
        captured_program.capture_program(model, samples[0], others=samples[1:])
    assert caught.value.code == "EM-RANDOM"
