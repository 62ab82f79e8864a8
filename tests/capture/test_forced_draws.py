"""What each random operator draws at chosen quantiles, and which calls draw at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from exporter.capture import forced_draws
from exporter.capture.forced_draws import DISTRIBUTIONS, HIGH, LEVELS, LOW, Draw, ForcedDraws

QUANTILES = [LOW, 0.25, 0.5, 0.75, HIGH]


def forced(draw: Callable[[], Any], *quantiles: float) -> Any:
    """Return what a call draws when every tensor gets the same quantiles."""
    pattern = torch.tensor(quantiles or QUANTILES, dtype=torch.float64)
    with ForcedDraws(
        lambda position, count: pattern[:count] if count <= len(pattern) else pattern.repeat(count)[:count]
    ):
        return draw()


def five(fill: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.float64) -> Tensor:
    return fill(torch.zeros(5, dtype=dtype))


NORMAL = [-8.0, -0.67449, 0.0, 0.67449, 8.0]
DRAWN: dict[str, tuple[Callable[[], Tensor], Sequence[float]]] = {
    "rand": (lambda: torch.rand(5, dtype=torch.float64), QUANTILES),
    "rand_like": (lambda: torch.rand_like(torch.zeros(5, dtype=torch.float64)), QUANTILES),
    "uniform_": (lambda: five(lambda t: t.uniform_(-2, 6)), [-2 + 8 * q for q in QUANTILES]),
    "randn": (lambda: torch.randn(5, dtype=torch.float64), NORMAL),
    "normal_": (lambda: five(lambda t: t.normal_(10, 2)), [10 + 2 * n for n in NORMAL]),
    "log_normal_": (lambda: five(lambda t: t.log_normal_(1, 0.5)), [math.exp(1 + n / 2) for n in NORMAL]),
    "exponential_": (lambda: five(lambda t: t.exponential_(2)), [-math.log1p(-q) / 2 for q in QUANTILES]),
    "cauchy_": (
        lambda: five(lambda t: t.cauchy_(1, 2)), [1 + 2 * math.tan(math.pi * (q - 0.5)) for q in QUANTILES],
    ),
    "geometric_": (lambda: five(lambda t: t.geometric_(0.5)), [1, 1, 1, 2, 24]),
    "geometric_ that never fails": (lambda: five(lambda t: t.geometric_(0.999999999)), [1, 1, 1, 1, 1]),
    "geometric_ that hardly succeeds": (lambda: five(lambda t: t.geometric_(0.01)), [1, 29, 69, 138, 1656]),
    "bernoulli_": (lambda: five(lambda t: t.bernoulli_(0.5)), [1, 1, 0, 0, 0]),
    "bernoulli": (lambda: torch.bernoulli(torch.tensor([1.0, 0.2, 0.6, 0.8, 0.0])), [1, 0, 1, 1, 0]),
    "randint": (lambda: torch.randint(3, 11, (5,)), [3, 5, 7, 9, 10]),
    "randint from zero": (lambda: torch.randint(4, (5,)), [0, 1, 2, 3, 3]),
    "random_": (lambda: five(lambda t: t.random_(2, 6), torch.int64), [2, 3, 4, 5, 5]),
    "random_ of bytes": (lambda: five(lambda t: t.random_(), torch.uint8), [0, 64, 128, 192, 255]),
    "random_ of booleans": (lambda: five(lambda t: t.random_(), torch.bool), [0, 0, 1, 1, 1]),
    "random_ of floats": (lambda: five(lambda t: t.random_(), torch.float32), [0, 512, 1024, 1536, 2048]),
    "randperm": (lambda: torch.randperm(5), [0, 1, 2, 3, 4]),
    "poisson": (lambda: torch.poisson(torch.full((5,), 4.0)), [0, 2, 4, 6, 20]),
    "binomial": (lambda: torch.binomial(torch.full((5,), 8.0), torch.full((5,), 0.5)), [0, 2, 4, 6, 8]),
    "binomial of certain chances": (
        lambda: torch.binomial(torch.full((5,), 8.0), torch.tensor([0.0, 1, 0, 1, 1])), [0, 8, 0, 8, 8],
    ),
    "gamma": (lambda: torch._standard_gamma(torch.full((5,), 2.0)), [2 * math.exp(n) for n in NORMAL]),
    "dirichlet": (
        lambda: torch._sample_dirichlet(torch.full((5,), 2.0)),
        [math.exp(n) / sum(math.exp(m) for m in NORMAL) for n in NORMAL],
    ),
    "multinomial again and again": (
        lambda: torch.multinomial(torch.tensor([0.0, 1.0, 3.0]), 5, replacement=True), [1, 2, 2, 2, 2],
    ),
    "multinomial without": (lambda: torch.multinomial(torch.tensor([0.0, 1.0, 1, 1, 1]), 4), [4, 3, 2, 1]),
    "rrelu": (
        lambda: torch.rrelu(torch.tensor([-1.0, -1, 1, 0, -2]), 0.1, 0.5, training=True),
        [-0.1, -0.2, 1, 0, -1.0],
    ),
    "dropout": (
        lambda: nn.functional.dropout(torch.full((5,), 3.0), 0.5, training=True), [6, 6, 0, 0, 0],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWN)
def test_a_quantile_becomes_the_value_that_has_it(name: str) -> None:
    """Both ends of the distribution are drawn, and its middle."""
    draw, expected = DRAWN[name]
    assert forced(draw).double().tolist() == pytest.approx(list(expected), rel=1e-4, abs=1e-6)


def test_native_dropout_gives_its_mask_too() -> None:
    """What is kept is scaled, and the mask says what that is; a chance of one leaves nothing."""
    x = torch.full((5,), 3.0)
    values, kept = forced(lambda: torch.native_dropout(x, 0.75, True))
    assert values.tolist() == [0, 0, 0, 12, 12]
    assert kept.tolist() == [False, False, False, True, True]
    assert forced(lambda: torch.native_dropout(x, 1.0, True))[0].tolist() == [0, 0, 0, 0, 0]


def test_the_largest_uniform_number_is_below_one() -> None:
    """In float16 the quantile at the end would be rounded to 1, which the operator never draws."""
    drawn = forced(lambda: torch.rand(5, dtype=torch.float16))
    assert drawn[-1] < 1
    assert drawn[-1] == 1 - torch.finfo(torch.float16).eps / 2
    assert forced(lambda: torch.rand(5, dtype=torch.float32))[-1] < 1


def test_complex_numbers_are_uniform_too() -> None:
    """torch.rand has them; what is drawn is real, and below one."""
    drawn = forced(lambda: torch.rand(5, dtype=torch.complex64))
    assert drawn.real.tolist() == pytest.approx(QUANTILES)
    assert drawn.real.max() < 1


def test_a_boolean_is_drawn_from_two_values() -> None:
    """Three eighths are on the side of False, as they would not be with more values."""
    assert forced(lambda: five(lambda t: t.random_(), torch.bool), *[3 / 8] * 5).tolist() == [False] * 5


def test_permutations_turn_and_flip() -> None:
    """The first quantile decides; nothing has no order."""
    assert forced(lambda: torch.randperm(4), 0.5, 0, 0, 0).tolist() == [2, 3, 0, 1]
    assert forced(lambda: torch.randperm(4), 0.75, 0, 0, 0).tolist() == [0, 3, 2, 1]
    assert forced(lambda: torch.randperm(0)).tolist() == []


def test_heavier_categories_are_drawn_first_from_either_end() -> None:
    """A category comes once, and one without weight never before the others."""
    weights = torch.tensor([0.0, 1.0, 1.0, 50.0])
    low, high = (forced(lambda: torch.multinomial(weights, 3), q, q, q) for q in (0.25, 0.75))
    assert low.tolist() == [3, 2, 1]
    assert high.tolist() == [3, 1, 2]
    even = torch.ones(2)
    assert [forced(lambda: torch.multinomial(even, 1), q).item() for q in (0.49, 0.5)] == [1, 0]


def test_patterns_cover_ends_levels_and_mixtures() -> None:
    """Ramps first, then every level, both ends in turn, and mixtures within draws and from draw to draw."""
    patterns = forced_draws.forced_draw_patterns()
    assert len(patterns) == 2 + 9 + 2 + 8
    first = [pattern(0, 3).tolist() for pattern in patterns]
    assert first[0] == pytest.approx([LOW, 0.5, HIGH])
    assert first[1] == pytest.approx([HIGH, 0.5, LOW])
    assert first[2:11] == [[level] * 3 for level in LEVELS]
    assert LEVELS == (LOW, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, HIGH)
    assert [patterns[11](position, 2).tolist() for position in (0, 1, 2)] == [
        [LOW] * 2,
        [HIGH] * 2,
        [LOW] * 2,
    ]
    assert [patterns[12](position, 2).tolist() for position in (0, 1)] == [[HIGH] * 2, [LOW] * 2]
    within, whole = patterns[13:17], patterns[17:]
    assert all(len(set(pattern(0, 40).tolist())) > 4 for pattern in within)
    assert all(len(set(pattern(0, 40).tolist())) == 1 for pattern in whole)
    assert len({tuple(pattern(0, 40).tolist()) for pattern in within}) == 4
    assert len({tuple(pattern(p, 1).tolist()[0] for p in range(20)) for pattern in whole}) == 4
    for pattern in patterns:
        assert pattern(3, 5).tolist() == pattern(3, 5).tolist()
        assert (pattern(1, 7).dtype, pattern(1, 7).shape) == (torch.float64, (7,))


HEADS = torch.ones(1, 2, 3, 4)
CALLS: Mapping[str, tuple[Callable[[], Any], bool]] = {
    "rand": (lambda: torch.rand(2), True),
    "add": (lambda: torch.ones(2) + 1, False),
    "dropout in training": (lambda: torch.native_dropout(torch.ones(2), 0.5, True), True),
    "dropout in evaluation": (lambda: torch.native_dropout(torch.ones(2), 0.5, False), False),
    "rrelu in evaluation": (lambda: torch.rrelu(torch.ones(2), training=False), False),
    "attention without dropout": (
        lambda: nn.functional.scaled_dot_product_attention(HEADS, HEADS, HEADS), False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_only_calls_that_draw_are_noted(call: str) -> None:
    """Each with the operator and the line of the code that called it."""
    run, drew = CALLS[call]
    with ForcedDraws(lambda _, count: torch.full((count,), 0.5, dtype=torch.float64)) as mode:
        run()
    assert bool(mode.draws) is drew
    for draw in mode.draws:
        assert draw.source is not None
        assert draw.source.startswith(f"{__file__}:")
        assert draw.operator.startswith(f"aten.{'native_dropout' if 'dropout' in call else call}")


def test_draws_are_numbered_by_their_position() -> None:
    """The first draw of a call gets position 0, the next one 1, whatever comes between."""
    positions: list[tuple[int, int]] = []

    def pattern(position: int, count: int) -> Tensor:
        positions.append((position, count))
        return torch.full((count,), 0.5, dtype=torch.float64)

    with ForcedDraws(pattern) as mode:
        x = torch.rand(3) + 1
        torch.randn_like(x.reshape(3, 1))
    assert positions == [(0, 3), (1, 3)]
    assert [draw.action for draw in mode.draws] == ["draws random numbers"] * 2
    assert isinstance(mode.draws[0], Draw)
    assert mode.draws[0].operator.startswith("aten.rand")


def test_operators_are_named_as_torch_names_them() -> None:
    """The overload is no part of the name."""
    assert forced_draws.forced_draw_name(torch.ops.aten.rand.default) == "aten.rand"
    assert set(DISTRIBUTIONS) >= {"rand", "randn", "multinomial", "normal"}
