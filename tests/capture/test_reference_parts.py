"""How the reference leaves out what says nothing: inputs the model refuses, sizes that rounding decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exporter.capture import reference
from exporter.capture.digest import UnknownValueError, _Digest
from exporter.errors import CaptureError
from exporter.records import Sample, TensorSpec


def one(*values: complex, dtype: Any = np.float64) -> Sample:
    return (np.array(values, dtype),)


def test_the_floor_is_the_worst_float_outputs() -> None:
    """Errors are shares of the largest value; whole numbers do not count, and nothing is no error."""
    expected = [(np.array([1.0, 4.0]), np.array([1, 2])), (np.array([2.0, 2.0]), np.array([1, 2]))]
    actual = [(np.array([1.0, 4.4]), np.array([9, 9])), (np.array([2.0, 2.0]), np.array([1, 2]))]
    assert reference._reference_floor(expected, actual) == pytest.approx(0.1)
    assert reference._reference_floor([one(1, dtype=int)], [one(5, dtype=int)]) == 0.0
    assert reference._reference_floor([one(1j, dtype=complex)], [one(-1j, dtype=complex)]) == 2.0


@pytest.mark.parametrize(("floor", "noted"), [(1e-3, False), (1.1e-3, True), (math.inf, True)])
def test_a_large_floor_is_noted(floor: float, noted: bool) -> None:
    """The note gives the figure."""
    notes = reference._reference_floor_note(floor)
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
    reason = reference._unusable_reference(expected, actual)
    assert says in reason
    assert bool(reason) is bool(says)


def test_samples_whose_size_rounding_decides_are_left_out() -> None:
    """All three kinds of runs must agree; the rest keep their order, and a note counts the others."""
    samples = [one(i) for i in range(4)]
    expected = [one(1.0), one(1.0, 2.0), one(1.0), one(5.0)]
    actual = [one(1.0), one(1.0), one(1.0), one(5.0)]
    trials = [[one(1.0), one(1.0), one(1.0, 1.0), one(5.0)]]
    kept = reference._reference_of_equal_sizes(samples, expected, actual, trials)
    assert [s[0].tolist() for s in kept[0]] == [[0], [3]]
    assert [e[0].tolist() for e in kept[1]] == [[1.0], [5.0]]
    assert [a[0].tolist() for a in kept[2]] == [[1.0], [5.0]]
    assert kept[3] == (
        "2 verification sample(s) are left out: rounding alone decides the size of an output there.",
    )
    assert reference._reference_of_equal_sizes(samples, actual, actual, [])[3] == ()
    with pytest.raises(CaptureError, match="on every sample"):
        reference._reference_of_equal_sizes(samples[1:2], expected[1:2], actual[1:2], [])


def test_outputs_keep_their_number_of_dimensions() -> None:
    """An output that has one or two dimensions is refused by its name."""
    captured: Any = SimpleNamespace(outputs=[TensorSpec("a", (1,)), TensorSpec("b", (1,))])
    flat, deep = np.zeros(2), np.zeros((2, 2))
    reference._check_reference_ranks(captured, [(flat, deep), (np.zeros(3), deep)])
    with pytest.raises(CaptureError, match="output 'b' has 1 or 2 dimensions"):
        reference._check_reference_ranks(captured, [(flat, deep), (flat, flat)])


def test_no_samples_have_the_shape_of_one() -> None:
    """Their type stays."""
    (empty,) = reference._empty_reference((np.zeros((2, 3), np.int32),))
    assert empty.shape == (0, 2, 3)
    assert empty.dtype == np.int32


VALUES: Sequence[tuple[Any, Any, bool]] = [
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
