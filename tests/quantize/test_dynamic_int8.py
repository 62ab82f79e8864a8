"""Tests of dynamic int8, which is used only where static ranges lose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from exporter.formats import FORMATS
from exporter.quantize import dynamic_int8, int8_recipe
from exporter.quantize.dynamic_int8 import dynamic_int8_rounded_rows, is_dynamic_int8_worthwhile
from exporter.records import Array, Sample, Variant
from exporter.verify.compare_outputs import compare_sqnr_db
from tests.nets import captured, captured_int8, quantized, samples, trained

NET = "loud_tokens"
VARIANTS = [
    variant
    for name, module in FORMATS.items()
    for variant in module.VARIANTS
    if variant.precision == "int8" and name != "onnx-qnn"
]
"""The int8 variants but those of the NPU, whose compiler refuses scales that the graph computes."""


def outputs(run: object, held_out: tuple[Sample, ...]) -> Array:
    return np.concatenate([run(sample)[0] for sample in held_out])  # type: ignore[operator]


def float_outputs(held_out: tuple[Sample, ...]) -> Array:
    with torch.no_grad():
        batch = torch.from_numpy(np.concatenate([sample[0] for sample in held_out]))
        outputs: Array = trained(NET)(batch).numpy()
    return outputs


@pytest.mark.slow
def test_fixed_ranges_alone_fail() -> None:
    """Static ranges miss the limit of 20 dB when some tokens are a thousand times as loud."""
    program = captured(NET).program
    assert program is not None
    static = int8_recipe.quantize_by_static_int8_recipe(
        program, [int8_recipe.int8_recipe_tensors(sample) for sample in samples(NET, 0, 32)]
    )
    held_out = samples(NET, 1400, 40)
    assert (
        compare_sqnr_db(
            float_outputs(held_out), outputs(int8_recipe.int8_recipe_runner(static.module), held_out)
        )
        < 20
    )


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_every_format_carries_rows(variant: Variant, tmp_path: Path) -> None:
    """Each runtime reproduces the program, far above the limit, from int8 weights."""
    module = FORMATS[variant.format]
    path = module.emit(captured_int8(NET), variant, tmp_path).path
    structure = module.structure(path, variant)
    held_out = samples(NET, 1400, 40)
    carried = outputs(module.load(path, variant, 1)[0], held_out)
    assert structure.quantized_weight_fraction > 0.9
    assert (
        compare_sqnr_db(outputs(int8_recipe.int8_recipe_runner(quantized(NET).module), held_out), carried)
        > 40
    )
    assert compare_sqnr_db(float_outputs(held_out), carried) > 26


@pytest.mark.slow
def test_the_choice_says_what_both_ways_reached() -> None:
    """The note names the chosen way and both figures."""
    assert quantized(NET).note.startswith("int8: dynamic, because static activation ranges reached ")


@pytest.mark.slow
def test_the_note_is_kept_with_the_program(tmp_path: Path) -> None:
    """Other processes load the note, and a dynamic program stays dynamic."""
    int8_recipe.save_int8_recipe(quantized(NET), tmp_path)
    assert (
        int8_recipe.load_int8_recipe(tmp_path).note
        == int8_recipe.load_int8_recipe_note(tmp_path)
        == quantized(NET).note
    )
    assert dynamic_int8.is_dynamic_int8(int8_recipe.load_int8_recipe(tmp_path).module)


@pytest.mark.slow
def test_a_convolutional_network_pays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second way is tried where convolutions do the work, and its program is the static one."""
    program = captured("cnn").program
    assert program is not None
    monkeypatch.delattr(dynamic_int8, "quantize_dynamic_int8")
    quantized_net = int8_recipe.quantize_by_int8_recipe(program, samples("cnn", 0, 4))
    assert not quantized_net.note
    assert not dynamic_int8.is_dynamic_int8(quantized_net.module)


def test_linear_heavy_is_counted_in_products() -> None:
    """Attention and MLPs are linear-heavy, a convolutional network with a linear head is not."""
    nets = {name: captured(name).program for name in ("cnn", "attention", "two_in_two_out")}
    heavy = {
        name: is_dynamic_int8_worthwhile(program.module())
        for name, program in nets.items()
        if program is not None
    }
    assert heavy == {"cnn": False, "attention": True, "two_in_two_out": True}


def test_each_row_has_its_own_range() -> None:
    """Quiet rows keep their values, zero stays zero, and errors are below one step."""
    rows = torch.tensor([[0.0, -1.0, 0.5], [0.0, 1000.0, -3.0], [0.0, 0.0, 0.0]])
    rounded = dynamic_int8_rounded_rows(rows)
    steps = torch.tensor([[1.5], [1003.0], [0.0]]) / 255
    assert (rounded[:, 0] == 0).all()
    assert ((rounded - rows).abs() <= steps).all()
