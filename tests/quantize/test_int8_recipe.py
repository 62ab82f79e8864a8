"""Tests of the int8 recipe: integers follow measured ranges, and the float program stays unchanged."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from exporter.quantize import annotate, int8_recipe
from exporter.quantize.int8_recipe import int8_recipe_runner, quantize_by_int8_recipe
from tests.nets import NETS, captured, samples, trained


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
def test_quantized_program_answers_like_the_model(net: str) -> None:
    """On held-out digits, model and quantised program agree on nine of ten classes."""
    program = captured(net).program
    assert program is not None
    run = int8_recipe_runner(quantize_by_int8_recipe(program, samples(net, 0, 64)).module)
    held_out = samples(net, 1400, 50)
    with torch.no_grad():
        batch = [torch.from_numpy(np.concatenate(column)) for column in zip(*held_out, strict=True)]
        outputs = trained(net)(*batch)
    expected = (outputs[0] if isinstance(outputs, tuple) else outputs).argmax(1).numpy()
    actual = np.array([run(sample)[0].argmax() for sample in held_out])
    assert (actual == expected).mean() >= 0.9


@pytest.mark.slow
def test_weights_are_per_channel_int8() -> None:
    """Every convolution and linear weight is stored as int8 with a scale per output channel."""
    program = captured("cnn").program
    assert program is not None
    quantized = quantize_by_int8_recipe(program, samples("cnn", 0, 8)).program()
    calls = Counter(str(node.target) for node in quantized.graph.nodes if node.op == "call_function")
    assert calls["quantized_decomposed.dequantize_per_channel.default"] == 4
    int8 = [t for t in quantized.state_dict.values() if t.dtype == torch.int8]
    assert sorted(t.numel() for t in int8) == [144, 144, 160, 256]


@pytest.mark.slow
def test_ranges_come_from_the_samples() -> None:
    """A program calibrated on zeros saturates on real digits."""
    program = captured("cnn").program
    assert program is not None
    sample = samples("cnn", 1400, 1)[0]
    good = int8_recipe_runner(quantize_by_int8_recipe(program, samples("cnn", 0, 8)).module)(sample)[0]
    blind = int8_recipe_runner(
        quantize_by_int8_recipe(program, ((np.zeros((1, 1, 8, 8), np.float32),),)).module
    )(sample)[0]
    assert np.abs(good - blind).max() > 0.1 * np.abs(good).max()


@pytest.mark.slow
def test_float_program_is_untouched() -> None:
    """Quantising works on a copy of the graph: other formats lower the same program afterwards."""
    program = captured("cnn").program
    assert program is not None
    before = program.graph_module.code
    sample = tuple(torch.from_numpy(a) for a in samples("cnn", 1400, 1)[0])
    expected = program.module()(*sample)
    quantize_by_int8_recipe(program, samples("cnn", 0, 8))
    assert program.graph_module.code == before
    assert torch.equal(program.module()(*sample), expected)


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
def test_patterns_left_out_quantize_nothing(monkeypatch: pytest.MonkeyPatch, net: str) -> None:
    """Searching for all patterns of the quantiser gives the same program."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer

    program = captured(net).program
    assert program is not None
    lean = quantize_by_int8_recipe(program, samples(net, 0, 4)).module
    everything = annotate.annotating_static_quantizer()
    everything.SUPPORTED_PATTERNS = XNNPACKQuantizer.SUPPORTED_PATTERNS
    monkeypatch.setattr(annotate, "annotating_static_quantizer", lambda *_: everything)
    assert lean.code == quantize_by_int8_recipe(program, samples(net, 0, 4)).module.code


@pytest.mark.slow
def test_a_layer_and_its_activation_are_quantised_once() -> None:
    """The convolution's result goes to the ReLU unquantised."""
    program = captured("cnn").program
    assert program is not None
    nodes = quantize_by_int8_recipe(program, samples("cnn", 0, 8)).module.graph.nodes
    activations = [node for node in nodes if any(word in str(node.target) for word in ("relu", "hardtanh"))]
    assert activations
    assert all("conv" in str(node.args[0].target) for node in activations)


def test_no_samples_no_ranges() -> None:
    """Quantising without samples is refused."""
    program = captured("cnn").program
    assert program is not None
    with pytest.raises(ValueError, match="calibration"):
        quantize_by_int8_recipe(program, ())


@pytest.mark.slow
def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    """Another process loads a program that runs and lowers the same, with its float weights."""
    program = captured("cnn").program
    assert program is not None
    made = quantize_by_int8_recipe(program, samples("cnn", 0, 8))
    int8_recipe.save_int8_recipe(made, tmp_path)
    loaded = int8_recipe.load_int8_recipe(tmp_path)
    sample = samples("cnn", 1400, 1)[0]
    assert np.array_equal(
        int8_recipe_runner(loaded.module)(sample)[0], int8_recipe_runner(made.module)(sample)[0]
    )
    assert [w.shape for w in loaded.float_weights.values()] == [w.shape for w in made.float_weights.values()]
    layers = {node.name for node in loaded.module.graph.nodes}
    assert layers.issuperset(loaded.float_weights)
