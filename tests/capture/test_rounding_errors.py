"""The effect of rounding on outputs is found, on networks whose outputs it decides."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.capture import calls, captured_program, other_ties, rounding_errors
from exporter.capture.float64_reference import run_float64_reference
from exporter.records import Model, Sample, TensorSpec
from exporter.verify import reference_io
from exporter.verify.reference_io import ReferenceIO


class Peaks(nn.Module):
    """A small keypoint detector: where a heatmap is largest, its two largest values, and the map."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 1, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        heat = self.conv(x).flatten(1)
        return heat.argmax(1), heat


def reference(net: nn.Module, samples: Sequence[Sample], edges: Mapping[str, Sample]) -> ReferenceIO:
    model = Model(net.eval(), "test:net", (TensorSpec("x", (1, 1, 8, 8)),), None, 0)
    return run_float64_reference(captured_program.capture_program(model, samples[0]), samples, edges)[0]


@pytest.fixture(scope="module")
def references() -> ReferenceIO:
    random = np.random.default_rng(0)
    samples = [(random.normal(size=(1, 1, 8, 8)).astype(np.float32),) for _ in range(8)]
    edges = {"flat": (np.full((1, 1, 8, 8), 0.3, np.float32),), "random": samples[3]}
    return reference(Peaks(), samples, edges)


def test_a_clear_choice_is_stable_and_a_tie_is_not(references: ReferenceIO) -> None:
    """On a flat input every place is as large as any other: rounding decides which one is called largest."""
    assert not references.eager_errors[0].any()
    assert references.edge_unstable[0].reshape(2).tolist() == [True, False]


class Best(nn.Module):
    """Returns the places of the largest, or smallest, of rounded values, of which many are equal."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        rounded = x.flatten(1).round()
        match self.how:
            case "top-k":
                return rounded.topk(3, dim=1).indices
            case "lowest":
                return torch.topk(rounded, 3, largest=False).indices
            case "argsort":
                return rounded.argsort(1, descending=True)[:, :3]
            case _:
                return torch.sort(rounded, dim=1, stable=True).indices[:, :3]


@pytest.mark.parametrize(
    ("how", "unstable"), [("top-k", True), ("lowest", True), ("argsort", True), ("stable", False)]
)
def test_places_of_equal_values_are_not_compared(how: str, unstable: bool) -> None:
    """Which of equal values a top-k keeps is a runtime's own matter; a stable sort says it."""
    random = np.random.default_rng(1)
    tied = (random.normal(size=(1, 1, 8, 8)).astype(np.float32),)
    clear = (random.permutation(64).astype(np.float32).reshape(1, 1, 8, 8),)
    references = reference(Best(how), [tied, clear], {})
    assert bool(references.eager_errors[0][0].any()) is unstable
    assert not references.eager_errors[0][1].any()


def test_float_outputs_have_an_error_per_element(references: ReferenceIO) -> None:
    """Each element's error is of the size of a rounding, and is shaped as one output."""
    errors = references.eager_errors[1]
    assert errors.shape == (1, 36)
    assert 0 < errors.max() < 1e-5


@pytest.mark.parametrize("field", ["eager_errors", "edge_unstable"])
def test_rounding_is_kept_in_the_file(references: ReferenceIO, tmp_path: Path, field: str) -> None:
    """The evidence keeps the rounding for `export-mobile verify`."""
    reference_io.save_reference_io(references, tmp_path / "evidence.npz")
    again = reference_io.load_reference_io(tmp_path / "evidence.npz")
    assert again.edge_floors == references.edge_floors
    assert again.output_names == references.output_names == ("output_0", "output_1")
    for before, after in zip(getattr(references, field), getattr(again, field), strict=True):
        np.testing.assert_array_equal(before, after)


class Refuses(Peaks):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if bool((x.double() * 8 % 1 != 0).any()):
            raise ValueError("not a grey level")
        return super().forward(x)


def test_a_model_that_refuses_nudged_inputs_has_a_reference() -> None:
    """A model that refuses nudged inputs, such as other than whole grey levels, has fewer runs."""
    random = np.random.default_rng(0)
    samples = [(random.integers(0, 8, (1, 1, 8, 8)).astype(np.float32) / 8,) for _ in range(4)]
    references = reference(Refuses(), samples, {"black": (np.zeros((1, 1, 8, 8), np.float32),)})
    assert references.eager_errors[0].dtype == bool
    assert not references.eager_errors[0].all()


def test_nudges_follow_from_their_seed() -> None:
    """The same seed changes weights and inputs alike; another seed changes both otherwise."""
    sample = (np.ones((1, 4), np.float32), np.arange(3))

    def nudged(seed: int) -> tuple[Sample, Tensor]:
        module = nn.Linear(4, 2)
        nn.init.ones_(module.weight)
        run = rounding_errors.rounding_errors_runner(module, lambda _: lambda inputs: inputs, seed)
        return run(sample), module.weight.detach()

    (first, weight), (again, same), (other, another) = nudged(1), nudged(1), nudged(2)
    np.testing.assert_array_equal(first[0], again[0])
    assert torch.equal(weight, same)
    assert not np.array_equal(first[0], other[0])
    assert not torch.equal(weight, another)
    assert first[0].dtype == np.float32
    assert 0 < np.abs(first[0] - 1).max() < 1e-5
    assert 0 < (weight - 1).abs().max() < 1e-5
    assert first[1] is sample[1]


def test_ties_are_resolved_from_both_ends() -> None:
    """Two runs take the first and the last of equal values; a network without top-k has no such runs."""

    def runs(net: nn.Module) -> list[reference_io.Stacks]:
        samples = [(np.zeros((1, 6), np.float32),), (np.ones((1, 6), np.float32),)]
        return rounding_errors.run_nudged_rounding_errors(net, copy.deepcopy, calls.call_runner, samples)

    class Top(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.topk(x, 2).indices

    *nudged, first, last = runs(Top())
    assert len(nudged) == rounding_errors.TRIALS
    assert first[0].tolist() == [[[0, 1]]] * 2
    assert last[0].tolist() == [[[5, 4]]] * 2
    assert len(runs(nn.ReLU())) == rounding_errors.TRIALS


def test_other_operators_are_left_alone() -> None:
    """An operator without ties keeps its keywords, and a scalar its order."""
    with other_ties.TiesFromOneEnd(last=True) as mode:
        assert torch.ones(2).sum(dtype=torch.float64).dtype == torch.float64
        assert torch.full((2,), 3, dtype=torch.int64).dtype == torch.int64
        assert torch.sort(torch.tensor(1.0)).indices.item() == 0
    assert not mode.used
