"""Which outputs hold a sigmoid's values, and what that allows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.zoo import Does
from exporter.capture.reference_floor import MAX_FLOOR
from exporter.capture.sigmoids import ERROR, outputs_of_sigmoids
from exporter.formats import FORMATS, VARIANTS
from exporter.verify import reference_io
from tests import proof

HOLDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "scores": lambda a, b: a.sigmoid(),
    "in place": lambda a, b: a.sigmoid_(),
    "boxes and scores": lambda a, b: torch.cat([a * 640, b.sigmoid()], 1).transpose(1, 2),
    "the best": lambda a, b: a.sigmoid().topk(2, 1).values,
    "the best of each": lambda a, b: a.sigmoid().max(1).values,
    "the mean": lambda a, b: a.sigmoid().mean(2),
    "an output gate": lambda a, b: torch.stack([a.sigmoid() * b.tanh(), a]),
    "a part": lambda a, b: a.sigmoid()[:, :2].flatten(1),
}
LACKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "logits": lambda a, b: a,
    "probabilities": lambda a, b: a.softmax(1),
    "scaled": lambda a, b: a.sigmoid() * 640,
    "gated": lambda a, b: a * b.sigmoid(),
    "a layer after it": lambda a, b: a.sigmoid() @ torch.ones(5, 5),
}


def sigmoids(forward: Callable[[Tensor, Tensor], Tensor]) -> tuple[bool, ...]:
    net = Does(lambda net, x: forward(net.a(x), net.b(x)), a=nn.Conv1d(3, 4, 3), b=nn.Conv1d(3, 4, 3))
    return outputs_of_sigmoids(torch.export.export(net.eval(), (torch.rand(1, 3, 7),)))


@pytest.mark.parametrize("name", HOLDS)
def test_what_only_moves_values_holds_a_sigmoids(name: str) -> None:
    """The values are found behind joins, slices and orders."""
    assert sigmoids(HOLDS[name]) == (True,)


@pytest.mark.parametrize("name", LACKS)
def test_what_computes_with_them_does_not(name: str) -> None:
    """Values that are computed further have a rounding of their own."""
    assert sigmoids(LACKS[name]) == (False,)
    assert outputs_of_sigmoids(None) == ()


class Detector(nn.Module):
    """Boxes in pixels and the scores of a network that is not trained: all about 1e-5, hardly varying."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.boxes, self.scores = nn.Linear(16, 8), nn.Linear(16, 6)
        nn.init.constant_(self.scores.bias, -11.5)
        self.scores.weight.data.mul_(1e-2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([320 + 100 * self.boxes(x), self.scores(x).sigmoid()], 1)


def test_a_detector_that_is_not_trained_passes(tmp_path: Path) -> None:
    """ONNX Runtime's sigmoid has an error of 6e-8, which is loud beside such scores; a fault still fails."""
    random = np.random.default_rng(0)
    samples = [(random.normal(size=(1, 16)).astype(np.float32),) for _ in range(16)]
    captured = proof.capture(Detector(), samples, tmp_path)
    references = reference_io.load_reference_io(tmp_path / proof.EVIDENCE)
    assert references.eager_errors[0].min() >= ERROR
    verdict = proof.prove(captured, "onnx-fp32", tmp_path)
    assert (verdict.status, verdict.reason) == ("passed", None)
    other = tmp_path / "other"
    other.mkdir()
    broken = Detector()
    broken.scores.bias.data[3] += 0.5
    wrong = proof.capture(broken.eval(), samples, other)
    verdict = proof.prove(wrong, "onnx-fp32", tmp_path)
    assert verdict.status == "failed"
    assert "[..., 11]" in str(verdict.reason)


def test_small_scores_have_that_error_on_edge_inputs_too(tmp_path: Path) -> None:
    """Scores of 1e-5 alone: a sigmoid's error is a share of them, on every input."""
    layer = nn.Linear(4, 3)
    nn.init.constant_(layer.bias, -11.5)
    layer.weight.data.mul_(1e-2)
    net = nn.Sequential(layer, nn.Sigmoid())
    random = np.random.default_rng(0)
    proof.capture(net, [(random.normal(size=(1, 4)).astype(np.float32),) for _ in range(8)], tmp_path)
    references = reference_io.load_reference_io(tmp_path / proof.EVIDENCE)
    assert references.floor == MAX_FLOOR
    assert len(references.edge_floors) > 2
    assert set(references.edge_floors) == {MAX_FLOOR}


class AlmostClosed(nn.Module):
    """Its gate hands on a few millionths of a state, beside a unit that it hands on whole."""

    def __init__(self, wrong: float = 1.0) -> None:
        super().__init__()
        self.wrong = wrong
        self.register_buffer("open", torch.tensor([20.0, -11.0, -12.0, -13.0]))

    open: Tensor

    def forward(self, x: Tensor) -> Tensor:
        kept: Tensor = torch.nn.functional.softsign(x) * (self.open + x / 8).sigmoid()
        return torch.cat([kept[:, :1], kept[:, 1:] * self.wrong], 1)


def test_a_gate_that_is_nearly_closed_may_be_as_inexact_as_a_sigmoid(tmp_path: Path) -> None:
    """Its units have the sigmoid's absolute error; one that is off by more fails by name."""
    random = np.random.default_rng(0)
    rows = [(random.normal(size=(1, 4)).astype(np.float32),) for _ in range(16)]
    captured = proof.capture(AlmostClosed(), rows, tmp_path)
    errors = reference_io.load_reference_io(tmp_path / proof.EVIDENCE).eager_errors[0].ravel()
    assert errors[1:].min() > ERROR / 20
    assert errors.max() < 2 * ERROR
    assert proof.prove(captured, "onnx-fp32", tmp_path).reason is None
    other = tmp_path / "other"
    other.mkdir()
    wrong = proof.capture(AlmostClosed(1.5), rows, other)
    path = FORMATS["onnx"].emit(wrong, VARIANTS["onnx-fp32"], tmp_path).path
    assert "logits[..., 1]" in str(proof.judge(captured, path, "onnx-fp32").reason)
