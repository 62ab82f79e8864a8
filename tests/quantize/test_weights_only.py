"""Tests of int8 weights with float activations, used only where all ranges lose."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from exporter.formats import FORMATS, VARIANTS
from exporter.pipeline import build_stage, read_stage, stage_results, verify_stage
from exporter.pipeline.stage_results import CheckedArtifactResult
from exporter.quantize import dynamic_int8, int8_recipe, weights_only
from exporter.records import Captured, TensorSpec
from tests import inline
from tests.exports import checkpoint, options
from tests.nets import captured, quantized

NET = "loud_channels"
NAMES = ("executorch-xnnpack-int8", "onnx-int8", "ort-int8")
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("weights_only")]


@functools.cache
def exported() -> tuple[Path, Mapping[str, stage_results.BuildResult], Mapping[str, CheckedArtifactResult]]:
    """Return OUT and the verified results by artifact."""
    folder = Path(tempfile.mkdtemp(prefix="export-mobile-weights-"))
    context = inline.context(folder, NAMES, **options(NET), checkpoint=checkpoint(NET))
    source, built = build_stage.run_build_stage(context, read_stage.run_read_stage(context))
    checked = verify_stage.run_verify_stage(context, source, built)
    return context.folders.out, {b.variant.name: b for b in built}, checked


@pytest.mark.parametrize("name", NAMES)
def test_every_format_carries_them(name: str) -> None:
    """Files hold int8, match float's outputs, and match the program to six digits."""
    _, built, checked = exported()
    artifact = checked[name]
    assert artifact.verdict.status == "passed", artifact.verdict.reason
    assert artifact.structure is not None
    assert artifact.verdict.comparison is not None
    assert artifact.verdict.lowering is not None
    assert artifact.structure.quantized_weight_fraction == 1.0
    assert artifact.verdict.comparison.sqnr_db > 45
    assert artifact.verdict.lowering.sqnr_db > 110
    assert (
        built[name].notes[0 if name == "onnx-int8" else -1].startswith("int8: weights only, because static")
    )


def test_xnnpack_computes_all_of_it() -> None:
    """XNNPACK's kernels for int8 weights run, not portable ones that dequantise at every call."""
    structure = exported()[2]["executorch-xnnpack-int8"].structure
    assert structure is not None
    assert structure.delegated_fraction is not None
    assert structure.delegated_fraction > 0.99
    assert structure.operators["XNNFullyConnected"] == 4
    assert not [name for name in structure.operators if "dequantize" in name or "addmm" in name]


def test_onnx_has_a_gemm_for_each_layer() -> None:
    """A Gemm reads each dequantised weight; ONNX Runtime would round a MatMul's inputs."""
    model = onnx.load(exported()[0] / "onnx-int8.onnx")
    makers = {name: node for node in model.graph.node for name in node.output}
    gemms = [node for node in model.graph.node if node.op_type == "Gemm"]
    assert [makers[node.input[1]].op_type for node in gemms] == ["DequantizeLinear"] * 4
    assert not [node for node in model.graph.node if node.op_type in ("MatMul", "QuantizeLinear")]


def test_fixed_and_dynamic_ranges_lose() -> None:
    """Both miss 20 dB when two channels are a thousand times as loud as the others."""
    figures = [float(word) for word in quantized(NET).note.split() if word[0].isdigit()]
    assert max(figures[:2]) < 20
    assert figures[2] > 45


def test_weights_are_rounded_for_float_activations() -> None:
    """The weights are closer to float than those that were rounded for rows."""
    program = captured(NET).program
    assert program is not None
    calls = [
        (torch.from_numpy(array),) for array in np.random.default_rng(0).random((16, 1, 8, 8), np.float32)
    ]
    module, weights = dynamic_int8.quantize_dynamic_int8(captured_module(), calls)
    before = {name: t.clone() for name, t in module.named_buffers() if t.dtype == torch.int8}
    quantized = weights_only.quantize_weights_only(module, weights, calls)
    assert all(torch.equal(t, before[name]) for name, t in module.named_buffers() if name in before)
    expected = [program.module()(*call) for call in calls]
    errors = [
        sum(float((m(*c) - y).detach().square().sum()) for c, y in zip(calls, expected, strict=True))
        for m in (quantized, dynamic_int8.dynamic_int8_in_float(module))
    ]
    assert errors[0] < errors[1]


def captured_module() -> torch.fx.GraphModule:
    program = captured(NET).program
    assert program is not None
    module: torch.fx.GraphModule = program.module()
    return module


@functools.cache
def wide() -> Captured:
    """Make two layers whose weights are nearly all of the file."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 128)).eval()
    x = torch.randn(1, 4, 256)
    program = torch.export.export(net, (x,))
    specs = (TensorSpec("x", (1, 4, 256)),), (TensorSpec("y", (1, 4, 128)),)
    return Captured(net, program, "", (x,), *specs)


@functools.cache
def wide_int8() -> Captured:
    program = wide().program
    assert program is not None
    module, weights = dynamic_int8.quantize_dynamic_int8(program.module(), [wide().example])
    quantized = int8_recipe.Int8Program(
        weights_only.quantize_weights_only(module, weights, [wide().example]), wide().example, weights
    )
    return dataclasses.replace(wide(), program=quantized.program())


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_a_quarter(name: str, tmp_path: Path) -> None:
    """The file has a quarter of the size of its format's float file."""
    sizes = []
    for net, variant in ((wide(), VARIANTS[name.replace("int8", "fp32")]), (wide_int8(), VARIANTS[name])):
        path = FORMATS[variant.format].emit(net, variant, tmp_path).path
        sizes.append(path.stat().st_size)
    assert 0.25 < sizes[1] / sizes[0] < 0.3
