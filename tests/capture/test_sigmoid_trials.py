"""What another sigmoid makes of outputs, which integers are quantities, and what widened casts compute."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from exporter.capture import rounded_outputs, sigmoid_trials, widened_casts
from exporter.capture.sigmoids import ERROR

aten = torch.ops.aten
X = torch.linspace(-4, 4, 1001, dtype=torch.float64)


@pytest.mark.parametrize(
    ("gate", "scale"),
    [
        (torch.sigmoid, torch.ones(1)),
        (lambda x: x.clone().sigmoid_(), torch.ones(1)),
        (nn.functional.silu, X.abs()),
        (lambda x: nn.functional.silu(x.clone(), inplace=True), X.abs()),
    ],
)
def test_a_sigmoid_is_changed_by_at_most_its_error(gate: Any, scale: Tensor) -> None:
    """The errors go both ways, nearly to the bound; x times a sigmoid has x times as much."""
    with sigmoid_trials.SigmoidsOff():
        off = gate(X)
    shares = (off - gate(X)) / ERROR / scale.clamp(min=1e-9)
    inner = shares[scale.expand_as(shares) > 1e-3]
    assert inner.abs().max() <= 1 + 1e-6
    assert inner.max() > 0.9
    assert inner.min() < -0.9
    assert off.dtype == torch.float64


def test_other_operators_are_not_changed() -> None:
    """Every trial has the same errors."""
    with sigmoid_trials.SigmoidsOff():
        assert torch.equal(torch.tanh(X), X.tanh())
        assert torch.zeros(2, dtype=torch.int64).sum(dtype=torch.float32).dtype == torch.float32
        first = X.sigmoid()
    with sigmoid_trials.SigmoidsOff():
        assert torch.equal(first, X.sigmoid())


def program_of(*operators: Any) -> Any:
    graph = fx.Graph()
    node = graph.placeholder("x")
    for operator in operators:
        node = graph.call_function(operator, (node,))
    return SimpleNamespace(graph=graph)


def test_the_largest_error_of_the_first_samples_counts() -> None:
    """Each element has its own; whole numbers, infinities and larger outputs have none."""
    given: list[int] = []

    def sequences(samples: Any) -> Any:
        given.append(len(samples))
        rows = ([0.5, 1.0], [1.0, -2.0], [np.inf, np.nan])
        return [[(np.array(row), np.array([5])) for row in rows], [(np.ones(3), np.array([1]))]]

    exact: Any = SimpleNamespace(sequences=sequences)
    samples: Any = [(np.ones(1),)] * 20
    expected: Any = [(np.zeros(2), np.array([1]))] * 3
    for gate in (aten.sigmoid.default, aten.silu.default, aten.lstm.input, aten.gru.input):
        errors = sigmoid_trials.errors_of_sigmoid_trial(program_of(gate), exact, samples, expected)
        assert [e.tolist() for e in errors] == [[1.0, 2.0], [0.0]]
        assert [e.dtype for e in errors] == [np.float32] * 2
    assert given == [sigmoid_trials.USED] * 4
    for program in (None, program_of(aten.tanh.default)):
        assert sigmoid_trials.errors_of_sigmoid_trial(program, exact, samples, expected) == ()


class Integers(nn.Module):
    """Gives integers of many origins."""

    def forward(self, x: Tensor, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        values, places = x.topk(2)
        low, high = torch.aminmax(x, dim=1)
        return {
            "rounded": x.round().to(torch.int64),
            "rounded, then moved": (x * 255).to(torch.uint8).flatten() + 1,
            "the best place": x.argmax(1),
            "places": places,
            "values": values.to(torch.int32),
            "places, as floats and back": (places.float() * 2).to(torch.int64),
            "a count of the mask": mask.sum(1).float().to(torch.int64),
            "a comparison": (x > 0).to(torch.int64),
            "the input": ids + 1,
            "the input, scaled": (ids.float() * 0.5).to(torch.int64),
            "the smallest": low.to(torch.int64),
            "the largest": high.to(torch.int64),
            "a constant": torch.ones(3).to(torch.int64) + 1,
            "floats": x * 2,
            "a float of a rounded one": x.to(torch.int64).float(),
        }


ROUNDED = {
    "rounded", "rounded, then moved", "values", "the input, scaled", "the smallest", "the largest",
}  # fmt: skip


def test_a_rounded_quantity_is_told_from_a_choice() -> None:
    """Integers that were floats of an input are quantities; places, counts and comparisons are choices."""
    inputs = torch.randn(2, 5), torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.bool)
    program = torch.export.export(Integers(), inputs)
    rounded = rounded_outputs.outputs_of_rounded_quantities(program)
    names = list(Integers()(*inputs))
    assert {name for name, is_rounded in zip(names, rounded, strict=True) if is_rounded} == ROUNDED
    assert rounded_outputs.outputs_of_rounded_quantities(None) == ()


STORED = torch.ones(2)
WIDENED: dict[str, tuple[Any, torch.dtype]] = {
    "a cast": (lambda x: x.to(torch.float32), torch.float64),
    "a cast to complex": (lambda x: x.to(torch.complex64), torch.complex128),
    "a type by name": (lambda x: torch.zeros(2, dtype=torch.float32) + x.sum(), torch.float64),
    "a cast to half": (lambda x: x.half(), torch.float16),
    "a constant": (lambda x: x + torch.tensor([1.0, 2.0]), torch.float64),
    "whole numbers": (lambda x: x.to(torch.int64), torch.int64),
    "a product with a stored tensor": (lambda x: x * STORED, torch.float64),
}


@pytest.mark.parametrize("name", WIDENED)
def test_float32_in_the_code_becomes_float64(name: str) -> None:
    """Casts, types that are arguments, and tensors of the network; other types stay."""
    forward, dtype = WIDENED[name]
    third = torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)
    with widened_casts.WidenedCasts():  # type: ignore[no-untyped-call]
        output = forward(third)
    assert output.dtype == dtype
    run = widened_casts.with_widened_casts(lambda sample: (forward(torch.from_numpy(sample[0])).numpy(),))
    assert torch.from_numpy(run((third.numpy(),))[0]).dtype == dtype


def test_state_is_written_where_it_is() -> None:
    """A float32 buffer that is changed in place keeps its type and its place, and a view of it is one."""
    buffer = torch.zeros(2)
    with widened_casts.WidenedCasts():  # type: ignore[no-untyped-call]
        buffer.add_(torch.ones(2, dtype=torch.float64))
        buffer.view(1, 2).mul_(3)
        buffer[:1].copy_(torch.full((1,), 7, dtype=torch.float64))
    assert buffer.dtype == torch.float32
    assert buffer.tolist() == [7.0, 3.0]
