"""Replaces the clocks and the source of random bytes that Python code reads, to see what depends on them."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from torch import nn

from exporter.capture.forced_draws import Draw
from exporter.capture.lowering_errors import is_lowering_error_of_user

CLOCKS = ("time", "monotonic", "perf_counter", "process_time", "thread_time")
"""The clocks of the `time` module; each has a twin that counts nanoseconds."""
LONGEST_STEP = 3600.0
"""The most seconds between two readings of a replaced clock."""
MIDDLEMEN = ("random.py", "secrets.py", "uuid.py")
"""Files of the standard library through which a user's line asks for random bytes."""


@contextlib.contextmanager
def replaced_clocks(module: nn.Module, seed: int) -> Iterator[list[Draw]]:
    """Let clocks stand at random instants during a call, and list the user's lines that read them.

    Args:
        module: Names such as `from time import time` are replaced where its code looks them up.
        seed: Each seed gives other instants.

    Yields:
        The readings so far: the clocks', and the system's random bytes.
    """
    readings: list[Draw] = []
    originals = {name: getattr(time, name) for clock in CLOCKS for name in (clock, f"{clock}_ns")}
    fakes: dict[Any, Any] = {
        clock: _fake_replaced_clock(f"time.{name}", clock, random.Random(f"{seed} {name}"), readings)
        for name, clock in originals.items()
    }
    fakes[os.urandom] = _random_bytes_of_replaced_clocks(readings, os.urandom)
    spaces = [vars(time), vars(os), vars(random), *_replaced_clock_namespaces(module)]
    places = [
        (space, key, value)
        for space in spaces
        for key, value in list(space.items())
        if _replaceable_clocks(value, fakes)
    ]
    seeded = random.Random.seed
    try:
        setattr(random.Random, "seed", _seeding_of_replaced_clocks(readings, seeded))  # noqa: B010 - mypy forbids the assignment
        for space, key, value in places:
            space[key] = fakes[value]
        yield readings
    finally:
        setattr(random.Random, "seed", seeded)  # noqa: B010
        for space, key, value in places:
            space[key] = value


def _replaceable_clocks(value: Any, fakes: dict[Any, Any]) -> bool:
    return type(value) is type(time.time) and value in fakes


def _replaced_clock_namespaces(module: nn.Module) -> list[dict[str, Any]]:
    """List the globals of the user's code: of the module's classes, and of the files that are loaded."""
    spaces = [getattr(getattr(type(m), "forward", None), "__globals__", {}) for m in module.modules()]
    users = [
        m
        for m in list(sys.modules.values())
        if is_lowering_error_of_user(getattr(m, "__file__", None) or "<")
    ]
    unique = {id(space): space for space in (*spaces, *map(vars, users))}
    return list(unique.values())


def _fake_replaced_clock(
    name: str, clock: Callable[[], Any], generator: random.Random, readings: list[Draw]
) -> Callable[[], Any]:
    """Make a clock that starts at a random instant and takes random steps, for the user's lines alone."""
    nanoseconds = name.endswith("_ns")
    instant = clock() + generator.randrange(10**9) * (10**9 if nanoseconds else 1)

    def read() -> Any:
        nonlocal instant
        frame = sys._getframe(1)
        if not is_lowering_error_of_user(frame.f_code.co_filename):
            return clock()
        readings.append(Draw(name, _place_of_replaced_clock(frame), "reads a clock"))
        step = generator.uniform(0, LONGEST_STEP)
        instant += int(step * 10**9) if nanoseconds else step
        return instant

    return read


def _random_bytes_of_replaced_clocks(
    readings: list[Draw], urandom: Callable[[int], bytes]
) -> Callable[[int], bytes]:
    """Make a source of random bytes that remembers the user's lines that it is read for."""

    def read(count: int) -> bytes:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and Path(frame.f_code.co_filename).name in MIDDLEMEN:
            frame = frame.f_back
        if frame is not None and is_lowering_error_of_user(frame.f_code.co_filename):
            readings.append(Draw("the system's random bytes", _place_of_replaced_clock(frame)))
        return urandom(count)

    return read


def _seeding_of_replaced_clocks(readings: list[Draw], seed: Callable[..., None]) -> Callable[..., None]:
    """Make a `Random.seed` that remembers the user's lines that make a generator without a seed."""

    def seeding(self: random.Random, a: Any = None, version: int = 2) -> None:
        frame = sys._getframe(1)
        while frame.f_back is not None and Path(frame.f_code.co_filename).name in MIDDLEMEN:
            frame = frame.f_back
        if a is None and is_lowering_error_of_user(frame.f_code.co_filename):
            readings.append(Draw("a random.Random without a seed", _place_of_replaced_clock(frame)))
        seed(self, a, version)

    return seeding


def _place_of_replaced_clock(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
