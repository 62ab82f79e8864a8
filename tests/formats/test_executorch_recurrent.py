"""Recurrent layers in ExecuTorch: each step is written out, so that long sequences are refused."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import nn

from exporter.errors import LoweringError
from exporter.formats.executorch.executorch_lowering import lower_to_executorch
from exporter.formats.executorch.executorch_recurrent import check_written_out_steps, written_out_steps


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
    ("steps", "options"), [(1000, {}), (3000, {}), (300, {"num_layers": 2}), (300, {"bidirectional": True})]
)
def test_a_long_sequence_is_refused_before_it_is_lowered(steps: int, options: dict[str, Any]) -> None:
    """The message has the steps, the estimate and what to do; nothing is compiled."""
    long = program("LSTM", steps, batch_first=True, **options)
    started = time.process_time()
    with pytest.raises(LoweringError, match=r"would write out [\d,]+ steps, in about \d+ minutes") as caught:
        lower_to_executorch(long, "xnnpack")
    assert time.process_time() - started < 10
    assert "--state explicit" in caught.value.cause
    assert "ONNX" in caught.value.cause


def test_a_usual_sequence_is_taken() -> None:
    """160 frames in three layers, a speaker encoder's, are within the limit."""
    check_written_out_steps(program("LSTM", 160, num_layers=3))


def test_a_network_without_recurrent_layers_has_no_steps() -> None:
    """Other networks are never refused."""
    linear = torch.export.export(nn.Linear(4, 2).eval(), (torch.randn(3000, 4),))
    assert written_out_steps(linear) == 0
