"""Sizes that differ from call to call, draws, generators and clocks, at their boundaries."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.capture import (
    dynamic_shapes,
    forced_draws,
    random_generators,
    randomness,
    replaced_clocks,
)
from exporter.capture.forced_draws import Draw, ForcedDraws
from exporter.errors import LoweringError, UsageError
from exporter.records import (
    DynamicShape,
    DynamicSize,
    SizeRange,
    TensorSpec,
)

WIDE = SizeRange("width", 16, 48, 16)
SPECS = (TensorSpec("batch_image", (1, 32)), TensorSpec("mask", (1, 32)))


@pytest.mark.parametrize(
    ("name", "position"), [("batch_image", 0), ("batch.image", 0), ("inner.mask", 1), ("", 1)]
)
def test_a_range_finds_its_input(name: str, position: int) -> None:
    """It is found by its name, by its path in a dictionary, by its key alone, or by its position."""
    shapes = [DynamicShape("mask", (1, 32)), DynamicShape(name, (1, WIDE))]
    (size,) = dynamic_shapes.resolve_dynamic_shapes(shapes, SPECS)
    assert size == DynamicSize(WIDE, ((position, 1),))


def test_a_name_ties_sizes_and_none_has_its_place() -> None:
    """A range without a name is called by its input and axis."""
    shapes = [DynamicShape("", (1, WIDE)), DynamicShape("", (SizeRange("", 1, 1), WIDE))]
    sizes = dynamic_shapes.resolve_dynamic_shapes(shapes, SPECS)
    assert [(size.range.name, size.places) for size in sizes] == [
        ("width", ((0, 1), (1, 1))),
        ("mask[0]", ((1, 0),)),
    ]


@pytest.mark.parametrize(
    ("low", "high", "step", "fits"),
    [
        (32, 48, 16, True),
        (16, 32, 16, True),
        (33, 49, 1, False),
        (16, 31, 1, False),
        (20, 44, 12, True),
        (21, 45, 12, False),
    ],
)
def test_the_example_is_in_the_range(low: int, high: int, step: int, fits: bool) -> None:
    """Both ends count, and a step is counted from the lower one."""
    shape = DynamicShape("mask", (1, SizeRange("n", low, high, step)))
    if fits:
        assert len(dynamic_shapes.resolve_dynamic_shapes([shape], SPECS)) == 1
        return
    with pytest.raises(UsageError) as caught:
        dynamic_shapes.resolve_dynamic_shapes([shape], SPECS)
    assert caught.value.code == "EM-DYNAMIC"
    assert "--input-shape" in caught.value.hint


def test_ranges_are_given_to_the_export_by_input_and_axis() -> None:
    """A network that takes `*args` gets them all in one; without a range there is nothing to give."""

    class Several(nn.Module):
        def forward(self, *inputs: Tensor) -> Tensor:
            return inputs[0]

    class Two(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return first

    plain, stepped = DynamicSize(SizeRange("x[0]", 2, 5), ((0, 0), (1, 1))), DynamicSize(WIDE, ((1, 0),))
    assert dynamic_shapes.torch_dynamic_shapes(Two(), (), 2) is None
    first, second = dynamic_shapes.torch_dynamic_shapes(Two(), (plain, stepped), 2)
    assert list(first) == [0]
    assert sorted(second) == [0, 1]
    assert (first[0].__name__, first[0].min, first[0].max) == ("x_0", 2, 5)
    assert second[1].__name__ == "x_0"
    assert second[0].__name__ == "16*width_steps"
    (nested,) = dynamic_shapes.torch_dynamic_shapes(Several(), (plain,), 2)
    assert [list(axes) for axes in nested] == [[0], [1]]


@pytest.mark.parametrize(
    ("size", "name", "least", "most"),
    [(WIDE, "16*width_steps", 1, 3), (SizeRange("w", 17, 49, 16), "16*w_steps + 1", 1, 3)],
)
def test_a_range_with_a_step_counts_steps(size: SizeRange, name: str, least: int, most: int) -> None:
    """The rest below the first step is added."""
    dimension = dynamic_shapes._torch_dynamic_dimension(size)
    assert dimension.__name__ == name
    root = dimension.root
    assert (root.min, root.max) == (least, most)


def test_a_refusal_of_sizes_has_its_reason() -> None:
    """The exporter's words, or that there is no graph."""
    refusal = dynamic_shapes.dynamic_shapes_refusal
    assert (
        refusal("Net", LoweringError("it is fixed")).message
        == "Net cannot have the ranges of --dynamic in one file: it is fixed"
    )
    assert refusal("Net", None).message.endswith("it has no graph")
    assert refusal("Net", None).code == "EM-DYNAMIC"


def test_class_numbers_are_float32s_own() -> None:
    """Rounding may decide them; floats and complex numbers are the float64 network's."""
    exact = (np.array([1.25]), np.array([2]), np.array([1j]))
    single = (np.array([1.5], np.float32), np.array([3]), np.array([2j], np.complex64))
    mixed = dynamic_shapes._like_single_dynamic_shape(exact, single)
    assert [array.tolist() for array in mixed] == [[1.25], [3], [1j]]


def test_unknown_random_operators_draw_the_quantiles_themselves() -> None:
    """Floats of every result become quantiles; whole numbers stay as they were drawn."""
    mode = ForcedDraws(lambda position, count: torch.full((count,), 0.75, dtype=torch.float64))
    results = torch.zeros(2), (torch.ones(1, dtype=torch.int64), torch.zeros(1, dtype=torch.float64))
    mode._force("no_such_operator", {}, results)
    assert [t.tolist() for t in (results[0], *results[1])] == [[0.75, 0.75], [1], [0.75]]


def test_a_draw_has_the_users_line_and_the_function_that_it_calls() -> None:
    """Functions that only pass a call on are not named."""
    space: dict[str, Any] = {"torch": torch, "caller": forced_draws._caller_of_forced_draw}
    lines = "def dispatch():\n    return caller('aten.rand')\n", "def {}():\n    return dispatch()\n"
    draws = {}
    for name in ("gumbel", "inner"):
        exec(compile(lines[0] + lines[1].format(name), "/x/site-packages/lib.py", "exec"), space)
        draws[name] = space[name]()
    assert [draw.operator for draw in draws.values()] == ["aten.rand (in gumbel)", "aten.rand"]
    assert {str(draw.source).rpartition(":")[0] for draw in draws.values()} == {__file__}


def test_fresh_memory_is_filled_with_what_no_two_calls_share() -> None:
    """The upper end is NaN in floats; whole numbers stay below a hundred; each piece has its own position."""
    positions: list[int] = []

    def pattern(position: int, count: int) -> Tensor:
        positions.append(position)
        return torch.tensor([0.25, 0.5, forced_draws.HIGH], dtype=torch.float64)[:count]

    with ForcedDraws(pattern) as mode:
        floats, whole = torch.empty(3), torch.empty(3, dtype=torch.int64)
        view = torch.empty(1, 2)
    assert floats.tolist()[:2] == [0.25, 0.5]
    assert floats[2].isnan()
    assert whole.tolist() == [25, 50, 99]
    assert view.shape == (1, 2)
    assert positions == [0, 1, 2]
    assert [draw.action for draw in mode.unwritten] == ["reads memory that nothing has written"] * 3
    assert mode.draws == []


def test_a_closure_that_is_not_filled_holds_no_generator() -> None:
    """A function may name a variable that has no value yet; the others count."""
    generator = random.Random(1)

    def make(later: bool) -> Callable[[], Any]:
        def read() -> Any:
            return unfilled, generator

        if later:
            unfilled = 1
        return read

    assert own(make(False)) == own(make(True)) == [generator]


def own(item: Any) -> list[Any]:
    module = nn.Module()
    module.held = item
    return [held for _, held in random_generators.own_random_generators(module)]


def test_a_generator_of_the_users_other_file_is_found() -> None:
    """The code reads its name from that module; other names of it, and packages, do not count."""
    mine, other = random.Random(1), random.Random(2)
    helpers, package = ModuleType("helpers"), ModuleType("package")
    helpers.__dict__.update(__file__="/me/helpers.py", mine=mine, other=other)
    package.__dict__.update(__file__="/x/site-packages/package.py", mine=other)
    space: dict[str, Any] = {"helpers": helpers, "package": package}
    exec(compile("def read():\n    return helpers.mine, package.mine\n", "/me/net.py", "exec"), space)
    assert own(space["read"]) == [mine]


@pytest.mark.parametrize(
    ("item", "kinds"),
    [
        (random.SystemRandom(), []),
        (random.Random(1), ["a random.Random"]),
        (np.random.PCG64(1), ["a numpy.random.PCG64"]),
        ({1: [np.random.RandomState(1)]}, ["a numpy.random.RandomState"]),
        ([random.Random(1)] * 2, ["a random.Random"]),
        ("text", []),
    ],
)
def test_generators_have_kinds(item: Any, kinds: list[str]) -> None:
    """Each is listed once; the system's own has no state."""
    module = nn.Module()
    module.held = item
    assert [kind for kind, _ in random_generators.own_random_generators(module)] == kinds


def users(source: str, **names: Any) -> Any:
    """Run a line as if it stood in the user's file, and return its `value`."""
    exec(compile(source, "/me/net.py", "exec"), names)
    return names["value"]


@pytest.mark.parametrize(("name", "kind", "second"), [("time.time", float, 1), ("time.time_ns", int, 10**9)])
def test_a_replaced_clock_runs_on_by_random_steps(name: str, kind: type, second: int) -> None:
    """It starts at most 32 years ahead, and a step is an hour at most; each seed has its own."""
    readings: list[Draw] = []
    start = 1000 * second
    clocks = [
        replaced_clocks._fake_replaced_clock(name, lambda: start, random.Random(seed), readings)
        for seed in (0, 0, 1)
    ]
    first, same, other = ([users("value = read()", read=clock) for _ in range(20)] for clock in clocks)
    assert first == same
    assert first != other
    assert all(isinstance(instant, kind) for instant in first)
    steps = [later - earlier for earlier, later in itertools.pairwise(first)]
    assert all(0 <= step <= 3600 * second for step in steps)
    assert max(steps) > 60 * second
    assert 60 * second < first[0] - start < (10**9 + 3600) * second
    assert readings[0] == Draw(name, "/me/net.py:1", "reads a clock")
    assert len(readings) == 60


def test_a_replaced_clock_is_right_for_everyone_else() -> None:
    """Only the user's lines read other instants, and only they are listed."""
    readings: list[Draw] = []
    clock = replaced_clocks._fake_replaced_clock("time.time", lambda: 7.0, random.Random(0), readings)
    space: dict[str, Any] = {"read": clock}
    exec(compile("value = read()", "/x/site-packages/lib.py", "exec"), space)
    assert (space["value"], readings) == (7.0, [])


def test_random_bytes_are_the_users_through_the_standard_library() -> None:
    """A line of the user's that asks `secrets` for bytes is listed; one of a package's is not."""
    readings: list[Draw] = []
    read = replaced_clocks._random_bytes_of_replaced_clocks(readings, lambda count: b"x" * count)
    assert users("value = read(3)", read=read) == b"xxx"
    through: dict[str, Any] = {"read": read}
    exec(compile("def token():\n    return read(2)\n", "/usr/lib/secrets.py", "exec"), through)
    assert users("\nvalue = token()", token=through["token"]) == b"xx"
    package: dict[str, Any] = {"read": read}
    exec(compile("value = read(1)", "/x/site-packages/lib.py", "exec"), package)
    assert [reading.source for reading in readings] == ["/me/net.py:1", "/me/net.py:2"]
    assert {reading.operator for reading in readings} == {"the system's random bytes"}


def test_a_generator_of_the_users_without_a_seed_is_listed() -> None:
    """One with a seed draws the same numbers; both are seeded as asked."""
    readings: list[Draw] = []
    seeds: list[tuple[Any, int]] = []
    seeding = replaced_clocks._seeding_of_replaced_clocks(
        readings, lambda _, a, version: seeds.append((a, version))
    )
    generator = random.Random(1)
    users("value = seeding(generator)", seeding=seeding, generator=generator)
    users("value = seeding(generator, 5, 1)", seeding=seeding, generator=generator)
    package: dict[str, Any] = {"seeding": seeding, "generator": generator}
    exec(compile("seeding(generator)", "/x/site-packages/lib.py", "exec"), package)
    assert seeds == [(None, 2), (5, 1), (None, 2)]
    assert readings == [Draw("a random.Random without a seed", "/me/net.py:1")]


class Local(nn.Module):
    """A network whose forward looks names up in this file."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_only_clocks_are_replaced() -> None:
    """A name that holds something else of equal value stays; globals are looked up once each."""
    fakes: dict[Any, Any] = {time.time: 1}
    assert replaced_clocks._replaceable_clocks(time.time, fakes)
    assert not replaced_clocks._replaceable_clocks(time.sleep, fakes)
    assert not replaced_clocks._replaceable_clocks("time", fakes)
    spaces = replaced_clocks._replaced_clock_namespaces(nn.Sequential(Local(), Local()))
    assert len({id(space) for space in spaces}) == len(spaces)
    assert any(space is globals() for space in spaces)
    assert not any(space is vars(time) for space in spaces)


def test_a_random_line_is_quoted(tmp_path: Path) -> None:
    """A line is quoted where its file can be read, and named where it cannot."""
    path = tmp_path / "net.py"
    path.write_text("first\n    second  \n")
    assert randomness._where_random(f"{path}:2") == f" at {path}:2 (`second`)"
    assert randomness._where_random("/no/such/file.py:7") == " at /no/such/file.py:7"
    assert randomness._where_random(None) == ""
