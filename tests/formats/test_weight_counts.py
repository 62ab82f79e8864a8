"""Readers of artifacts count the same weights as the model's graph is said to need."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from exporter.capture import matmul_weights
from exporter.formats import FORMATS, VARIANTS
from exporter.quantize import int8_recipe
from exporter.records import QUANTIZED, Captured, Limits, Structure, TensorSpec, Variant
from exporter.verify import contract

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("weight_counts")]
EMITTED = [name for name, variant in VARIANTS.items() if variant.precision != "mixed"]
Make = Callable[[], nn.Module]
IMAGE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Positions(nn.Module):
    """A patch network half of whose parameters are positions, which are added."""

    def __init__(self, hidden: bool = True) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.position = nn.Parameter(torch.randn(1, 64, 16))
        self.hidden = nn.Linear(16, 16) if hidden else nn.Identity()
        self.head = nn.Linear(16, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2) + self.position
        return self.head(self.hidden(x.relu()).relu().mean(1))  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """An attention that splits one parameter into its three projections."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.attend = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        return self.attend(x, x.relu(), x * 3)[0].mean(1)  # type: ignore[no-any-return]


class Normed(nn.Module):
    """A network whose largest weight is computed from its direction, its norm and a length."""

    def __init__(self, wide: bool = True) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        wide_layer = nn.Conv1d(16, 16, 97, padding=48)
        self.wide = nn.utils.parametrizations.weight_norm(wide_layer, dim=2) if wide else nn.Identity()
        self.head = nn.Linear(16, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2)
        return self.head(self.wide(x).relu().mean(2))  # type: ignore[no-any-return]


class BothWays(nn.Module):
    """A recurrent network whose weights ONNX joins from two directions, in another order of the gates."""

    def __init__(self, kind: str, layers: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.rnn = getattr(nn, kind)(16, 24, layers, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)[:, :4]
        return self.head(self.rnn(x)[0].mean(1))  # type: ignore[no-any-return]


WITHOUT_HIDDEN = functools.partial(Positions, hidden=False)
WITHOUT_WIDE = functools.partial(Normed, wide=False)
BOTH_WAYS = {kind: functools.partial(BothWays, kind) for kind in ("LSTM", "GRU")}
ONE_LAYER = {kind: functools.partial(BothWays, kind, layers=1) for kind in ("LSTM", "GRU")}


def captured(make: Make, precision: str = "fp32") -> Captured:
    return _captured_once(make, precision in QUANTIZED)


@functools.cache
def _captured_once(make: Make, quantized: bool) -> Captured:
    """Capture a network, and quantise it, once for all formats."""
    net = make().eval()
    program = torch.export.export(net, (IMAGE,))
    if quantized:
        program = int8_recipe.quantize_by_int8_recipe(program, [(IMAGE.numpy(),)] * 2).program()
    inputs, outputs = (TensorSpec("image", tuple(IMAGE.shape)),), (TensorSpec("y", tuple(net(IMAGE).shape)),)
    return Captured(net, program, "", (IMAGE,), inputs, outputs)


def structure(make: Make, variant: Variant, folder: Path) -> Structure:
    module = FORMATS[variant.format]
    return module.structure(module.emit(captured(make, variant.precision), variant, folder).path, variant)


def problem(contents: Structure, variant: Variant, needed: int) -> str:
    unnamed = dataclasses.replace(contents, inputs=(), outputs=())
    return contract.check_structure_by_contract(unnamed, variant, (), (), needed, Limits())


@functools.cache
def needed(make: Make) -> int:
    return matmul_weights.count_matmul_weights(torch.export.export(make().eval(), (IMAGE,)))


@pytest.mark.parametrize("name", EMITTED)
def test_a_large_position_embedding_is_no_missing_weight(name: str, tmp_path: Path) -> None:
    """Formats that tell what a tensor is used for count as the graph does; all are whole."""
    contents = structure(Positions, VARIANTS[name], tmp_path)
    if VARIANTS[name].format != "torchscript":
        assert sum(contents.weight_elements.values()) == needed(Positions)
    assert problem(contents, VARIANTS[name], needed(Positions)) == ""


@pytest.mark.parametrize("name", [name for name in EMITTED if VARIANTS[name].format != "torchscript"])
def test_a_missing_layer_is_found_behind_a_large_position_embedding(name: str, tmp_path: Path) -> None:
    """A tensor that is added does not stand in for a layer that an artifact lacks."""
    contents = structure(WITHOUT_HIDDEN, VARIANTS[name], tmp_path)
    assert "weights are missing" in problem(contents, VARIANTS[name], needed(Positions))


@pytest.mark.parametrize("name", [name for name in EMITTED if VARIANTS[name].precision not in QUANTIZED])
def test_the_parts_of_a_split_parameter_are_found(name: str, tmp_path: Path) -> None:
    """All projections of an attention with different queries, keys and values count."""
    contents = structure(CrossAttention, VARIANTS[name], tmp_path)
    assert problem(contents, VARIANTS[name], needed(CrossAttention)) == ""


@pytest.mark.parametrize("name", ["onnx-fp32", "onnx-fp16", "ort-fp32"])
def test_a_weight_that_the_file_computes_counts(name: str, tmp_path: Path) -> None:
    """Weight norm may stay in the file; the tensor that the weight is computed from counts for it."""
    contents = structure(Normed, VARIANTS[name], tmp_path)
    assert problem(contents, VARIANTS[name], needed(Normed)) == ""
    lacking = structure(WITHOUT_WIDE, VARIANTS[name], tmp_path)
    assert "weights are missing" in problem(lacking, VARIANTS[name], needed(Normed))


@pytest.mark.parametrize("kind", BOTH_WAYS)
@pytest.mark.parametrize("name", ["onnx-fp32", "ort-fp32", "onnx-int8"])
def test_both_directions_of_a_recurrent_layer_count(name: str, kind: str, tmp_path: Path) -> None:
    """A weight that the file joins from several is all of them, and a missing layer is missed."""
    contents = structure(BOTH_WAYS[kind], VARIANTS[name], tmp_path)
    assert problem(contents, VARIANTS[name], needed(BOTH_WAYS[kind])) == ""
    lacking = structure(ONE_LAYER[kind], VARIANTS[name], tmp_path)
    assert "weights are missing" in problem(lacking, VARIANTS[name], needed(BOTH_WAYS[kind]))
