"""Static int8 quantisation of an ONNX model, as QuantizeLinear/DequantizeLinear pairs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter.errors import LoweringError
from exporter.records import Array, Sample

if TYPE_CHECKING:
    import onnx
    import onnxruntime

Extremes = dict[str, tuple[Array, Array]]
"""Tensor name -> its minimum in each calibration sample, its maximum in each."""

RANGE_RULES: dict[str, Callable[[Array, Array], tuple[float, float]]] = {
    "the overall minimum and maximum": lambda low, high: (low.min(), high.max()),
    "the mean minimum and maximum": lambda low, high: (low.mean(), high.mean()),
}
"""How a tensor's range follows from the samples' own extremes.

No rule is best for all networks, so each model gets the one that measures best on its calibration samples.
On MobileNetV2 (64 crops of six photos, judged on 64 crops of four others) they reach 13.9 and 19.6 dB SQNR,
on the tests' small CNN 28.4 and 19.5 dB. ONNX Runtime's percentile calibration reaches 17.4 dB on the first
at 99.99 %, and takes 25 s.
"""

JUDGED_SAMPLES = 16
"""Calibration samples that choose the rule."""


def quantize(model: bytes, calibration: tuple[Sample, ...]) -> tuple[onnx.ModelProto, str]:
    """Quantise weights per channel and activations per tensor, both int8.

    int8 activations are what ONNX Runtime recommends for its ARM64 kernels; on x86 it turns them into uint8
    when it loads an .onnx file.

    Args:
        model: A float32 ONNX model with static shapes and folded batch norms.
        calibration: Real inputs, float32, shaped as the model's.

    Returns:
        The quantised model, and a sentence on how ranges were chosen.

    Raises:
        LoweringError: There are no calibration samples.
    """
    import onnx

    if not calibration:
        raise LoweringError("int8 needs calibration samples, and there are none.")
    judged = calibration[:: max(1, len(calibration) // JUDGED_SAMPLES)]
    reference = _outputs(model, judged)
    with tempfile.TemporaryDirectory(prefix="export-mobile-") as folder:
        path = Path(folder) / "float.onnx"
        path.write_bytes(_marked_as_prepared(model))
        extremes, outputs = _extremes(path, calibration)
        made = {rule: _with_ranges(path, _ranges(extremes, outputs, rule)) for rule in RANGE_RULES}
    scores = {rule: _sqnr_db(reference, _outputs(candidate, judged)) for rule, candidate in made.items()}
    best = max(scores, key=lambda rule: scores[rule])
    note = f"Activation ranges are {best}: {scores[best]:.1f} dB SQNR on calibration samples."
    return onnx.load_model_from_string(made[best]), note


def _marked_as_prepared(model: bytes) -> bytes:
    """Say that shapes are inferred and the graph is folded, which is true, or every run logs advice."""
    import onnx
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    proto = onnx.load_model_from_string(model)
    add_pre_process_metadata(proto)
    data: bytes = proto.SerializeToString()
    return data


def _extremes(path: Path, calibration: tuple[Sample, ...]) -> tuple[Extremes, set[str]]:
    """Run the samples; returns every tensor's extremes and the names of the model's outputs."""
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    augmented = path.with_name("augmented.onnx")
    calibrator = create_calibrator(
        path, augmented_model_path=str(augmented), calibrate_method=CalibrationMethod.MinMax
    )
    session = _session(str(augmented))  # its own waits for its threads in a busy loop
    inputs = [i.name for i in session.get_inputs()]
    added = [o.name for o in session.get_outputs()][calibrator.num_model_outputs :]
    rows = [session.run(added, dict(zip(inputs, sample, strict=True))) for sample in calibration]
    values = np.array([[float(np.ravel(v)[0]) for v in row] for row in rows])
    names = [name.removesuffix("_ReduceMin") for name in added[::2]]
    extremes = {name: (values[:, 2 * i], values[:, 2 * i + 1]) for i, name in enumerate(names)}
    return extremes, set(calibrator.model_original_outputs)


def _ranges(extremes: Extremes, outputs: set[str], rule: str) -> dict[str, tuple[float, float]]:
    # A clipped output is the answer itself cut short: outputs always keep all they reached.
    widest = next(iter(RANGE_RULES))
    return {
        name: RANGE_RULES[widest if name in outputs else rule](low, high)
        for name, (low, high) in extremes.items()
    }


def _with_ranges(path: Path, ranges: dict[str, tuple[float, float]]) -> bytes:
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        TensorsData,
        quantize_static,
        save_tensors_data,
    )

    cache, quantised = path.with_name("ranges.json"), path.with_name("int8.onnx")
    values = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, values), cache)
    quantize_static(
        path,
        quantised,
        None,
        calibration_cache_path=cache,
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        calibrate_method=CalibrationMethod.MinMax,
    )
    return quantised.read_bytes()


def _outputs(model: bytes, samples: tuple[Sample, ...]) -> list[Array]:
    """Every output over all samples, stacked."""
    session = _session(model)
    names = [i.name for i in session.get_inputs()]
    rows = [session.run(None, dict(zip(names, sample, strict=True))) for sample in samples]
    return [np.stack(column) for column in zip(*rows, strict=True)]


def _session(model: str | bytes) -> onnxruntime.InferenceSession:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _sqnr_db(reference: list[Array], actual: list[Array]) -> float:
    """The worst output's signal to quantisation noise ratio, in dB."""
    tiny = np.finfo(np.float64).tiny
    pairs = [(y.astype(np.float64), a.astype(np.float64)) for y, a in zip(reference, actual, strict=True)]
    return min(float(10 * np.log10(((y**2).sum() + tiny) / (((a - y) ** 2).sum() + tiny))) for y, a in pairs)
