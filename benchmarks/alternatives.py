"""Quantise with alternatives: plain library calls, and NNCF.

Each is given a float module and calibration samples, and writes a file that a real runtime executes. None
of this is used by the exporter.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from exporter.capture import torchvision_ops
from exporter.errors import MissingDependencyError
from exporter.records import Sample

if TYPE_CHECKING:
    import torch

Kind = Literal["convolutions", "attention"]
Write = Callable[["torch.nn.Module", tuple[Sample, ...], Kind, Path], None]
NNCF_MISSING = MissingDependencyError(
    "The benchmark compares with NNCF, which is not installed.",
    "Run `pip install 'export-mobile[benchmarks]'`, or leave it out with `--without nncf`.",
)
PERCENTILE = 99.99


@dataclass(frozen=True)
class Method:
    """A way to quantise, and its settings."""

    name: str
    variant: str
    """The variant of ours whose runtime executes the file."""
    write: Write
    settings: str
    needs: str = ""
    """The package that must be installed; empty for none."""
    kinds: tuple[Kind, ...] = ("convolutions", "attention")
    slow: bool = False


def tensors(sample: Sample) -> tuple[torch.Tensor, ...]:
    import torch

    return tuple(torch.from_numpy(array) for array in sample)


def xnnpack_static(module: torch.nn.Module, calibration: tuple[Sample, ...], kind: Kind, path: Path) -> None:
    _xnnpack(module, calibration, path, dynamic=False)


def xnnpack_dynamic(module: torch.nn.Module, calibration: tuple[Sample, ...], kind: Kind, path: Path) -> None:
    _xnnpack(module, calibration, path, dynamic=True)


def _xnnpack(module: torch.nn.Module, calibration: tuple[Sample, ...], path: Path, dynamic: bool) -> None:
    """Quantise as ExecuTorch's documentation does."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import to_edge_transform_and_lower
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    example = tensors(calibration[0])
    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=dynamic)
    prepared = prepare_pt2e(
        torch.export.export(module, example).module(), XNNPACKQuantizer().set_global(config)
    )
    with torch.no_grad():
        for sample in calibration:
            prepared(*tensors(sample))
    quantised = torch.export.export(convert_pt2e(prepared), example)
    lowered = to_edge_transform_and_lower(quantised, partitioner=[XnnpackPartitioner()]).to_executorch()
    path.write_bytes(lowered.buffer)


def float_onnx(module: torch.nn.Module, calibration: tuple[Sample, ...], path: Path) -> list[str]:
    """Export with PyTorch, then prepare as ONNX Runtime advises; return the input names."""
    import onnx
    import torch
    from onnxruntime.quantization.shape_inference import quant_pre_process

    torch.onnx.export(module, tensors(calibration[0]), path, dynamo=True, external_data=False)
    quant_pre_process(path, path, skip_symbolic_shape=True)
    return [value.name for value in onnx.load(path).graph.input]


def ort_minmax(module: torch.nn.Module, calibration: tuple[Sample, ...], kind: Kind, path: Path) -> None:
    from onnxruntime.quantization import CalibrationMethod

    _ort_static(module, calibration, path, CalibrationMethod.MinMax)


def ort_percentile(module: torch.nn.Module, calibration: tuple[Sample, ...], kind: Kind, path: Path) -> None:
    from onnxruntime.quantization import CalibrationMethod

    _ort_static(module, calibration, path, CalibrationMethod.Percentile, CalibPercentile=PERCENTILE)


def _ort_static(
    module: torch.nn.Module, calibration: tuple[Sample, ...], path: Path, method: Any, **extra: Any
) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    names = float_onnx(module, calibration, path)
    quantize_static(
        path,
        path,
        _Reader(names, calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        weight_type=QuantType.QInt8,
        calibrate_method=method,
        extra_options=extra,
    )


class _Reader:
    """A reader of calibration samples; ONNX Runtime accepts any object with this method."""

    def __init__(self, names: list[str], calibration: tuple[Sample, ...]) -> None:
        self._rows = iter([dict(zip(names, sample, strict=True)) for sample in calibration])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._rows, None)


def ort_dynamic(module: torch.nn.Module, calibration: tuple[Sample, ...], kind: Kind, path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    float_onnx(module, calibration, path)
    quantize_dynamic(path, path, per_channel=True, weight_type=QuantType.QInt8)


def nncf_fast(module: torch.nn.Module, calibration: tuple[Sample, ...], kind: Kind, path: Path) -> None:
    _nncf(module, calibration, kind, path, "MIXED", fast=True)


def nncf_symmetric(module: torch.nn.Module, calibration: tuple[Sample, ...], kind: Kind, path: Path) -> None:
    _nncf(module, calibration, kind, path, "PERFORMANCE", fast=True)


def nncf_full(module: torch.nn.Module, calibration: tuple[Sample, ...], kind: Kind, path: Path) -> None:
    _nncf(module, calibration, kind, path, "MIXED", fast=False)


def _nncf(
    module: torch.nn.Module, calibration: tuple[Sample, ...], kind: Kind, path: Path, preset: str, fast: bool
) -> None:
    """Quantise with NNCF: weights per channel (its default), all samples, no weights in 7 bits."""
    import onnx

    os.environ["NNCF_CI"] = "1"  # or it sends telemetry
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    names = float_onnx(module, calibration, path)
    with _exact_sums():
        quantised = nncf.quantize(
            onnx.load(path),
            nncf.Dataset([dict(zip(names, sample, strict=True)) for sample in calibration]),
            preset=nncf.QuantizationPreset[preset],
            subset_size=len(calibration),
            fast_bias_correction=fast,
            model_type=nncf.ModelType.TRANSFORMER if kind == "attention" else None,
            advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.DISABLE),
        )
    onnx.save(quantised, path)


@contextlib.contextmanager
def _exact_sums() -> Iterator[None]:
    """Let sessions that a library opens add int8 products without saturation, as ours do.

    Bias correction runs the quantised network. x86 without VNNI would let its sums saturate, and NNCF would
    correct for errors that no phone makes.
    """
    import onnxruntime

    plain = onnxruntime.SessionOptions

    def options() -> Any:
        made = plain()
        made.add_session_config_entry("session.x64quantprecision", "1")
        return made

    onnxruntime.SessionOptions = options
    try:
        yield
    finally:
        onnxruntime.SessionOptions = plain


METHODS: tuple[Method, ...] = (
    Method(
        "XNNPACKQuantizer",
        "executorch-xnnpack-int8",
        xnnpack_static,
        "static, per channel, ranges from its own histograms",
    ),
    Method(
        "XNNPACKQuantizer dynamic",
        "executorch-xnnpack-int8",
        xnnpack_dynamic,
        "activations quantised call by call, per channel weights",
        kinds=("attention",),
    ),
    Method("quantize_static MinMax", "onnx-int8", ort_minmax, "QDQ, per channel weights, uint8 activations"),
    Method(
        "quantize_static percentile",
        "onnx-int8",
        ort_percentile,
        f"the same with ranges at {PERCENTILE} %",
    ),
    Method(
        "quantize_dynamic",
        "onnx-int8",
        ort_dynamic,
        "activations quantised call by call, per channel weights",
        kinds=("attention",),
    ),
    Method("NNCF fast", "onnx-int8", nncf_fast, "MIXED preset, fast bias correction", needs="nncf"),
    Method(
        "NNCF fast, symmetric",
        "onnx-int8",
        nncf_symmetric,
        "PERFORMANCE preset, fast bias correction",
        needs="nncf",
    ),
    Method(
        "NNCF full", "onnx-int8", nncf_full, "MIXED preset, full bias correction", needs="nncf", slow=True
    ),
)


def methods(kind: Kind, without: tuple[str, ...] = ()) -> tuple[Method, ...]:
    """Return the methods for a kind of network.

    Raises:
        MissingDependencyError: A package is not there and was not left out by name.
    """
    chosen = tuple(m for m in METHODS if kind in m.kinds and not (m.needs and m.needs in without))
    if any(m.needs and importlib.util.find_spec(m.needs) is None for m in chosen):
        raise NNCF_MISSING
    return chosen


def quantise(
    method: Method, load: Callable[[], Any], calibration: tuple[Sample, ...], kind: Kind, path: Path
) -> float:
    """Write the method's file; return seconds from the float module to the written file."""
    import time

    torchvision_ops.prepare_torchvision_ops()
    module = load()
    began = time.monotonic()
    method.write(module, calibration, kind, path)
    return time.monotonic() - began
