"""Tests of rounding whose errors cancel."""

from __future__ import annotations

import pytest
import torch
from torch import fx
from torch.nn import functional

from exporter.quantize import weight_rounding


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def products(columns: torch.Tensor) -> torch.Tensor:
    return columns @ columns.transpose(1, 2)


def test_results_are_nearer_than_with_the_nearest_steps() -> None:
    """On correlated inputs, as real ones are, results are nearer than with nearest steps."""
    groups, outputs, inputs, places = 2, 5, 24, 4000
    columns = random(groups, inputs, 6) @ random(groups, 6, places) + 0.1 * random(groups, inputs, places)
    weight, scale = random(groups, outputs, inputs), torch.full((groups, outputs, 1), 0.05)
    steps = weight_rounding.weight_rounding_together(weight, products(columns), scale)
    assert torch.equal(steps, steps.round())
    assert steps.abs().max() <= 127

    def error(candidate: torch.Tensor) -> float:
        return float(((candidate * scale - weight).float() @ columns).square().sum())

    assert error(steps) < 0.3 * error(torch.round(weight / scale))


def test_inputs_that_are_always_zero() -> None:
    """The weights of such inputs are rounded to the nearest step, and the others are unaffected."""
    columns = random(1, 4, 100)
    columns[0, 1:3] = 0
    steps = weight_rounding.weight_rounding_together(
        random(1, 3, 4), products(columns), torch.full((1, 3, 1), 0.1)
    )
    assert torch.equal(steps[..., 1:3], torch.round(random(1, 3, 4)[..., 1:3].double() / 0.1))
    dead = weight_rounding.weight_rounding_together(
        random(1, 3, 4), products(columns) * 0, torch.full((1, 3, 1), 0.1)
    )
    assert torch.equal(dead, torch.round(random(1, 3, 4).double() / 0.1))


def test_blocks_of_inputs_compensate_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of a block changes no step, whether blocks divide the inputs or not."""
    weight, scale = random(2, 5, 75), torch.full((2, 5, 1), 0.05)
    moments = products(random(2, 75, 20) @ random(2, 20, 400) + 0.1 * random(2, 75, 400))
    steps = []
    for size in (1, 25, 32, 100):
        monkeypatch.setattr(weight_rounding, "BLOCK", size)
        steps.append(weight_rounding.weight_rounding_together(weight, moments, scale))
    assert all(torch.equal(steps[0], other) for other in steps[1:])


@pytest.mark.parametrize(
    ("groups", "stride", "padding", "dilation"), [(1, 1, 0, 1), (1, 2, 1, 1), (4, 1, 1, 1), (2, 2, 2, 2)]
)
def test_columns_are_what_the_weights_meet(groups: int, stride: int, padding: int, dilation: int) -> None:
    """Weights times columns equal the convolution."""
    weight, inputs = random(8, 4 // groups, 3, 3), [random(1, 4, 9, 9), random(1, 4, 9, 9) + 1]
    graph = fx.Graph()
    arguments = ([stride] * 2, [padding] * 2, [dilation] * 2, groups)
    node = graph.call_function(
        torch.ops.aten.conv2d.default, (graph.placeholder("x"), graph.placeholder("w"), None, *arguments)
    )
    columns_of = weight_rounding._weight_rounding_columns
    columns = torch.cat([columns_of(x, node, groups, (3, 3), 1000) for x in inputs], 2)
    actual = (weight.reshape(groups, 8 // groups, -1) @ columns).reshape(8, -1)
    expected = [functional.conv2d(x, weight, None, stride, padding, dilation, groups)[0] for x in inputs]
    torch.testing.assert_close(actual, torch.cat([y.flatten(1) for y in expected], 1), rtol=1e-4, atol=1e-4)
    few = torch.cat([columns_of(x, node, groups, (3, 3), 7) for x in inputs], 2)
    step = columns.shape[2] // 2 // 7
    halves = columns.chunk(2, 2)
    torch.testing.assert_close(few, torch.cat([half[..., ::step] for half in halves], 2), rtol=0, atol=0)
