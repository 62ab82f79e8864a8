"""Tests of the costs of dynamically quantised linear layers, and of the search over them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch

from exporter.quantize import dynamic_int8, operator_ranking, sensitivity
from exporter.quantize.graphs import DEQUANTIZE_CHANNELS, DEQUANTIZE_DYNAMIC
from exporter.quantize.int8_recipe import int8_recipe_tensors
from exporter.quantize.mixed_precision import keep_float_in_mixed_precision, mixed_precision_operators
from tests.nets import quantized, samples, trained

pytestmark = pytest.mark.slow
NETS = ("loud_tokens", "loud_channels")
"""Networks with dynamic ranges, and with only int8 weights."""


def calls(net: str, first: int = 0, count: int = 8) -> Sequence[tuple[torch.Tensor, ...]]:
    return [int8_recipe_tensors(sample) for sample in samples(net, first, count)]


def dequantisers(module: torch.fx.GraphModule) -> int:
    return sum(n.target in (DEQUANTIZE_DYNAMIC, DEQUANTIZE_CHANNELS) for n in module.graph.nodes)


@pytest.mark.parametrize("net", NETS)
def test_every_linear_layer_has_a_cost(net: str) -> None:
    """Each layer costs something, none costs all, and its operator is named."""
    made = quantized(net)
    costs = sensitivity.measure_sensitivity(made.module, made.float_weights, calls(net))
    assert [cost.name for cost in costs] == [n.name for n in mixed_precision_operators(made.module)] != []
    assert {cost.kind for cost in costs} == {"linear"}
    assert all(0 < cost.noise < 0.1 for cost in costs)


@pytest.mark.parametrize("net", NETS)
def test_all_of_them_in_float_are_the_model(net: str) -> None:
    """Neither activations nor weights are rounded when all layers are in float."""
    made = quantized(net)
    in_float = keep_float_in_mixed_precision(
        made.module,
        made.float_weights,
        [operator.name for operator in mixed_precision_operators(made.module)],
    )
    assert dequantisers(made.module) > dequantisers(in_float) == 0
    (sample,) = calls(net, 1400, 1)
    with torch.no_grad():
        torch.testing.assert_close(in_float(*sample), trained(net)(*sample), rtol=1e-4, atol=1e-4)


def test_one_in_float_leaves_the_others_rows_rounded() -> None:
    """The first layer reads its input unrounded; the rest of the program is unchanged."""
    made = quantized("loud_tokens")
    first, *others = mixed_precision_operators(made.module)
    mixed = keep_float_in_mixed_precision(made.module, made.float_weights, [first.name])
    assert [operator.name for operator in mixed_precision_operators(mixed)] == [
        operator.name for operator in others
    ]
    assert dynamic_int8.is_dynamic_int8(mixed)


def test_candidates_follow_from_what_rounding_rows_costs() -> None:
    """The noise on unseen inputs falls from candidate to candidate, but for errors that cancel."""
    made = quantized("loud_tokens")
    activations, prices = operator_ranking.measure_for_operator_ranking(
        made.module, made.float_weights, calls("loud_tokens")
    )
    assert {name for a in activations for name in a.operators} == {
        n.name for n in mixed_precision_operators(made.module)
    }
    in_float: list[tuple[str, ...]] = [
        (),
        *(mix.float_ops for mix in operator_ranking.rank_operators(activations, prices)),
    ]
    assert len(in_float) > 1
    held_out = calls("loud_tokens", 1400, 16)
    with torch.no_grad():
        expected = [(trained("loud_tokens")(*sample),) for sample in held_out]
    noises = [
        sensitivity.sensitivity_noise(
            expected,
            sensitivity.run_for_sensitivity(
                dynamic_int8.dynamic_int8_by_rows(
                    keep_float_in_mixed_precision(made.module, made.float_weights, names)
                ),
                held_out,
            ),
        )
        for names in in_float
    ]
    for before, after in itertools.pairwise(noises):
        assert after < 1.5 * before  # errors of two operators may have cancelled
    assert noises[-1] < noises[0] / 10


def test_weights_alone_have_no_activation_to_spare() -> None:
    """The search has nothing to try where activations are float."""
    made = quantized("loud_channels")
    activations, prices = operator_ranking.measure_for_operator_ranking(
        made.module, made.float_weights, calls("loud_channels")
    )
    assert operator_ranking.rank_operators(activations, prices) == ()
