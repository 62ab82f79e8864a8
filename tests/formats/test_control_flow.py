"""Branches within branches, loops and batch norms in training are expressed, or refused for what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from exporter.capture.batch_statistics import batch_statistics_of_program
from exporter.capture.control_flow import control_flow_of_program
from exporter.data import Data
from exporter.errors import LoweringError
from exporter.formats import VARIANTS
from exporter.pipeline import int8_stage, stage_results
from exporter.pipeline.format_refusals import refuse_batch_statistics_by_format
from exporter.records import Captured, Sample
from tests import proof


class Does(nn.Module):
    """A linear layer, and then what the test says."""

    def __init__(self, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Linear(6, 4)
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.first(x))


def branch(x: Tensor) -> Tensor:
    return torch.cond(x.mean() > 0, lambda y: y * 2, lambda y: y - 1, (x,))  # type: ignore[no-any-return]


def branch_in_branch(x: Tensor) -> Tensor:
    return torch.cond(x.sum() > 1, branch, lambda y: y + 3, (x,))  # type: ignore[no-any-return]


def rows(count: int) -> list[Sample]:
    generator = np.random.default_rng(0)
    return [(generator.normal(size=(4, 6)).astype(np.float32),) for _ in range(count)]


def captured(then: Callable[[Tensor], Tensor], folder: Path) -> Captured:
    torch.manual_seed(0)
    return proof.capture(Does(then), rows(12), folder)


@pytest.mark.parametrize(("then", "word"), [(branch, ""), (branch_in_branch, "does not know If within If")])
def test_float16_has_one_level_of_branches(
    then: Callable[[Tensor], Tensor], word: str, tmp_path: Path
) -> None:
    """ONNX has branches at any depth in float32; the converter to float16 knows one level."""
    network = captured(then, tmp_path)
    assert proof.prove(network, "onnx-fp32", tmp_path).status == "passed"
    verdict = proof.prove(network, "onnx-fp16", tmp_path)
    assert verdict.status == ("error" if word else "passed"), verdict.reason
    assert word in (verdict.reason or "")


def test_int8_names_what_it_cannot_quantise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quantiser's own message is about a graph that the user never wrote."""
    from exporter.capture import captured_program

    network = captured(branch_in_branch, tmp_path)
    assert network.program is not None
    assert control_flow_of_program(network.program) == ("torch.cond",)
    captured_program.save_captured_program(network, tmp_path)
    samples = tuple(rows(4))
    monkeypatch.setattr(stage_results, "load_stage_data", lambda _: Data(samples, samples, "arrays"))
    with pytest.raises(LoweringError, match=r"does not know what is within torch\.cond"):
        int8_stage.quantize_in_int8_stage(tmp_path, 0.9)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kept", [False, True])
def test_batch_statistics_are_refused_with_their_line(training: bool, kept: bool, tmp_path: Path) -> None:
    """torch.onnx drops the argument in silence; TorchScript computes it."""
    mean, variance = (torch.zeros(4), torch.ones(4)) if kept or not training else (None, None)
    network = captured(lambda x: functional.batch_norm(x, mean, variance, training=training), tmp_path)
    norm = batch_statistics_of_program(network.program)
    assert (norm is not None) == training
    refuse_batch_statistics_by_format(network, VARIANTS["torchscript-lite-fp32"])
    if norm is not None:
        assert "test_control_flow.py" in (norm.source or "")
        with pytest.raises(LoweringError, match="the statistics of its own batch"):
            refuse_batch_statistics_by_format(network, VARIANTS["onnx-fp32"])
