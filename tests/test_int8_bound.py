"""Tests of the benchmark that asks how well int8 can do at best."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import int8_bound
from exporter.quantize import int8_recipe
from exporter.records import Array


def sqnr_db(expected: Array, actual: Array) -> float:
    return float(10 * np.log10(np.square(expected).sum() / np.square(expected - actual).sum()))


@pytest.mark.parametrize("decibels", [10.0, 30.0])
def test_random_errors_have_the_given_energy(decibels: float) -> None:
    """The error is as large as its decibels say, and another for another seed."""
    expected = np.random.default_rng(0).normal(size=(6, 100)) + 3
    noisy = int8_bound.noisy_outputs(expected, decibels, 1)
    assert sqnr_db(expected, noisy) == pytest.approx(decibels)
    assert not np.array_equal(noisy, int8_bound.noisy_outputs(expected, decibels, 2))


def test_weights_in_float_leave_the_activations_error() -> None:
    """Rounding activations alone is nearer to float than rounding both, and is not float itself."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)).eval()
    calls = [(torch.randn(1, 3, 8, 8),) for _ in range(12)]
    samples = [(call[0].numpy(),) for call in calls]
    program = int8_recipe.quantize_by_int8_recipe(torch.export.export(network, calls[0]), samples)
    with torch.no_grad():
        expected = torch.cat([network(*call) for call in calls]).numpy()
    outputs = int8_bound.outputs_with_parts_of_int8(program, samples)
    reached = {part: sqnr_db(expected, actual) for part, actual in outputs.items()}
    assert reached[int8_bound.BOTH] < reached[int8_bound.ACTIVATIONS] < 80
