"""Tests of naming the modules of a runtime's operators, and of the page that sums their time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from android_harness import protocol, runner_results
from android_harness.records import BenchTask
from exporter.bench import operator_times
from exporter.records import OperatorTime
from exporter.report import html
from tests.bench.test_bench import latency, measured
from tests.exports import exported
from tests.harness import runners

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("faults")]
STEM = ["", "stem.0", "depthwise.0", "pointwise.0", "head"]


def named(kinds: Sequence[tuple[str, str]], out: Path, artifact: str) -> list[str]:
    """Return the module of each operator of (name, kind)."""
    times = [OperatorTime(name, kind, 1.0) for name, kind in kinds]
    return [item.module for item in operator_times.name_modules_of_operator_times(times, out, out / artifact)]


ONNX_INT8 = [
    ("node_quantize_per_tensor", "QuantizeLinear"),
    ("node_conv2d_token_1", "QLinearConv"),
    ("node_conv2d_1_token_4", "QLinearConv"),
    ("node_conv2d_2_token_7", "QLinearConv"),
    ("node_linear", "QGemm"),
]
XNNPACK = [
    ("Transpose (ND, X32) #1", "Transpose (ND, X32)"),
    ("Convolution (NHWC, F32) IGEMM #1", "Convolution (NHWC, F32) IGEMM"),
    ("Convolution (NHWC, F32) DWConv #1", "Convolution (NHWC, F32) DWConv"),
    ("Convolution (NHWC, F32) GEMM #1", "Convolution (NHWC, F32) GEMM"),
    ("Fully Connected (NC, F32) GEMM #1", "Fully Connected (NC, F32) GEMM"),
]


@pytest.mark.parametrize(
    ("kinds", "artifact"), [(ONNX_INT8, "onnx-int8.onnx"), (XNNPACK, "executorch-xnnpack-fp32.pte")]
)
def test_layers_are_named_in_the_models_order(kinds: list[tuple[str, str]], artifact: str) -> None:
    """The k-th operator with weights computes the k-th layer; what is before the first has no module."""
    assert named(kinds, exported("cnn")[0], artifact) == STEM


def test_another_order_of_the_runtime_is_followed() -> None:
    """ONNX Runtime may execute branches in another order: its names lead back to the file's."""
    out, _ = exported("cnn")
    swapped = [ONNX_INT8[0], ONNX_INT8[2], ONNX_INT8[1], *ONNX_INT8[3:]]
    assert named(swapped, out, "onnx-int8.onnx") == ["", "depthwise.0", "stem.0", "pointwise.0", "head"]


@pytest.mark.parametrize("kinds", [XNNPACK[:-1], [*XNNPACK, XNNPACK[1]]])
def test_another_number_of_layers_names_none(kinds: list[tuple[str, str]]) -> None:
    """A runtime that splits or folds layers is not matched: a wrong name is worse than none."""
    assert set(named(kinds, exported("cnn")[0], "executorch-xnnpack-fp32.pte")) == {""}


@pytest.mark.parametrize("content", [None, b"", b"no ONNX"])
def test_without_the_float32_file_no_module_is_known(tmp_path: Path, content: bytes | None) -> None:
    """The operators are kept all the same."""
    if content is not None:
        (tmp_path / "onnx-fp32.onnx").write_bytes(content)
    assert named(XNNPACK, tmp_path, "x.pte") == [""] * 5


def test_the_page_sums_by_module_and_by_operator() -> None:
    """The slowest is first, with its share; the page says where modules are not known."""
    times = (
        OperatorTime("a", "Conv", 1.0, "features.0"),
        OperatorTime("b", "Clip", 0.5, "features.0"),
        OperatorTime("c", "Conv", 6.0, "features.1"),
        OperatorTime("q", "QuantizeLinear", 0.5),
    )
    page = html.render_html(measured(executorch_xnnpack_int8=latency(operators=times)), {})
    assert "features.1 6 ms (75%); features.0 1.5 ms (19%); before the first layer 0.5 ms (6%)" in page
    assert "Conv 7 ms (88%)" in page
    unknown = latency(operators=(OperatorTime("x", "Conv", 1.0),))
    assert "do not match the model" in html.render_html(measured(executorch_xnnpack_int8=unknown), {})


def test_two_delegates_operators_of_one_name_are_two(tmp_path: Path) -> None:
    """XNNPACK numbers operators in each delegate apart: every layer has a row of its own."""
    out, _ = exported("cnn")
    values = runners.job("executorch", tmp_path, out / "executorch-xnnpack-fp32.pte")
    (tmp_path / "image").write_bytes(np.zeros((1, 1, 8, 8), np.float32).tobytes())
    values["samples"] = [[{"file": str(tmp_path / "image"), "dtype": "float32", "shape": [1, 1, 8, 8]}]]
    ran = runners.run(runners.host_runner("executorch"), values, tmp_path, command="profile")
    assert ran.result is not None, ran.stderr
    assert {len(item.durations_ns) for item in ran.result.operators} == {protocol.PROFILED_CALLS}
    task = BenchTask("cnn", tmp_path, "", "executorch", ())
    times = runner_results.read_profile_runner_result((tmp_path / "result.json").read_bytes(), task)
    rows = [OperatorTime(item.name, item.kind, item.ms) for item in times]
    modules = [
        item.module for item in operator_times.name_modules_of_operator_times(rows, out, out / "x.pte")
    ]
    assert dict.fromkeys(filter(None, modules)).keys() == {"stem.0", "depthwise.0", "pointwise.0", "head"}
