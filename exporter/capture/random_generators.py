"""Finds the random generators, apart from torch's, that a network can draw from, and their states."""

from __future__ import annotations

import functools
import itertools
import pickle
import random
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import nn

from exporter.capture.lowering_errors import is_lowering_error_of_user

GLOBAL = ("Python's random module", "numpy.random")
MAX_OBJECTS = 20_000
"""How many objects are looked at: a network may hold a large table of Python objects."""


def own_random_generators(module: nn.Module) -> list[tuple[str, Any]]:
    """List the generators that a module's attributes and its methods' code refer to, with their kinds."""
    own: list[tuple[str, Any]] = []
    seen: set[int] = set()
    waiting: list[Any] = [module]
    while waiting and len(seen) < MAX_OBJECTS:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, np.random.Generator | np.random.RandomState | np.random.BitGenerator):
            own.append((f"a numpy.random.{type(item).__name__}", item))
        elif isinstance(item, random.Random) and not isinstance(item, random.SystemRandom):
            own.append(("a random.Random", item))
        else:
            waiting.extend(itertools.islice(_random_generator_references(item), MAX_OBJECTS))
    return own


def _random_generator_references(item: Any) -> Iterator[Any]:
    """Yield what an object of the user's own refers to; the insides of installed packages are left out."""
    if isinstance(item, dict):
        yield from item.values()
    elif isinstance(item, list | tuple | set | frozenset):
        yield from item
    elif isinstance(item, FunctionType):
        yield from _random_generators_used_by(item)
    elif isinstance(item, MethodType):
        yield from (item.__func__, item.__self__)
    elif isinstance(item, functools.partial):
        yield from (item.func, *item.args, *item.keywords.values())
    elif isinstance(item, type):
        if _is_users_random_generator(item):
            yield from (_plain_function_of_random_generator(value) for value in vars(item).values())
    elif isinstance(item, nn.Module) or _is_users_random_generator(type(item)):
        yield from getattr(item, "__dict__", {}).values()
        yield from type(item).__mro__[:-1]


def _plain_function_of_random_generator(attribute: Any) -> Any:
    """Return the function of a static method, a class method or a property."""
    function = getattr(attribute, "__func__", None) or getattr(attribute, "fget", None)
    return function if function is not None else attribute


def _is_users_random_generator(kind: type) -> bool:
    return any(
        is_lowering_error_of_user(value.__code__.co_filename)
        for value in map(_plain_function_of_random_generator, vars(kind).values())
        if isinstance(value, FunctionType)
    )


def _random_generators_used_by(function: FunctionType) -> Iterator[Any]:
    """Yield the values that a function's code names: globals, those of its modules, closures and defaults."""
    yield from (function.__defaults__ or ())
    yield from (function.__kwdefaults__ or {}).values()
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
    if not is_lowering_error_of_user(function.__code__.co_filename):
        return
    names = set(_random_generator_names(function.__code__))
    for name in names & function.__globals__.keys():
        value = function.__globals__[name]
        if not isinstance(value, ModuleType):
            yield value
        elif is_lowering_error_of_user(getattr(value, "__file__", None) or "<"):
            yield from (vars(value)[name] for name in names & vars(value).keys())


def _random_generator_names(code: CodeType) -> Iterator[str]:
    """Yield the names of globals and attributes in a function's code, and in the functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _random_generator_names(constant)


def random_generator_state(generator: Any) -> Any:
    """Return a generator's state."""
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.BitGenerator):
        return generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state()
    return generator.getstate()


def restore_random_generator(generator: Any, before: Any) -> None:
    """Put a generator back into an earlier state."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = before
    elif isinstance(generator, np.random.BitGenerator):
        generator.state = before
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(before)
    else:
        generator.setstate(before)


def random_generator_fingerprint() -> tuple[int, ...]:
    """Hash the states of the global generators, in the order of `GLOBAL`."""
    return hash(random.getstate()), hash(pickle.dumps(np.random.get_state()))
