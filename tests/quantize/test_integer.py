"""Tests of XNNPACK's integer arithmetic, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from exporter.quantize import integer
from exporter.quantize.graphs import DEQUANTIZE, DEQUANTIZE_CHANNELS, QUANTIZE
from exporter.quantize.int8_recipe import int8_recipe_runner
from exporter.quantize.integer import IntegerInterpreter
from tests.nets import NETS, quantized, samples

INT8 = (-128, 127, torch.int8)


class Linear(nn.Module):
    """Computes y = q(dq(x) @ dq(weight)' + bias) with scales 0.5 and 0.25, and 1.0 for the result."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Any:
        w = DEQUANTIZE_CHANNELS(weight, torch.tensor([0.25]), torch.tensor([0]), 0, *INT8)
        y = torch.ops.aten.linear.default(DEQUANTIZE(QUANTIZE(x, 0.5, 3, *INT8), 0.5, 3, *INT8), w, bias)
        return QUANTIZE(y, 1.0, 0, *INT8)


class Add(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Any:
        a = DEQUANTIZE(QUANTIZE(x, 0.5, 3, *INT8), 0.5, 3, *INT8)
        b = DEQUANTIZE(QUANTIZE(y, 0.25, 0, *INT8), 0.25, 0, *INT8)
        return QUANTIZE(torch.ops.aten.add.Tensor(a, b), 1.0, 0, *INT8)


def _linear_inputs(x: float, weight: int, bias: float) -> tuple[Tensor, Tensor, Tensor]:
    return torch.tensor([[x]]), torch.tensor([[weight]], dtype=torch.int8), torch.tensor([bias])


def _run(module: nn.Module, *inputs: Tensor) -> int:
    return int(IntegerInterpreter(fx.symbolic_trace(module)).run(*inputs))


@pytest.mark.parametrize(
    ("weight", "bias", "x", "expected"),
    [
        # x is 4 steps of 0.5, weight 3 steps of 0.25: 1.5 is a tie, and goes to the even 2.
        (3, 0.0, 2.0, 2),
        # 2.5 ties to 2 with the exact bias of 1.0 = 8 accumulator steps of 0.125.
        (3, 1.0, 2.0, 2),
        # 1.04 is 8.32 accumulator steps: an integer kernel adds 8, and 2.5 still ties to 2 (float: 3).
        (3, 1.04, 2.0, 2),
        # 1.07 is 8.56 steps and counts as 9: past the tie.
        (3, 1.07, 2.0, 3),
    ],
)
def test_biases_are_rounded_to_accumulator_steps(weight: int, bias: float, x: float, expected: int) -> None:
    """An integer kernel's bias is a whole number of steps, which decides ties."""
    assert _run(Linear(), *_linear_inputs(x, weight, bias)) == expected


def test_float_arithmetic_decides_that_tie_otherwise() -> None:
    """Eager PyTorch rounds the tie to the other side, which is why the interpreter exists."""
    assert int(Linear()(*_linear_inputs(2.0, 3, 1.04))) == 3


@pytest.mark.parametrize(
    ("x", "y", "expected"), [(1.0, 0.5, 2), (2.0, 0.5, 3), (-1.0, -0.5, -1), (1.0, 0.25, 1)]
)
def test_additions_round_half_up(x: float, y: float, expected: int) -> None:
    """Shifting right after adding a half rounds ties towards plus infinity, not to even."""
    assert _run(Add(), torch.tensor([x]), torch.tensor([y])) == expected


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
def test_integer_and_float_arithmetic_tell_the_same_story(monkeypatch: pytest.MonkeyPatch, net: str) -> None:
    """Integer and float arithmetic differ by a few steps on whole networks: 25 dB or better."""
    module = quantized(net).module
    held_out = samples(net, 1400, 32)
    exact = int8_recipe_runner(module)
    monkeypatch.setattr(integer, "IntegerInterpreter", fx.Interpreter)
    eager = int8_recipe_runner(module)
    a = np.concatenate([exact(sample)[0] for sample in held_out])
    b = np.concatenate([eager(sample)[0] for sample in held_out])
    assert not np.array_equal(a, np.zeros_like(a))
    assert 10 * np.log10((b**2).sum() / (((a - b) ** 2).sum() + 1e-30)) >= 25
