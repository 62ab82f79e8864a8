"""A report as a real run on MobileNetV2 would give it: passed, failed, not run and broken.

The figures are invented but plausible; nothing here is a measurement.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from exporter.files import EVIDENCE, digest_file
from exporter.records import (
    Accuracy,
    Artifact,
    Comparison,
    Evaluation,
    FormatName,
    Latency,
    MixedPoint,
    OperatorCost,
    Precision,
    Preprocessing,
    Report,
    Structure,
    TensorSpec,
    Variant,
    Verdict,
)
from exporter.report import manifest
from exporter.verify import reference_io

INPUTS = (TensorSpec("x", (1, 3, 224, 224)),)
OUTPUTS = (TensorSpec("logits", (1, 1000)),)
WEIGHTS = 3_469_760
FP32_LIMITS = {
    "max_error": 1e-5,
    "max_error_from_eager_floor": 5.5e-6,
    "edge_max_error": 1e-5,
    "edge_max_error_from_eager_floor": 7e-6,
}
NARROW_LIMITS = {"min_sqnr_db": 20.0, "min_agreement": 0.95, "lowering_min_sqnr_db": 30.0}
HALF_LIMITS = {"min_sqnr_db": 35.0, "min_agreement": 0.95}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def latency(median_ms: float) -> Latency:
    """Return 200 skewed samples around a median, seeded by the median."""
    noise = np.random.default_rng(int(median_ms * 1000)).lognormal(0, 0.06, 200)
    samples = tuple(int(n) for n in median_ms * 1e6 * noise)
    p50, p90 = (float(np.percentile(samples, q)) / 1e6 for q in (50, 90))
    return Latency(p50, p90, 200, 2, samples)


def artifact(
    name: str,
    format_name: FormatName,
    backend: str,
    precision: Precision,
    suffix: str,
    size_bytes: int,
    stored: str,
    verdict: Verdict,
    median_ms: float | None = None,
    delegated: float | None = None,
) -> Artifact:
    variant = Variant(name, format_name, backend, precision, suffix, name, 1.0)
    structure = Structure(
        INPUTS,
        OUTPUTS,
        {"conv2d": 52, "linear": 1, "add": 10},
        size_bytes - 9000,
        {stored: WEIGHTS},
        delegated,
    )
    return Artifact(
        variant,
        name + suffix,
        size_bytes,
        digest(name),
        verdict.status,
        verdict.reason,
        structure=structure,
        verdict=verdict,
        latency=latency(median_ms) if median_ms else None,
        build_seconds=4.2,
    )


def passed(runtime: str, error: float, db: float, share: float, limits: dict[str, float]) -> Verdict:
    return Verdict(
        "passed",
        None,
        runtime,
        Comparison(20, error, db, share),
        edge=Comparison(4, error * 1.4, db - 3, None),
        lowering=Comparison(20, 2e-4, 61.0, 1.0) if "lowering_min_sqnr_db" in limits else None,
        limits=limits,
    )


def not_run(why: str) -> Verdict:
    return Verdict("not_run", why, "", None)


def artifacts() -> tuple[Artifact, ...]:
    executorch, ort = "executorch 1.4.1", "onnxruntime 1.32.0"
    quiet = "It reaches 11.9 dB SQNR and 70.0% agreement with the float64 model; the limit is 20 dB or 95%."
    failed = Verdict(
        "failed",
        quiet,
        ort,
        Comparison(20, 0.31, 11.9, 0.70),
        Comparison(4, 0.4, 9.0, None),
        Comparison(20, 2e-3, 44.0, 1.0),
        NARROW_LIMITS,
    )
    nan = Verdict(
        "failed",
        "The artifact gives NaN or Inf: 1000 of 20000 values of output 0.",
        "torch 2.13.0 lite",
        Comparison(20, math.inf, -math.inf, None, "The artifact gives NaN or Inf."),
        limits=FP32_LIMITS,
    )
    macos = "Core ML executes only on macOS. Its structure was checked."
    vulkan = "This machine's ExecuTorch has no Vulkan backend. Its structure was checked."
    palette = Variant("coreml-w4", "coreml", "coreml", "w4", ".mlpackage", "coreml", 6.0)
    good = passed
    return (
        artifact("executorch-xnnpack-fp32", "executorch", "xnnpack", "fp32", ".pte", 13_998_112, "float32",
                 good(executorch, 1.31e-6, 119.2, 1.0, FP32_LIMITS), 3.85, 1.0),
        artifact("executorch-xnnpack-int8", "executorch", "xnnpack", "int8", ".pte", 3_706_448, "int8",
                 good(executorch, 0.0713, 21.4, 0.95, NARROW_LIMITS), 1.92, 0.98),
        artifact("executorch-vulkan-fp16", "executorch", "vulkan", "fp16", ".pte", 7_041_200, "float16",
                 not_run(vulkan), None, 1.0),
        artifact("torchscript-lite-fp32", "torchscript", "lite", "fp32", ".ptl", 14_203_330, "float32",
                 nan, 14.1),
        artifact("onnx-fp32", "onnx", "onnxruntime", "fp32", ".onnx", 13_964_571, "float32",
                 good(ort, 7.8e-7, 123.0, 1.0, FP32_LIMITS), 4.02),
        artifact("onnx-fp16", "onnx", "onnxruntime", "fp16", ".onnx", 7_020_004, "float16",
                 good(ort, 1.02e-2, 42.6, 1.0, HALF_LIMITS), 9.7),
        artifact("onnx-int8", "onnx", "onnxruntime", "int8", ".onnx", 3_655_100, "int8", failed, 1.94),
        artifact("coreml-fp16", "coreml", "coreml", "fp16", ".mlpackage", 7_105_221, "float16",
                 not_run(macos)),
        artifact("coreml-w8", "coreml", "coreml", "w8", ".mlpackage", 3_590_870, "int8", not_run(macos)),
        Artifact(palette, None, None, None, "error", "k-means did not converge for layer features.18.0: "
                 "the weight has 5 distinct values.", source_line="nets/mobile.py:88", build_seconds=1.1),
    )  # fmt: skip


def operator_costs() -> tuple[OperatorCost, ...]:
    """Return the costs of 52 convolutions, 10 sums and a linear layer; the last costs nothing."""
    random = np.random.default_rng(3)
    costs: list[OperatorCost] = []
    for block in range(1, 18):
        for step, place in enumerate(("conv.0.0", "conv.1.0", "conv.2")):
            layer = f"features.{block}.{place}"
            db = round(41.0 - 6 * (step == 1) + float(random.normal(0, 2.5)), 3)
            costs.append(OperatorCost.of_decibels(f"conv2d_{len(costs)}", layer, "conv2d", db))
        if block in {3, 5, 6, 8, 9, 10, 12, 13, 15, 16}:
            db = round(44.0 + float(random.normal(0, 2)), 3)
            costs.append(OperatorCost.of_decibels(f"add_{block}", f"features.{block}", "add", db))
    costs.append(OperatorCost.of_decibels("conv2d_last", "features.18.0", "conv2d", 26.125))
    costs.append(OperatorCost("linear", "classifier.1", "linear", 0.0))
    return tuple(costs)


def mixed_points() -> tuple[MixedPoint, ...]:
    """Return a search of both runtimes: int8, and one, four and nine operators in float."""
    costliest = sorted(operator_costs(), key=lambda cost: -cost.noise)
    points = []
    for runtime, start_ms, sizes in (("executorch-xnnpack", 1.92, 3_706_448), ("onnx", 1.94, 3_655_100)):
        for count, db, share, slower in ((0, 21.4, 0.95, 1.0), (1, 23.1, 0.95, 1.04), (4, 25.2, 1.0, 1.13),
                                         (6, 24.9, 0.95, 1.21), (9, 27.0, 1.0, 1.31)):  # fmt: skip
            points.append(
                MixedPoint(
                    variant=f"{runtime}-mixed" if count else f"{runtime}-int8",
                    float_ops=tuple(cost.name for cost in costliest[:count]),
                    sqnr_db=db + 0.4 * (runtime == "onnx"),
                    agreement=share,
                    p50_ms=start_ms * slower,
                    size_bytes=sizes + 240_000 * count,
                    passed=db > 24,
                    chosen=count == 4,
                )
            )
    return tuple(points)


def report() -> Report:
    return Report(
        source_file="mobilenet_v2-b0353104.pth",
        source_sha256=digest("checkpoint"),
        source_kind="state_dict",
        architecture="torchvision/mobilenet_v2",
        parameters=3_504_872,
        flops=601_617_408,
        target_name="snapdragon865",
        target_soc="SM8250",
        budget_ms=15.0,
        inputs=INPUTS,
        outputs=OUTPUTS,
        preprocessing=Preprocessing(),
        calibration_kind="photos",
        calibration_count=44,
        verification_kind="photos",
        verification_count=20,
        floor=5.5e-7,
        artifacts=artifacts(),
        selected="executorch-xnnpack-int8",
        selection_reason="Fastest passed artifact that snapdragon865 can run: 1.92 ms on this host, 2.0 "
        "times as fast as executorch-xnnpack-fp32.",
        numerics="passed",
        budget="not_measured",
        tools={
            "export_mobile": "0.1.0",
            "torch": "2.13.0",
            "executorch": "1.4.1",
            "onnxruntime": "1.32.0",
            "coremltools": "9.0",
        },
        notes=(
            "The file is a plain state_dict: 314 tensors, read without running any code in it.",
            "All 314 names and shapes match torchvision/mobilenet_v2 exactly; no other builder has them.",
            "Input [1, 3, 224, 224] and ImageNet preprocessing come from the architecture.",
        ),
        warnings=("Agreement was measured on 20 photos: one photo is 5 points.",),
        not_offered={"qnn": "No supported stack compiles for Hexagon v66 (the lowest is v68)."},
        seconds=48.3,
        stage_seconds={"read": 0.9, "capture": 3.1, "build": 33.0, "verify": 7.2, "measure": 4.1},
        labels=("tench", "goldfish"),
        matrix_weights=WEIGHTS,
        operator_costs=operator_costs(),
        mixed_points=mixed_points(),
        evidence_files={"evidence.npz": digest("evidence")},
    )


def labelled() -> Report:
    """Return the same run with 200 labelled photos: float32 is right about 180, int8 about one less."""
    floats = Accuracy(200, 180, 196, same=200)
    counts = {
        "executorch-xnnpack-fp32": floats,
        "executorch-xnnpack-int8": Accuracy(200, 179, 195, lost=2, gained=1, same=190),
        "onnx-int8": Accuracy(200, 150, 190, lost=34, gained=4, same=140),
    }
    rows = tuple(replace(a, accuracy=counts.get(a.variant.name)) for a in artifacts())
    evaluation = Evaluation("photos", 1000, 1.0, floats, ("Labels: folders are named by class number.",))
    return replace(report(), artifacts=rows, evaluation=evaluation)


def nothing_passed() -> Report:
    """Return the same run without an artifact that can be shipped."""
    failed = tuple(
        replace(a, status="failed", reason="Its largest error is 3.0e-02.") if a.status == "passed" else a
        for a in artifacts()
    )
    return replace(
        report(), artifacts=failed, selected=None, selection_reason="No artifact passed.", numerics="failed"
    )


def outputs() -> dict[str, np.ndarray]:
    """Return flat output samples per artifact, and the float64 reference's."""
    random = np.random.default_rng(7)
    reference = random.normal(0, 2.1, 8000)
    return {
        "reference": reference,
        "executorch-xnnpack-fp32": reference + random.normal(0, 1e-6, reference.size),
        "executorch-xnnpack-int8": reference + random.normal(0, 0.17, reference.size),
        "onnx-int8": reference * 0.8 + random.normal(0, 0.5, reference.size),
    }


def export(folder: Path, change: Callable[[Report], Report] = lambda report: report) -> None:
    """Make an export whose artifacts are one word each; nothing here runs them."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    reference = random.normal(0, 1, (4, 1, 10))
    inputs = random.normal(0, 1, (4, 1, 3)).astype(np.float32)
    edge = (inputs[:1],), (reference[:1] * 0,), ("zeros",)
    evidence = reference_io.ReferenceIO((inputs,), (reference,), *edge, 1e-7, 1e-7, "float64")
    reference_io.save_reference_io(evidence, folder / EVIDENCE)
    made = change(report())
    rows = []
    for row in made.artifacts:
        if row.file:
            (folder / row.file).write_text(f"artifact of {folder.name}")
        rows.append(replace(row, sha256=digest_file(folder / row.file) if row.file else None))
    files = {EVIDENCE: digest_file(folder / EVIDENCE)}
    written = replace(made, artifacts=tuple(rows), evidence_files=files)
    (folder / "manifest.json").write_text(manifest.dump_manifest(written))
