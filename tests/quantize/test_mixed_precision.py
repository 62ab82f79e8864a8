"""Tests of operators back in float, and of each operator's cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from exporter.quantize import int8_recipe, sensitivity
from exporter.quantize.graphs import DEQUANTIZE, DEQUANTIZE_CHANNELS, QUANTIZE, graph_attribute
from exporter.quantize.int8_recipe import int8_recipe_tensors, quantize_by_int8_recipe
from exporter.quantize.mixed_precision import keep_float_in_mixed_precision, mixed_precision_operators
from tests.nets import captured, quantized, samples, trained

pytestmark = pytest.mark.slow


def calls(first: int, count: int) -> list[tuple[torch.Tensor, ...]]:
    return [int8_recipe_tensors(sample) for sample in samples("cnn", first, count)]


def with_float(*names: str) -> torch.fx.GraphModule:
    made = quantized("cnn")
    return keep_float_in_mixed_precision(made.module, made.float_weights, names)


def test_operators_are_named_by_the_users_modules() -> None:
    """Operators are in running order, with the path of their module."""
    listed = [
        (operator.layer, operator.kind) for operator in mixed_precision_operators(quantized("cnn").module)
    ]
    assert listed == [
        ("stem.0", "conv2d"),
        ("depthwise.0", "conv2d"),
        ("pointwise.0", "conv2d"),
        ("add", "add"),
        ("mean", "mean"),
        ("head", "linear"),
    ]


def test_rounding_again_is_no_operator() -> None:
    """A tensor that goes from one scale to another is read by a quantiser only."""
    graph = torch.fx.Graph()
    value = graph.placeholder("x")
    for scale in (0.1, 0.2):
        value = graph.call_function(QUANTIZE, (value, scale, 0, -128, 127, torch.int8))
        value = graph.call_function(DEQUANTIZE, (value, scale, 0, -128, 127, torch.int8))
    graph.output(graph.call_function(torch.ops.aten.relu.default, (value,)))
    module = torch.fx.GraphModule(torch.nn.Module(), graph)
    assert [operator.kind for operator in mixed_precision_operators(module)] == ["relu"]


def test_with_everything_in_float_the_network_is_the_float_one(tmp_path: Path) -> None:
    """No quantiser is left; with corrections taken back, the outputs are those of the original weights."""
    program = captured("cnn").program
    assert program is not None
    made = quantize_by_int8_recipe(program, samples("cnn", 0, 8))
    assert made.uncorrected
    before = [made.module(*call) for call in calls(0, 2)]
    int8_recipe.save_int8_recipe(made, tmp_path)
    for quantized_again in (made, int8_recipe.load_int8_recipe(tmp_path)):
        plain = quantized_again.without_corrections()
        names = [operator.name for operator in mixed_precision_operators(plain.module)]
        module = keep_float_in_mixed_precision(plain.module, plain.float_weights, names)
        assert not {node.target for node in module.graph.nodes} & {DEQUANTIZE, DEQUANTIZE_CHANNELS}
        assert not [name for name, tensor in module.named_buffers() if tensor.dtype == torch.int8]
        with torch.no_grad():
            for call in calls(0, 4):
                torch.testing.assert_close(module(*call), trained("cnn")(*call), rtol=1e-4, atol=1e-4)
    for call, output in zip(calls(0, 2), before, strict=True):
        torch.testing.assert_close(made.module(*call), output, rtol=0, atol=0)


def test_layers_without_corrections_are_rounded_anew() -> None:
    """Each layer's integers stand for its own float weight, not for the corrected one."""
    program = captured("cnn").program
    assert program is not None
    made = quantize_by_int8_recipe(program, samples("cnn", 0, 8))
    plain = made.without_corrections()
    assert not plain.uncorrected
    weights = {node.name: node.args[1] for node in plain.module.graph.nodes if node.name in made.uncorrected}
    for name, dequantize in weights.items():
        steps, scale = (graph_attribute(plain.module, str(node.target)) for node in dequantize.args[:2])
        weight = plain.float_weights[name]
        scale = scale.reshape(-1, *[1] * (weight.dim() - 1))
        assert not torch.equal(weight, made.float_weights[name])
        assert (weight / scale - steps).abs().mean() < (made.float_weights[name] / scale - steps).abs().mean()


def test_a_tensor_stays_quantised_while_one_side_is() -> None:
    """A float convolution reads what the int8 one before it wrote, and writes float."""
    whole, mixed = quantized("cnn").module, with_float("conv2d_2")
    before, after = (sum(n.target is DEQUANTIZE for n in m.graph.nodes) for m in (whole, mixed))
    assert "conv2d_2_float_weight" in mixed.code
    assert sum(n.target is DEQUANTIZE_CHANNELS for n in mixed.graph.nodes) == 3
    assert before == after  # the addition is still int8: it reads the result quantised
    apart = with_float("conv2d_2", "add")
    assert sum(n.target is DEQUANTIZE for n in apart.graph.nodes) < after


def test_the_whole_program_is_left_alone() -> None:
    """Candidates are copies, so the whole program is unchanged."""
    code = quantized("cnn").module.code
    with_float("conv2d", "add")
    assert quantized("cnn").module.code == code


def test_costs_are_those_of_one_operator_at_a_time() -> None:
    """Each cost is between zero and that of all operators; coarser weights cost more."""
    made = quantized("cnn")
    costs = sensitivity.measure_sensitivity(made.module, made.float_weights, calls(0, 8))
    names = {operator.name for operator in mixed_precision_operators(made.module)}
    expected = sensitivity.run_for_sensitivity(
        keep_float_in_mixed_precision(made.module, made.float_weights, names), calls(0, 8)
    )
    whole = sensitivity.sensitivity_noise(expected, sensitivity.run_for_sensitivity(made.module, calls(0, 8)))
    assert {cost.name for cost in costs} == names
    assert all(0 < cost.noise < 2 * whole for cost in costs)
    coarse = {**made.float_weights, "linear": made.float_weights["linear"] * 1.1}
    worse = sensitivity.measure_sensitivity(made.module, coarse, calls(0, 8))
    assert worse[-1].noise > 5 * costs[-1].noise


def test_noise_is_relative_and_the_worst_outputs() -> None:
    """A tenth of the output is 20 dB at any scale, and the worst output counts."""
    y, z = torch.full((4,), 1e-6), torch.full((4,), 5.0)
    assert sensitivity.sensitivity_noise([(y, z)], [(y * 1.1, z)]) == pytest.approx(0.01, rel=1e-4)
    assert sensitivity.sensitivity_noise([(y, z)], [(y * 1.1, z * 2)]) == pytest.approx(1.0, rel=1e-4)
