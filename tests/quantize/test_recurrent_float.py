"""Recurrent weights that 8 bits do not hold stay in float where they are few."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.formats import FORMATS, VARIANTS
from exporter.quantize import int8_recipe
from exporter.quantize.recurrent_float import recurrent_weights_in_float
from exporter.records import Captured, TensorSpec

WIDTH = 48
FAINT = 1e-4


class Net(nn.Module):
    """Recurrent layers whose weights for a faint first input are so many times as large as the others."""

    def __init__(self, kind: str, inputs: int, spread: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = getattr(nn, kind)(inputs, WIDTH, 2, batch_first=True)
        with torch.no_grad():
            self.rnn.weight_ih_l0[:, 0] *= spread

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]  # type: ignore[no-any-return]


def calls(inputs: int, seed: int) -> list[tuple[np.ndarray, ...]]:
    chance = np.random.default_rng(seed)
    loud = chance.normal(size=(8, 1, 6, inputs)).astype(np.float32)
    loud[..., 0] *= FAINT
    return [(call,) for call in loud]


def chosen(kind: str, inputs: int, spread: float) -> frozenset[str]:
    samples = [int8_recipe.int8_recipe_tensors(call) for call in calls(inputs, 0)]
    program = torch.export.export(Net(kind, inputs, spread).eval(), samples[0])
    return recurrent_weights_in_float(program.module(), samples)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_few_weights_that_8_bits_do_not_hold_stay_in_float(kind: str) -> None:
    """Those of unlike inputs are found; all stay int8 where rounding costs little, or where they are many."""
    assert chosen(kind, 4, 1e3) == {"rnn.weight_ih_l0"}
    assert not chosen(kind, 4, 1.0)
    assert not chosen(kind, WIDTH, 1e3)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("GRU", ""), ("GRU", "onnx-int8"), ("LSTM", "onnx-int8"), ("LSTM", "executorch-xnnpack-int8")],
)
def test_files_follow_their_network_with_them(kind: str, name: str, tmp_path: Path) -> None:
    """The other matrices are stored in int8, and the outputs are the network's."""
    net = Net(kind, 4, 1e3).eval()
    program = torch.export.export(net, int8_recipe.int8_recipe_tensors(calls(4, 0)[0]))
    quantized = int8_recipe.quantize_by_int8_recipe(program, calls(4, 0))
    matrices = {name: p.numel() for name, p in net.named_parameters() if p.dim() > 1}
    del matrices["rnn.weight_ih_l0"]
    assert int8_recipe.stored_weights_of_int8_recipe(quantized.module) == sum(matrices.values())
    run, judged = int8_recipe.int8_recipe_runner(quantized.module), calls(4, 1)
    if name:
        variant, lowered, shape = VARIANTS[name], quantized.program(), judged[0][0].shape
        specs = (TensorSpec("x", shape),), (TensorSpec("y", (*shape[:2], WIDTH)),)
        captured = Captured(net, lowered, "", lowered.example_inputs[0], *specs)
        FORMATS[variant.format].emit(captured, variant, tmp_path)
        run = FORMATS[variant.format].load(tmp_path / (name + variant.suffix), variant, 1)[0]
    with torch.no_grad():
        expected = np.stack([net(torch.from_numpy(call[0])).numpy() for call in judged])
    error = np.stack([run(call)[0] for call in judged]) - expected
    assert np.square(error).sum() < 1e-3 * np.square(expected).sum()
