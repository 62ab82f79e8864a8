"""Edge inputs on which rounding alone decides the outputs are found, and no others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.capture import captured_program
from exporter.capture.float64_reference import run_float64_reference
from exporter.records import Model, Sample, TensorSpec
from exporter.verify.reference_io import ReferenceIO

SHAPE = (1, 1, 256)
CONSTANT: Sample = (np.full(SHAPE, -1.3, np.float32),)
RAMP: Sample = (np.linspace(-1, 1, 256, dtype=np.float32).reshape(SHAPE),)


class Speech(nn.Module):
    """The front of a wav2vec 2.0: a norm over time, and a norm over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv1d(1, 8, 10, 5, bias=False), nn.GroupNorm(8, 8)
        self.second, self.last = nn.Conv1d(8, 8, 8, 4, bias=False), nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        features = nn.functional.gelu(self.second(nn.functional.gelu(self.norm(self.first(x)))))
        return self.head(self.last(features.transpose(1, 2)))  # type: ignore[no-any-return]


class NormBySelf(nn.Module):
    """A norm that is written out, of the input itself."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-12)


class Threshold(nn.Module):
    """What is compared with the input's own extreme is met exactly, whatever rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(256, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x >= x.amax()).float())  # type: ignore[no-any-return]


class Network(nn.Module):
    """A well-conditioned network: its norms add a constant of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(1, 8, 9, 4), nn.BatchNorm1d(8), nn.SiLU(), nn.Conv1d(8, 8, 5, 2))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.body(x).mean(-1)))  # type: ignore[no-any-return]


def references(net: nn.Module) -> tuple[ReferenceIO, tuple[str, ...]]:
    torch.manual_seed(0)
    samples: list[Sample] = [
        (np.random.default_rng(i).normal(size=SHAPE).astype(np.float32),) for i in range(3)
    ]
    model = Model(net.eval(), "tests:net", (TensorSpec("x", SHAPE, "float32"),), None, 0)
    captured = captured_program.capture_program(model, samples[0], others=samples[1:])
    return run_float64_reference(captured, samples, {"constant": CONSTANT, "ramp": RAMP})


@pytest.mark.parametrize("kind", [Speech])
def test_norms_of_a_constant_are_decided_by_rounding(kind: type[nn.Module]) -> None:
    """The constant is named in a note, and has no limit; a ramp is judged as ever."""
    torch.manual_seed(0)
    made, notes = references(kind())
    assert made.undecided_edges == ("constant",)
    assert any("'constant'" in note and "Rounding alone decides" in note for note in notes)


@pytest.mark.parametrize("kind", [Threshold, Network])
def test_other_edges_keep_their_limits(kind: type[nn.Module]) -> None:
    """A comparison of the input with itself, and a norm with variation, are no matter of rounding."""
    torch.manual_seed(0)
    made, notes = references(kind())
    assert made.edge_names == ("constant", "ramp")
    assert made.undecided_edges == ()
    assert max(made.edge_floors) < 1e-5
    assert not any("Rounding alone decides" in note for note in notes)


def test_a_norm_that_divides_nothing_by_nothing_is_left_out_or_undecided() -> None:
    """Eager float32 itself is far from float64."""
    made, notes = references(NormBySelf())
    assert "constant" not in made.edge_names or "constant" in made.undecided_edges
    assert any("'constant'" in note for note in notes)
    assert "ramp" in made.edge_names
    assert "ramp" not in made.undecided_edges
