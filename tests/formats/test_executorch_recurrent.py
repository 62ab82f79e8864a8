"""Recurrent layers in ExecuTorch: each step is written out, and long sequences are loops."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exporter.formats.executorch import VARIANTS, emit
from exporter.formats.executorch.executorch_lowering import lower_to_executorch
from exporter.formats.executorch.executorch_recurrent import (
    are_recurrent_steps_written_out,
    written_out_steps,
)
from exporter.formats.executorch.executorch_recurrent_loop import with_executorch_recurrent_loops
from exporter.formats.executorch.executorch_runtime import load_in_executorch_runtime
from exporter.formats.executorch.pte import read_pte
from exporter.quantize.recurrent_weights import quantize_recurrent_weights
from tests import proof


class Recurrent(nn.Module):
    """A recurrent layer and the last step's output."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(4, 8, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(x)[0]
        return result


def program(kind: str, steps: int, **options: Any) -> torch.export.ExportedProgram:
    shape = (1, steps, 4) if options.get("batch_first") else (steps, 1, 4)
    return torch.export.export(Recurrent(kind, **options).eval(), (torch.randn(shape),))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({}, 1),
        ({"batch_first": True}, 1),
        ({"num_layers": 3}, 3),
        ({"bidirectional": True, "num_layers": 2}, 4),
    ],
)
def test_steps_are_counted(kind: str, options: dict[str, Any], factor: int) -> None:
    """Each layer and direction writes every step out."""
    assert written_out_steps(program(kind, 7, **options)) == 7 * factor


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LSTM", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
        ("LSTM", {"proj_size": 3, "bidirectional": True}),
        ("LSTM", {"bias": False, "num_layers": 2}),
        ("GRU", {"num_layers": 2, "bidirectional": True}),
        ("GRU", {"bias": False, "batch_first": True}),
        ("RNN", {"num_layers": 2}),
        ("RNN", {"nonlinearity": "relu", "bidirectional": True}),
    ],
)
def test_a_loop_computes_what_the_layer_does(kind: str, options: dict[str, Any]) -> None:
    """Outputs and last states are equal, for every kind of layer and other inputs than the example's."""
    torch.manual_seed(0)
    shape = (2, 9, 4) if options.get("batch_first") else (9, 2, 4)
    layer = getattr(nn, kind)(4, 8, **options).eval()
    looped = with_executorch_recurrent_loops(torch.export.export(layer, (torch.randn(shape),)))
    assert written_out_steps(looped) == 0
    x = torch.randn(shape)
    with torch.no_grad():
        torch.testing.assert_close(looped.module()(x), layer(x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("int8", [False, True])
def test_a_long_sequence_is_lowered_in_bounded_time(int8: bool, tmp_path: Path) -> None:
    """1,500 steps, half an hour's when written out, are a loop that ExecuTorch runs, twice alike."""
    torch.manual_seed(0)
    shape = (1, 1500, 4)
    long = torch.export.export(Recurrent("LSTM", batch_first=True).eval(), (torch.randn(shape),))
    if int8:
        module = long.module()
        quantize_recurrent_weights(module)
        long = torch.export.export(module, long.example_inputs[0])
    started = time.process_time()
    data = lower_to_executorch(long, "xnnpack")
    assert time.process_time() - started < 60
    path = tmp_path / "long.pte"
    with path.open("wb") as file:
        data.write_to_file(file)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    run = load_in_executorch_runtime(path, VARIANTS[0], 1)[0]
    with torch.no_grad():
        expected = long.module()(torch.from_numpy(x)).numpy()
    for _ in range(2):
        np.testing.assert_allclose(run((x,))[0], expected, atol=1e-5)
    structure = read_pte(path, VARIANTS[0])
    assert structure.weight_elements == {"int8" if int8 else "float32": 4 * 8 * (4 + 8)}
    assert structure.delegated_fraction == 1.0  # the product of all inputs: no delegate takes a loop


@pytest.mark.slow
def test_a_looped_network_passes_and_says_so(tmp_path: Path) -> None:
    """Its steps are in no delegate, which fails nothing, and a note tells."""
    random = np.random.default_rng(0)
    samples = [(random.normal(size=(1, 150, 4)).astype(np.float32),) for _ in range(8)]
    captured = proof.capture(Recurrent("LSTM", batch_first=True), samples, tmp_path)
    verdict = proof.prove(captured, "executorch-xnnpack-fp32", tmp_path)
    assert (verdict.status, verdict.reason) == ("passed", None)
    notes = emit(captured, VARIANTS[0], tmp_path).notes
    assert any("150 recurrent steps run as loops" in note for note in notes)


def test_short_sequences_are_written_out() -> None:
    """A recogniser's 31 steps in two layers and directions stay XNNPACK's; a speaker encoder's 480 do not."""
    recogniser = program("LSTM", 31, num_layers=2, bidirectional=True)
    assert are_recurrent_steps_written_out(recogniser)
    assert not are_recurrent_steps_written_out(program("LSTM", 160, num_layers=3))


def test_a_network_without_recurrent_layers_has_no_steps() -> None:
    """Other networks are never refused."""
    linear = torch.export.export(nn.Linear(4, 2).eval(), (torch.randn(3000, 4),))
    assert written_out_steps(linear) == 0
