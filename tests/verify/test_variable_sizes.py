"""Outputs whose sizes depend on the data are compared sample by sample, or refused by their names."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.capture.float64_reference import run_float64_reference
from exporter.errors import CaptureError, LoweringError
from exporter.formats import FORMATS, VARIANTS
from exporter.pipeline import build_stage
from exporter.records import Sample
from exporter.verify import reference_io
from exporter.verify.reference_io import stack_like_reference_io
from tests import proof

FP32 = ["onnx-fp32", "ort-fp32", "executorch-xnnpack-fp32", "torchscript-lite-fp32"]


class Selects(nn.Module):
    """Scores and boxes of a row of candidates, of which as many come out as pass a threshold."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.how = nn.Linear(6, 12), how

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.layer(x).reshape(12)
        chosen = y > (100.0 if self.how == "nothing" else 0.2)
        match self.how:
            case "indices":
                return torch.nonzero(chosen), y
            case "rows":
                return y.reshape(6, 2)[chosen.reshape(6, 2)[:, 0]], y
            case _:
                return y[chosen], y


def samples(count: int = 8) -> list[Sample]:
    generator = np.random.default_rng(0)
    return [(generator.normal(size=(1, 6)).astype(np.float32),) for _ in range(count)]


@pytest.mark.parametrize("how", ["values", "rows", "indices", "nothing"])
@pytest.mark.parametrize("variant", FP32)
def test_right_files_pass(variant: str, how: str, tmp_path: Path) -> None:
    """Boolean masks and nonzero, where every sample has its own number of rows, or never any."""
    captured = proof.capture(Selects(how), samples(), tmp_path)
    assert captured.variable == ("output_0",)
    verdict = proof.prove(captured, variant, tmp_path)
    assert (verdict.status, verdict.reason) == ("passed", None)


def test_another_number_of_rows_fails_by_name(tmp_path: Path) -> None:
    """A file that selects at another threshold."""
    captured = proof.capture(Selects("values"), samples(), tmp_path)
    references = reference_io.load_reference_io(tmp_path / proof.EVIDENCE)
    sizes = [int(size) for (size,) in references.shapes[0]]
    assert len(set(sizes)) > 1
    given = [(np.zeros(size), np.zeros(12)) for size in sizes]
    stacked, problem = stack_like_reference_io(given, references.reference, references.shapes, ["kept", "y"])
    assert problem == ""
    assert [array.shape for array in stacked] == [array.shape for array in references.reference]
    given[3] = (np.zeros(sizes[3] + 1), np.zeros(12))
    stacked, problem = stack_like_reference_io(given, references.reference, references.shapes, ["kept", "y"])
    assert stacked == ()
    assert problem == (
        f"Its output kept has shape [{sizes[3] + 1}] on sample 3, the model's has [{sizes[3]}]."
    )
    names = [f"edge{index}" for index in range(len(given))]
    _, problem = stack_like_reference_io(given, references.reference, references.shapes, ["kept", "y"], names)
    assert f"has shape [{sizes[3] + 1}] on the edge input 'edge3', " in problem
    assert captured.outputs[1].shape == (12,)


class Above(nn.Module):
    """Selects the candidates whose score is above a threshold."""

    def __init__(self, how: str, threshold: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.how, self.threshold = nn.Linear(6, 12), how, threshold

    def forward(self, x: Tensor) -> Tensor:
        rows = self.layer(x).reshape(6, 2)
        chosen = rows[:, 0] > self.threshold
        selected: Tensor = rows[:, 0][chosen] if self.how == "values" else rows[chosen]
        return torch.nonzero(chosen) if self.how == "indices" else selected


def near(sample: Sample) -> float:
    """Return a threshold so near below a score of a sample that only a runtime's own sums decide."""
    with torch.no_grad():
        scores = Above("values", 0.0).double().layer(torch.from_numpy(sample[0]).double())
    largest = float(scores.reshape(6, 2)[:, 0].max())
    return largest - 3e-7 * abs(largest)


@pytest.mark.parametrize("how", ["values", "rows", "indices"])
def test_sizes_that_rounding_decides_are_left_out(how: str, tmp_path: Path) -> None:
    """Edge inputs by name, samples by number: float64 and float32 agree, and another runtime may not."""
    close, *clear = samples(7)
    net = Above(how, near(close))
    x = torch.from_numpy(close[0])
    assert net(x).shape == copy.deepcopy(net).double()(x.double()).shape
    captured = proof.capture(net, clear, tmp_path)
    references, notes = run_float64_reference(captured, [*clear, close], {"clear": clear[0], "close": close})
    assert references.edge_names == ("clear",)
    assert len(references.inputs[0]) == len(clear)
    assert "The edge input 'close' is left out: rounding alone decides the size of an output there." in notes
    assert any(note.startswith("1 verification sample(s) are left out") for note in notes), notes


def test_wrong_values_fail(tmp_path: Path) -> None:
    """The right number of rows, each a little off."""
    captured = proof.capture(Selects("values"), samples(), tmp_path)
    wrong = Selects("values").eval()
    with torch.no_grad():
        for parameter in wrong.parameters():
            parameter.mul_(1.0005)
    (tmp_path / "other").mkdir()
    other = proof.capture(wrong, samples(), tmp_path / "other")
    file = FORMATS["onnx"].emit(other, VARIANTS["onnx-fp32"], tmp_path).path
    verdict = proof.judge(captured, file, "onnx-fp32")
    assert verdict.status == "failed"
    assert verdict.comparison is not None


class Squeezes(nn.Module):
    """Returns a vector, or a number."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean() if bool(x.sum() > 0) else x


def test_an_output_of_several_ranks_is_refused_by_name(tmp_path: Path) -> None:
    """There is nothing to stack."""
    with pytest.raises(
        CaptureError, match=r"output 'output' has 0 or 2 dimensions|output 'logits' has 0 or 2"
    ):
        proof.capture(Squeezes(), samples(), tmp_path)


def test_a_format_that_cannot_express_it_names_the_output(tmp_path: Path) -> None:
    """The compiler's own words come after the reason."""
    captured = proof.capture(Selects("values"), samples(), tmp_path)
    refusal = build_stage._name_variable_sizes_in_build_stage(
        LoweringError("Cannot guard on u0", "net.py:3"), captured
    )
    assert (refusal.cause, refusal.source) == (
        "The size of output_0 depends on the data: Cannot guard on u0",
        "net.py:3",
    )
