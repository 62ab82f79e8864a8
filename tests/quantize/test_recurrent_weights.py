"""Recurrent layers keep their weights in int8, in the program and in the files of both runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from exporter.formats import FORMATS, VARIANTS
from exporter.formats.onnx import onnx_recurrent as onnx_recurrent
from exporter.quantize import int8_recipe, recurrent_weights
from exporter.quantize.int8_recipe import Int8Program
from exporter.records import Captured, Structure, TensorSpec

STEPS = 2


class Net(nn.Module):
    """A recurrent layer and a linear head."""

    def __init__(self, kind: str, layers: int, both_ways: bool) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(8, 12, layers, batch_first=True, bidirectional=both_ways)
        self.head = nn.Linear(24 if both_ways else 12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])  # type: ignore[no-any-return]


def quantized(kind: str, layers: int = 1, both_ways: bool = False) -> tuple[nn.Module, Int8Program]:
    torch.manual_seed(0)
    net = Net(kind, layers, both_ways).eval()
    samples = [(np.random.default_rng(n).normal(size=(1, STEPS, 8)).astype(np.float32),) for n in range(32)]
    program = torch.export.export(net, (torch.from_numpy(samples[0][0]),))
    return net, int8_recipe.quantize_by_int8_recipe(program, samples)


def written(net: nn.Module, program: Int8Program, name: str, folder: Path) -> tuple[Structure, float]:
    """Return what a runtime's file holds, and its SQNR in dB on inputs of its own."""
    variant = VARIANTS[name]
    exported, specs = program.program(), (TensorSpec("x", (1, STEPS, 8)),)
    outputs = (TensorSpec("y", (1, STEPS, 4)),)
    captured = Captured(net, exported, "", exported.example_inputs[0], specs, outputs)
    module = FORMATS[variant.format]
    module.emit(captured, variant, folder)
    path = folder / (name + variant.suffix)
    judged = np.random.default_rng(99).normal(size=(16, STEPS, 8)).astype(np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(judged)).numpy()
    run = module.load(path, variant, 1)[0]
    error = np.concatenate([run((x[None],))[0] for x in judged]) - expected
    return module.structure(path, variant), float(
        -10 * np.log10(np.square(error).sum() / np.square(expected).sum())
    )


@pytest.mark.parametrize(
    ("kind", "layers", "both_ways"),
    [("LSTM", 2, True), ("GRU", 1, False)],
)
def test_onnx_holds_recurrent_weights_in_int8(
    kind: str, layers: int, both_ways: bool, tmp_path: Path
) -> None:
    """Every weight is int8, the outputs are the float network's, and nothing is put in order at run time."""
    structure, sqnr = written(*quantized(kind, layers, both_ways), "onnx-int8", tmp_path)
    assert set(structure.weight_elements) == {"int8"}
    assert sqnr > 25
    assert not {"Slice", "Concat"} & set(structure.operators)
    assert structure.operators[kind] == layers


@pytest.mark.parametrize(("kind", "both_ways"), [("LSTM", False), ("GRU", False)])
def test_executorch_computes_recurrent_products_in_xnnpack(
    kind: str, both_ways: bool, tmp_path: Path
) -> None:
    """Every weight is int8, and no dequantiser is left to portable kernels."""
    structure, sqnr = written(*quantized(kind, 1, both_ways), "executorch-xnnpack-int8", tmp_path)
    assert set(structure.weight_elements) == {"int8"}
    assert not [name for name in structure.operators if "dequantize" in name]
    assert sqnr > 25


def test_float_recurrent_weights_are_removed() -> None:
    """What is stored as int8 is not stored as float, too."""
    net, program = quantized("LSTM")
    assert recurrent_weights.has_recurrent_weights(program.module)
    names = [name for name, _ in program.module.named_parameters()]
    assert not [name for name in names if "weight_ih" in name or "weight_hh" in name]
    assert int8_recipe.stored_weights_of_int8_recipe(program.module) == sum(
        p.numel() for p in net.parameters() if p.dim() > 1
    )


def test_a_row_uses_all_its_steps() -> None:
    """Rows of different size have scales of their own, and a row of zeros stays zero."""
    weight = torch.tensor([[1.0, -0.5], [0.001, 0.0], [0.0, 0.0]])
    steps, scale = recurrent_weights.round_recurrent_weight(weight)
    assert steps.tolist() == [[127, -64], [127, 0], [0, 0]]
    torch.testing.assert_close(steps * scale[:, None], weight, atol=0.004, rtol=0)


def test_weights_that_are_computed_are_left_alone() -> None:
    """A weight that depends on an input has no rows to put in order."""
    value = onnx.helper.make_tensor_value_info
    nodes = [onnx.helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=2)]
    inputs = [value(name, 1, [1, 1, 1]) for name in "xwr"]
    proto = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", inputs, [value("y", 1, None)]))
    before = proto.SerializeToString()
    onnx_recurrent.order_onnx_recurrent_rows(proto, {})
    assert proto.SerializeToString() == before
