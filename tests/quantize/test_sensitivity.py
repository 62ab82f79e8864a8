"""What each operator costs is measured with a bounded amount of work."""

from __future__ import annotations

from unittest import mock

import pytest

from exporter.quantize import sensitivity
from exporter.quantize.int8_recipe import int8_recipe_tensors
from exporter.quantize.mixed_precision import mixed_precision_operators
from tests.nets import quantized, samples

pytestmark = pytest.mark.slow
CALLS = [int8_recipe_tensors(sample) for sample in samples("cnn", 0, 8)]


def measured(flops: float) -> tuple[list[str], int]:
    """Return the operators that so much arithmetic allows, and on how many samples each is judged."""
    made = quantized("cnn")
    run = mock.Mock(side_effect=sensitivity.run_for_sensitivity)
    with mock.patch.multiple(sensitivity, MOST_FLOPS=flops, run_for_sensitivity=run):
        costs = sensitivity.measure_sensitivity(made.module, made.float_weights, CALLS)
    assert run.call_count == len(costs) + 1
    return [cost.name for cost in costs], len(run.call_args.args[1])


def one_call() -> int:
    made = quantized("cnn")
    return sensitivity._flops_for_sensitivity(made.module, CALLS[0])


def test_the_arithmetic_of_a_call_is_counted() -> None:
    """The layers' multiply-accumulates count twice: at least two for each weight."""
    assert one_call() >= 2 * sum(weight.numel() for weight in quantized("cnn").float_weights.values())


@pytest.mark.parametrize(("runs", "calls"), [(4.0, 4), (3.5, 3), (1.0, 1), (1000.0, 4)])
def test_fewer_samples_come_first(runs: float, calls: int) -> None:
    """All operators are judged as long as each can have one sample; never on more than four."""
    every = [operator.name for operator in mixed_precision_operators(quantized("cnn").module)]
    assert measured(runs * len(every) * one_call()) == (every, calls)


def test_layers_are_judged_first_where_work_is_scarce() -> None:
    """Operators without weights are left out where there is less work; one layer is judged always."""
    made = quantized("cnn")
    names = [operator.name for operator in mixed_precision_operators(made.module)]
    layers = [name for name in names if name in made.float_weights]
    assert 1 < len(layers) < len(names)
    assert measured((len(names) - 1) * one_call()) == (layers, 1)
    some, calls = measured(2 * one_call())
    assert (len(some), calls) == (2, 1)
    assert some == sorted(some, key=layers.index)
    few, calls = measured(0.0)
    assert (len(few), calls) == (1, 1)
    assert set(few) <= set(layers)
