"""Embedding tables are stored in int8, in the program and in the files of both runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.formats import FORMATS, VARIANTS
from exporter.quantize import embeddings, int8_recipe
from exporter.quantize.int8_recipe import Int8Program
from exporter.records import Captured, TensorSpec

WORDS, WIDTH, LENGTH = 60, 16, 6


class Text(nn.Module):
    """Looks words and their positions up, and multiplies the sum; the last layer may be the table itself."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH, padding_idx=0)
        self.positions = nn.Embedding(LENGTH, WIDTH)
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.last = nn.Linear(WIDTH, WORDS, bias=False)
        if tied:
            self.last.weight = self.words.weight

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words) + self.positions(torch.arange(LENGTH))
        return self.last(torch.relu(self.layer(x)))  # type: ignore[no-any-return]


def text_samples(count: int) -> list[tuple[np.ndarray]]:
    return [(np.random.default_rng(n).integers(0, WORDS, (1, LENGTH)),) for n in range(count)]


def quantized_text(tied: bool) -> tuple[nn.Module, Int8Program]:
    torch.manual_seed(0)
    net = Text(tied).eval()
    program = torch.export.export(net, (torch.from_numpy(text_samples(1)[0][0]),))
    return net, int8_recipe.quantize_by_int8_recipe(program, text_samples(16))


@pytest.mark.parametrize("tied", [False, True], ids=["own", "tied"])
@pytest.mark.parametrize("name", ["executorch-xnnpack-int8", "onnx-int8", "ort-int8"])
def test_files_hold_the_table_in_int8(name: str, tied: bool, tmp_path: Path) -> None:
    """A file holds the table in 8 bits, no copy of it in float, and computes the program's outputs."""
    net, quantized = quantized_text(tied)
    variant, program = VARIANTS[name], quantized.program()
    captured = Captured(
        net,
        program,
        "",
        program.example_inputs[0],
        (TensorSpec("words", (1, LENGTH), "int64"),),
        (TensorSpec("y", (1, LENGTH, WORDS)),),
    )
    module = FORMATS[variant.format]
    module.emit(captured, variant, tmp_path)
    path = tmp_path / (name + variant.suffix)
    structure = module.structure(path, variant)
    run = module.load(path, variant, 1)[0]
    own = int8_recipe.int8_recipe_runner(quantized.module)
    errors, values = [], []
    for sample in text_samples(8):
        expected = own(sample)[0]
        errors.append(np.square(run(sample)[0] - expected).mean())
        values.append(np.square(expected).mean())

    counts = structure.weight_elements
    assert counts["int8"] >= WORDS * WIDTH + WIDTH * WIDTH
    assert counts.get("float32", 0) <= LENGTH * WIDTH  # the positions
    assert np.sum(errors) < np.sum(values) * 10**-3.5


def test_row_scales_are_exact_for_the_largest_value() -> None:
    """Each row is rounded by its own largest value, so that a loud word does not silence the others."""
    net = nn.Embedding(3, 4)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1e-4, -2e-4, 0, 1e-4], [0, 0, 0, 0], [100, 50, -100, 1]]))
    module = torch.export.export(net, (torch.arange(3),)).module()

    embeddings.quantize_embeddings(module)

    rows = module(torch.arange(3))
    error = (rows - net.weight).abs().amax(1)
    assert (error <= net.weight.abs().amax(1) / 254 * 1.001).all()
    assert not any(
        value.dtype == torch.float32 and value.dim() == 2 for value in module.state_dict().values()
    )


def test_constant_places_stay_in_float() -> None:
    """A table of positions that are the same at every call is left as it is."""
    _, quantized = quantized_text(tied=False)

    names = {str(node.target) for node in quantized.module.graph.nodes if node.op == "get_attr"}
    assert "words_weight_rows" in names
    assert not any("positions" in name and name.endswith("_rows") for name in names)
