"""How the reference leaves out what says nothing: inputs the model refuses, sizes that rounding decides."""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from exporter.capture import float64_reference, reference_floor
from exporter.capture.digest import UnknownValueError, _Digest
from exporter.capture.reference_network import ReferenceNetwork
from exporter.errors import CaptureError
from exporter.records import Sample, TensorSpec


def one(*values: complex, dtype: Any = np.float64) -> Sample:
    return (np.array(values, dtype),)


def test_the_floor_is_the_worst_float_outputs() -> None:
    """Errors are shares of the largest value; whole numbers do not count, and nothing is no error."""
    expected = [(np.array([1.0, 4.0]), np.array([1, 2])), (np.array([2.0, 2.0]), np.array([1, 2]))]
    actual = [(np.array([1.0, 4.4]), np.array([9, 9])), (np.array([2.0, 2.0]), np.array([1, 2]))]
    assert reference_floor.reference_floor(expected, actual) == pytest.approx(0.1)
    assert reference_floor.reference_floor([one(1, dtype=int)], [one(5, dtype=int)]) == 0.0
    assert reference_floor.reference_floor([one(1j, dtype=complex)], [one(-1j, dtype=complex)]) == 2.0


@pytest.mark.parametrize(("floor", "noted"), [(1e-3, False), (1.1e-3, True), (math.inf, True)])
def test_a_large_floor_is_noted(floor: float, noted: bool) -> None:
    """The note gives the figure."""
    notes = reference_floor.note_on_reference_floor(floor)
    assert len(notes) == noted
    assert not noted or f"Eager float32 itself is {floor:.1e}" in notes[0]


@pytest.mark.parametrize(
    ("expected", "actual", "says"),
    [
        (one(1.0), one(1.0), ""),
        (one(1.0), one(1.001), ""),
        (one(1.0), one(1.0011), "float32 is 1.1e-03 of the output's scale away from float64"),
        (one(math.nan), one(1.0), "NaN or Inf"),
        (one(1.0), one(math.inf), "NaN or Inf"),
        (one(1, dtype=int), one(2, dtype=int), ""),
        (one(1.0), one(1.0, 2.0), ""),
        (one(complex(0, math.nan), dtype=complex), one(0, dtype=complex), "NaN or Inf"),
    ],
)
def test_an_edge_that_says_nothing_is_named(expected: Sample, actual: Sample, says: str) -> None:
    """Values that are not finite, and outputs that float32 cannot compute; sizes are another matter."""
    reason = float64_reference._unusable_float64_reference(expected, actual)
    assert says in reason
    assert bool(reason) is bool(says)


def test_samples_whose_size_rounding_decides_are_left_out() -> None:
    """All three kinds of runs must agree; the rest keep their order, and a note counts the others."""
    samples = [one(i) for i in range(4)]
    expected = [one(1.0), one(1.0, 2.0), one(1.0), one(5.0)]
    actual = [one(1.0), one(1.0), one(1.0), one(5.0)]
    trials = [[one(1.0), one(1.0), one(1.0, 1.0), one(5.0)]]
    kept = float64_reference._float64_reference_of_equal_sizes(samples, expected, actual, trials)
    assert [s[0].tolist() for s in kept[0]] == [[0], [3]]
    assert [e[0].tolist() for e in kept[1]] == [[1.0], [5.0]]
    assert [a[0].tolist() for a in kept[2]] == [[1.0], [5.0]]
    assert kept[3] == (
        "2 verification sample(s) are left out: rounding alone decides the size of an output there.",
    )
    assert float64_reference._float64_reference_of_equal_sizes(samples, actual, actual, [])[3] == ()
    with pytest.raises(CaptureError, match="on every sample"):
        float64_reference._float64_reference_of_equal_sizes(samples[1:2], expected[1:2], actual[1:2], [])


def test_outputs_keep_their_number_of_dimensions() -> None:
    """An output that has one or two dimensions is refused by its name."""
    captured: Any = SimpleNamespace(outputs=[TensorSpec("a", (1,)), TensorSpec("b", (1,))])
    flat, deep = np.zeros(2), np.zeros((2, 2))
    float64_reference._check_float64_reference_ranks(captured, [(flat, deep), (np.zeros(3), deep)])
    with pytest.raises(CaptureError, match="output 'b' has 1 or 2 dimensions"):
        float64_reference._check_float64_reference_ranks(captured, [(flat, deep), (flat, flat)])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
def test_real_and_complex_outputs_need_no_other_roundings(dtype: str) -> None:
    """Only a discrete output can change by rounding alone, so that the network is not run again."""
    captured: Any = SimpleNamespace(outputs=[TensorSpec("a", (1,), dtype)])
    assert float64_reference._run_nudged_float64_references(captured, [(1,)], [one(1.0)]) == []
    discrete: Any = SimpleNamespace(outputs=[TensorSpec("a", (1,), dtype), TensorSpec("b", (1,), "int64")])
    assert float64_reference._run_nudged_float64_references(discrete, [(1,), (1,)], []) == []
    with pytest.raises(AttributeError):  # it has no network to run
        float64_reference._run_nudged_float64_references(discrete, [(1,), (1,)], [one(1.0)])


def test_no_samples_have_the_shape_of_one() -> None:
    """An empty stack keeps the samples' type."""
    (empty,) = float64_reference._empty_float64_reference((np.zeros((2, 3), np.int32),))
    assert empty.shape == (0, 2, 3)
    assert empty.dtype == np.int32


def test_scenes_follow_the_samples_that_are_left() -> None:
    """The scene of a sample that was left out goes with it; without scenes there are none."""
    samples = [one(i) for i in range(4)]
    (scenes,) = float64_reference._scenes_of_float64_reference(
        [samples[1], samples[3]], samples, [7, 7, 8, 9]
    )
    assert scenes.tolist() == [7, 9]
    assert scenes.dtype == np.int64
    assert float64_reference._scenes_of_float64_reference(samples, samples, ()) == ()


@pytest.mark.parametrize(
    ("variable", "sizes", "trials"), [((), (2, 2), 0), ((), (2, 3), 5), (("picked",), (2, 2), 5)]
)
def test_sizes_are_tried_with_different_roundings(
    variable: tuple[str, ...], sizes: tuple[int, int], trials: int
) -> None:
    """Where sizes depend on the data, or are seen to differ, five networks are rounded differently."""
    captured: Any = SimpleNamespace(variable=variable, inputs=(TensorSpec("x", (1,)),))
    networks = float64_reference._float64_reference_size_trials(
        captured, [(np.zeros(size),) for size in sizes]
    )
    assert [network.seed for network in networks] == list(range(trials))
    assert not any(network.widen for network in networks)


class Above(nn.Module):
    """Returns the values of its input above a half: as many as there are."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("limit", torch.tensor(0.5))

    limit: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[x > self.limit]


def test_an_edge_whose_size_rounding_decides_is_left_out() -> None:
    """Values at the limit itself are above it in some roundings; the clear edge input stays."""
    captured: Any = SimpleNamespace(module=Above(), inputs=(TensorSpec("x", (1, 8)),), variable=("y",))
    exact, single = (ReferenceNetwork(captured, widen) for widen in (True, False))
    edges = {
        "at the limit": (np.full((1, 8), 0.5, np.float32),),
        "clear": (np.arange(8, dtype=np.float32)[None],),
    }
    trials = float64_reference._float64_reference_size_trials(captured, [])
    expected, actual, notes = float64_reference._float64_reference_on_edges(exact, single, edges, trials)
    assert list(expected) == ["clear"]
    assert [outputs[0].tolist() for outputs in actual] == [list(range(1, 8))]
    assert len(notes) == 1
    assert "'at the limit' is left out: rounding alone" in notes[0]
    assert list(float64_reference._float64_reference_on_edges(exact, single, edges)[0]) == list(edges)


class Way(enum.Enum):
    """Values of a constant."""

    NEAR = 1
    FAR = 2


class OtherWay(enum.Enum):
    """The same name in another class."""

    NEAR = 1


def symbols() -> list[torch.SymInt]:
    """Make two sizes that depend on the data."""
    sizes = ShapeEnv()
    return [sizes.create_unbacked_symint() for _ in range(2)]


FIRST, SECOND = symbols()
SPECTRUM = torch.full((2,), 1j)
QUANTIZED = [torch.quantize_per_tensor(torch.ones(2), step, 0, torch.quint8) for step in (0.1, 0.2)]
SCRIPT, OTHER_SCRIPT = (torch.jit.script(nn.LeakyReLU(slope)) for slope in (0.1, 0.2))


def holding(name: str, value: float) -> nn.Module:
    """Make a module with a tensor that its state_dict does not have."""
    module = nn.Module()
    if name == "buffer":
        module.register_buffer(name, torch.full((1,), value), persistent=False)
    else:
        setattr(module, name, value)
    return module


VALUES: Sequence[tuple[Any, Any, bool]] = [
    (Way.NEAR, Way.NEAR, True),
    (Way.NEAR, Way.FAR, False),
    (Way.NEAR, OtherWay.NEAR, False),
    (FIRST, FIRST, True),
    (FIRST, SECOND, False),
    (SCRIPT, SCRIPT, True),
    (SCRIPT, OTHER_SCRIPT, False),
    (torch.relu, torch.nn.functional.relu, False),
    (torch.ops.aten.relu.default, torch.ops.aten.relu_.default, False),
    (None, False, False),
    (0.0, -0.0, False),
    (b"a", "a", False),
    (torch.Size([1]), (1,), False),
    (torch.strided, torch.sparse_coo, False),
    (torch.zeros(2).requires_grad_(), torch.zeros(2), True),
    (SPECTRUM.conj(), SPECTRUM.conj().resolve_conj(), True),
    (SPECTRUM.conj(), SPECTRUM, False),
    (QUANTIZED[0], QUANTIZED[1], False),
    ({"a": (1, {"b": Way.NEAR})}, {"a": (1, {"b": Way.FAR})}, False),
    (1, 1, True),
    (1, 2, False),
    (1, 1.0, False),
    (1, "1", False),
    (True, 1, False),
    ([1, 2], (1, 2), True),
    ([1, 2], [[1, 2]], False),
    ([1, [2]], [[1], 2], False),
    ({1, 2}, {2, 1}, True),
    ({1}, {2}, False),
    ({1}, [1], False),
    ({1}, frozenset({1}), True),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
    ({"a": 1}, {"a": 2}, False),
    ({"a": 1}, {"b": 1}, False),
    ({"a": 1}, ["a", 1], False),
    (slice(1, 2, 3), slice(1, 2, 3), True),
    (slice(1, 2, 3), slice(0, 2, 3), False),
    (slice(1, 2, 3), slice(1, 0, 3), False),
    (slice(1, 2, 3), slice(1, 2, 0), False),
    (TensorSpec("x", (1,)), TensorSpec("x", (1,)), True),
    (TensorSpec("x", (1,)), TensorSpec("y", (1,)), False),
    (TensorSpec("x", (1,)), TensorSpec("x", (2,)), False),
    (torch.relu, torch.relu, True),
    (torch.relu, torch.tanh, False),
    (torch.ops.aten.add.Tensor, torch.ops.aten.add.Scalar, False),
    (torch.float32, torch.float16, False),
    (torch.zeros(2), torch.zeros(2), True),
    (torch.zeros(2), torch.tensor([0.0, -0.0]), False),
    (torch.zeros(2), torch.zeros(2, 1), False),
    (torch.zeros(2), torch.zeros(2, dtype=torch.int32), False),
    (torch.zeros(2, 2), torch.zeros(2, 2).t(), False),
    (torch.zeros(2, 3), torch.zeros(3, 2).t(), False),
    (torch.eye(2).to_sparse(), torch.eye(2), False),
    (torch.eye(2).to_sparse(), (2 * torch.eye(2)).to_sparse(), False),
    (nn.Linear(1, 1, bias=False).half(), nn.Linear(1, 1, bias=False).half(), False),
    (nn.ReLU(), nn.ReLU(), True),
    (nn.ReLU(), nn.ReLU(inplace=True), False),
    (nn.ReLU(), nn.Tanh(), False),
    (nn.Sequential(nn.ReLU()), nn.Sequential(nn.Tanh()), False),
    (nn.LeakyReLU(0.1), nn.LeakyReLU(0.2), False),
    (holding("buffer", 1.0), holding("buffer", 2.0), False),
    (holding("_private", 1.0), holding("_private", 2.0), False),
    (holding("_private", 1.0), holding("_private", 1.0), True),
    (nn.Sequential(nn.ReLU()).eval(), nn.Sequential(nn.ReLU()), False),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(VALUES)))
def test_values_that_differ_have_other_digests(number: int) -> None:
    """Kinds are told apart, orders that mean nothing are not."""
    left, right, equal = VALUES[number]
    if isinstance(left, nn.Linear):
        torch.manual_seed(1)
        nn.init.zeros_(left.weight)
    digests = []
    for value in (left, right):
        total = _Digest()
        total.add("value", value)
        digests.append(total.hexdigest())
    assert (digests[0] == digests[1]) is equal


def hooked() -> nn.Module:
    """Make a module whose hook changes what it computes."""
    module = nn.ReLU()
    module.register_forward_hook(lambda *_: torch.zeros(1))
    return module


class Own:
    """A class of the user's own."""

    def method(self) -> None:
        """Do what the object says."""


def own_function() -> None:
    """Do what the user's file says."""


UNKNOWN: Mapping[str, Any] = {
    "an object": Own(),
    "a class of the user's": Own,
    "a function of the user's": own_function,
    "a closure of torch's": torch.library.register_fake("tests_of_digest::none"),
    "a bound method": Own().method,
    "a bound method of torch's": nn.ReLU().forward,
    "a partial": functools.partial(torch.add, 1),
    "a generator": torch.Generator(),
    "a tensor without values": torch.empty(2, device="meta"),
    "a module with a hook": hooked(),
    "an array": np.zeros(2),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_a_name_does_not_say_has_no_digest(name: str) -> None:
    """Code of the user's own can be edited, and an object can hold anything."""
    with pytest.raises(UnknownValueError):
        _Digest().add({"value": [UNKNOWN[name]]})


def test_values_follow_one_another() -> None:
    """Neither their borders nor their order can be exchanged."""

    def hashed(*values: Any) -> str:
        total = _Digest()
        total.add(*values)
        return total.hexdigest()

    assert len({hashed("ab", "c"), hashed("a", "bc"), hashed("c", "ab"), hashed("abc"), hashed()}) == 5


def test_a_value_that_contains_itself_has_no_digest() -> None:
    """The same value twice, one after the other, is no such thing."""
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(UnknownValueError, match="contains itself"):
        _Digest().add(circle)
    twice = [1]
    _Digest().add([twice, twice])
    with pytest.raises(UnknownValueError, match="object"):
        _Digest().add(object())


class Holder(nn.Module):
    """A module with a constant inside, which a graph names by its path."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.part = nn.Module()
        self.part.constant = torch.full((1,), value)


@pytest.mark.parametrize("operation", ["get_attr", "call_module"])
def test_what_a_graph_names_by_a_path_counts(operation: str) -> None:
    """A constant or a module inside another one is another network when it is changed."""

    def hashed(value: float) -> str:
        graph = torch.fx.Graph()
        if operation == "get_attr":
            graph.output(graph.get_attr("part.constant"))
            root: nn.Module = Holder(value)
        else:
            root = nn.Sequential(nn.Sequential(nn.LeakyReLU(value)))
            graph.output(graph.call_module("0.0", (graph.placeholder("x"),)))
        total = _Digest()
        total.add(torch.fx.GraphModule(root, graph))
        return total.hexdigest()

    assert hashed(0.1) == hashed(0.1)
    assert hashed(0.1) != hashed(0.2)


def test_what_cannot_be_saved_has_no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script, or a tensor of a kind of its own, that cannot be saved is unknown."""

    def refuse(*_: object) -> None:
        raise RuntimeError("not to be saved")

    monkeypatch.setattr(torch.jit, "save", refuse)
    monkeypatch.setattr(torch, "save", refuse)
    for value in (SCRIPT, QUANTIZED[0]):
        with pytest.raises(UnknownValueError, match="not to be saved"):
            _Digest().add(value)
