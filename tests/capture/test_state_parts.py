"""What counts as a network's state, when two of its calls are equal, and orders of equal values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exporter.capture import state
from exporter.capture.captured_program import _captured_program_output_kind
from exporter.capture.other_ties import TiesFromOneEnd

NAN = math.nan


@pytest.mark.parametrize(
    ("first", "again", "equal"),
    [
        ([np.array([1.0, NAN])], [np.array([1.0, NAN])], True),
        ([np.array([1.0, NAN])], [np.array([1.0, 2.0])], False),
        ([np.array([1.0, math.inf])], [np.array([1.0, math.inf])], True),
        ([np.array([1.0, math.inf])], [np.array([1.0 + 1e-9, math.inf])], False),
        ([np.array([1.0, 2.0])], [np.array([1.0, 2.0 + 1e-6])], True),
        ([np.array([1.0, 2.0])], [np.array([1.0, 2.0 + 3e-6])], False),
        ([np.array([complex(0, NAN)])], [np.array([complex(0, NAN)])], True),
        ([np.array([1, 2])], [np.array([1, 2])], True),
        ([np.array([1, 2])], [np.array([1, 3])], False),
        ([np.array([10**9])], [np.array([10**9 + 1])], False),
        ([np.array([1.0])], [np.array([[1.0]])], False),
        ([np.array([1.0])], [np.array([1.0])] * 2, False),
        ([np.array([1.0]), np.array([5])], [np.array([1.0]), np.array([6])], False),
        ([], [], True),
    ],
)
def test_two_calls_are_equal_but_for_the_last_bits(first: list[Any], again: list[Any], equal: bool) -> None:
    """A millionth of the scale for finite floats; anything else must be the same, NaN and Inf included."""
    assert state.same_outputs_for_state(first, again) is equal


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        (torch.ones(2), torch.ones(2), True),
        (torch.ones(2), torch.ones(3), False),
        (torch.ones(2), torch.zeros(2), False),
        (torch.ones(1), 1.0, False),
        (1, 1, True),
        (1, 2, False),
        (1, True, False),
        (None, None, True),
        (None, torch.ones(1), False),
    ],
)
def test_state_is_alike_by_kind_and_value(first: Any, second: Any, alike: bool) -> None:
    """A tensor of another shape is another state, and so is a number in its place."""
    assert state._alike_state(first, second) is alike
    assert state._differing_state({"a": first, "b": 0}, {"a": second, "b": 0}) == (() if alike else ("a",))


def test_what_appears_or_vanishes_is_a_difference() -> None:
    """Names of both sides count, in order."""
    assert state._differing_state({"a": 1}, {"b": 1}) == ("a", "b")


class Holding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.register_buffer("seen", torch.zeros(1))
        self.frames = [torch.ones(1), {"deep": (torch.full((1,), 2.0),)}]
        self.table = {"k": torch.full((1,), 3.0), "n": 4}
        self.count, self.name, self.nothing = 5, "x", None


def test_tensors_are_found_by_their_paths() -> None:
    """Parameters, buffers, attributes, and what lists and dictionaries hold, three levels deep; as copies."""
    holding = Holding()
    tensors = state.state_tensors(holding)
    assert set(tensors) == {
        "layer.weight", "layer.bias", "seen", "frames.0", "frames.1.deep.0", "table.k",
    }  # fmt: skip
    assert tensors["table.k"].item() == 3.0
    holding.get_buffer("seen").add_(1)
    assert tensors["seen"].item() == 0.0
    assert state._list_nested_state([[[["deep"]]]]) == [("0.0.0", ["deep"])]
    assert state._list_nested_state(7) == [("", 7)]


def test_plain_attributes_are_printed_by_their_paths() -> None:
    """Numbers, texts and containers; tensors and modules are not."""
    plain = state.plain_state(nn.Sequential(Holding()))
    assert {name: plain[f"0.{name}"] for name in ("count", "name", "nothing")} == {
        "count": "5",
        "name": "'x'",
        "nothing": "None",
    }
    assert "0.layer.in_features" in plain
    assert "0.seen" not in plain
    assert "training" not in plain


def test_attributes_are_no_buffers() -> None:
    """What an exported file drops is named."""
    assert state.state_not_in_buffers(Holding(), ("seen", "frames.0", "table.k")) == ("frames.0", "table.k")


def test_kinds_of_tensors_have_names() -> None:
    """As a message calls them."""
    assert _captured_program_output_kind(torch.eye(2).to_sparse()) == "sparse_coo"
    assert (
        _captured_program_output_kind(torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])) == "nested"
    )
    assert (
        _captured_program_output_kind(torch.quantize_per_tensor(torch.ones(1), 1.0, 0, torch.qint8))
        == "quantised"
    )


X = torch.tensor([[1.0, 2, 2], [3, 3, 3]])


@pytest.mark.parametrize(("last", "first"), [(False, [1, 0]), (True, [2, 2])])
def test_equal_values_come_from_one_end(last: bool, first: list[int]) -> None:
    """The last axis is meant unless another is given; the mode notes that it was of use."""
    with TiesFromOneEnd(last) as mode:
        values, indices = torch.topk(X, 1)
        assert mode.used
        assert indices[:, 0].tolist() == first
        assert values[:, 0].tolist() == [2, 3]
        assert torch.sort(X, descending=True)[1][:, 0].tolist() == first
        assert torch.sort(X.t(), dim=0, descending=True)[1][0].tolist() == first
        ascending = torch.sort(X)[1]
        smallest = torch.topk(X, 2, largest=False)[1]
    assert ascending[0].tolist() == ([0, 2, 1] if last else [0, 1, 2])
    assert ascending[1].tolist() == ([2, 1, 0] if last else [0, 1, 2])
    assert smallest.tolist() == ascending[:, :2].tolist()
    with TiesFromOneEnd(last) as mode:
        torch.sort(torch.tensor(1.0))
        X.sum()
    assert not mode.used
