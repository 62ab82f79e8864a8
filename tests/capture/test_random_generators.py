"""Where the code and the objects of a network hold generators of random numbers."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.capture import random_generators, randomness
from exporter.capture.random_generators import own_random_generators
from exporter.errors import CaptureError

OWN = np.random.default_rng(5)


class Plain(nn.Module):
    """A network whose only reference is an attribute of any kind."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held


class ByGlobal(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + OWN.random()


class ByInnerFunction(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        def draw() -> float:
            return float(OWN.random())

        return x + draw()


class ByClassAttribute(nn.Module):
    held = OWN

    def forward(self, x: Tensor) -> Tensor:
        return x


class ByStatic(nn.Module):
    @staticmethod
    def draw() -> float:
        return float(OWN.random())


class ByClassMethod(nn.Module):
    @classmethod
    def draw(cls) -> float:
        return float(OWN.random())


class ByProperty(nn.Module):
    @property
    def draw(self) -> float:
        return float(OWN.random())


class Unrelated(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def by_default(x: float, generator: Any = OWN) -> float:
    return x


def by_keyword(x: float, *, generator: Any = OWN) -> float:
    return x


def closure() -> Callable[[], float]:
    inner = OWN
    return lambda: float(inner.random())


class Holder:
    """An object of the user's own."""

    def __init__(self) -> None:
        self.generator = OWN

    def draw(self) -> float:
        return float(self.generator.random())


HOLDERS: dict[str, Callable[[], nn.Module]] = {
    "an attribute": lambda: Plain(OWN),
    "a list": lambda: Plain([1, OWN]),
    "a tuple in a dictionary": lambda: Plain({"a": (OWN,)}),
    "a default": lambda: Plain(by_default),
    "a default by keyword": lambda: Plain(by_keyword),
    "a closure": lambda: Plain(closure()),
    "a bound method": lambda: Plain(Holder().draw),
    "an object": lambda: Plain(Holder()),
    "a partial's function": lambda: Plain(functools.partial(by_default, 1)),
    "a partial's argument": lambda: Plain(functools.partial(print, OWN)),
    "a partial's keyword": lambda: Plain(functools.partial(print, end=OWN)),
    "a submodule": lambda: nn.Sequential(nn.ReLU(), Plain(OWN)),
    "a class attribute": ByClassAttribute,
    "a static method": ByStatic,
    "a class method": ByClassMethod,
    "a property": ByProperty,
    "a global": ByGlobal,
    "a function in forward": ByInnerFunction,
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_generator_is_found_wherever_it_is_held(holder: str) -> None:
    """Each network holds the same one, and no other."""
    assert [generator for _, generator in own_random_generators(HOLDERS[holder]())] == [OWN]


def test_a_network_without_generators_has_none() -> None:
    """Globals of its module that its code does not name are none of its own."""
    assert list(own_random_generators(Unrelated())) == []
    assert list(own_random_generators(nn.Sequential(nn.Linear(1, 1)))) == []


KINDS: dict[str, Callable[[], Any]] = {
    "Generator": lambda: np.random.default_rng(1),
    "BitGenerator": lambda: np.random.PCG64(1),
    "RandomState": lambda: np.random.RandomState(1),
    "Random": lambda: random.Random(1),
}


def draw(generator: Any) -> int:
    if isinstance(generator, np.random.BitGenerator):
        return int(generator.random_raw())
    return int(generator.random() * 2**50)


@pytest.mark.parametrize("kind", KINDS)
def test_a_generators_state_is_read_and_put_back(kind: str) -> None:
    """After it was put back it draws the same number again, and another one after that."""
    generator = KINDS[kind]()
    assert len(list(own_random_generators(Plain(generator)))) == 1
    before = random_generators.random_generator_state(generator)
    first, second = draw(generator), draw(generator)
    random_generators.restore_random_generator(generator, before)
    assert first != second
    assert [draw(generator), draw(generator)] == [first, second]


def test_the_global_generators_have_fingerprints() -> None:
    """Each changes with its own draws alone, in the order of their names."""
    before = random_generators.random_generator_fingerprint()
    assert before == random_generators.random_generator_fingerprint()
    python, numpy = random.getstate(), np.random.get_state()
    try:
        random.random()
        assert [
            a == b for a, b in zip(before, random_generators.random_generator_fingerprint(), strict=True)
        ] == [
            False,
            True,
        ]
        np.random.rand()
        assert [
            a == b for a, b in zip(before, random_generators.random_generator_fingerprint(), strict=True)
        ] == [
            False,
            False,
        ]
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


class OnlyExported(nn.Module):
    """A network that draws in the code for the export alone."""

    def __init__(self, draws: bool) -> None:
        super().__init__()
        self.draws = draws

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return x + torch.rand_like(x) * (1.0 if self.draws else 0.0)
        return x + 0.5


def test_draws_of_the_code_for_the_export_alone_are_refused() -> None:
    """The graph draws though the network does not; a draw that changes nothing is no fault."""
    example = (torch.ones(1, 3),)
    drawing, harmless = OnlyExported(True), OnlyExported(False)
    with pytest.raises(CaptureError, match=r"aten\.rand"):
        randomness.check_randomness(drawing, example, torch.export.export(drawing, example))
    randomness.check_randomness(harmless, example, torch.export.export(harmless, example))
    randomness.check_randomness(drawing, example)
