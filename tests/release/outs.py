"""OUT folders without an export: real manifests and real evidence around artifacts that are only bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from exporter import files
from exporter.records import (
    ONNX_FOLDER_NOTE,
    ONNX_GRAPH,
    ONNX_WEIGHTS,
    Artifact,
    BudgetVerdict,
    DeviceLatency,
    Report,
    TensorSpec,
)
from exporter.report import manifest
from exporter.verify import reference_io
from tests.report import sample

KEPT = ("onnx-fp32", "executorch-xnnpack-int8", "onnx-int8", "coreml-fp16")
"""Artifacts that are passed, passed, failed and not run."""
INTERVALS: dict[str, tuple[float, float]] = {
    "pass": (3.0, 4.0),
    "fail": (16.0, 18.0),
    "inconclusive": (14.0, 16.0),
}


def latency(verdict: BudgetVerdict) -> DeviceLatency:
    """Return an invented latency of a phone."""
    low, high = INTERVALS[verdict]
    middle = (low + high) / 2
    device = {"serial": "a1b2c3", "soc": "SM8250", "model": "Invented"}
    return DeviceLatency("measured", device, middle, middle, (low, high), 5, 500, (), 1e-6, verdict, 15.0)


def report(verdict: BudgetVerdict = "not_measured") -> Report:
    """Return four artifacts of the sample, with onnx-fp32 chosen and, if asked, measured."""
    rows = tuple(a for a in sample.artifacts() if a.variant.name in KEPT)
    if verdict != "not_measured":
        rows = tuple(
            replace(a, device_latencies=(latency(verdict),)) if a.variant.name == "onnx-fp32" else a
            for a in rows
        )
    return replace(
        sample.report(),
        artifacts=rows,
        selected="onnx-fp32",
        budget=verdict,
        inputs=(TensorSpec("x", (1, 3, 4, 4)),),
        outputs=(TensorSpec("logits", (1, 5)),),
        preprocessing=None,
        evidence_files={},
        floor=1e-7,
    )


def write(out: Path, report: Report) -> Path:
    """Write OUT as an export would."""
    out.mkdir()
    samples = evidence_of(report)
    reference_io.save_reference_io(samples, out / "verification.npz")
    (out / "report.html").write_text("<!doctype html><title>made up</title>")
    report = replace(
        report,
        artifacts=tuple(_with_file(out, artifact) for artifact in report.artifacts),
        evidence_files={"verification.npz": files.digest_file(out / "verification.npz")},
    )
    (out / "manifest.json").write_text(manifest.dump_manifest(report))
    return out


def evidence_of(report: Report) -> reference_io.ReferenceIO:
    random = np.random.default_rng(3)
    inputs = tuple(random.normal(size=(20, *spec.shape)).astype(np.float32) for spec in report.inputs)
    outputs = tuple(random.normal(size=(20, *spec.shape)) for spec in report.outputs)
    return reference_io.ReferenceIO(
        inputs,
        outputs,
        tuple(a[:1] for a in inputs),
        tuple(a[:1] for a in outputs),
        ("zeros",),
        1e-7,
        1e-7,
        "float64",
    )


def _with_file(out: Path, artifact: Artifact) -> Artifact:
    content = np.random.default_rng(len(artifact.variant.name)).bytes(3000)
    path = out / str(artifact.file)
    if artifact.variant.format == "coreml":
        (path / "Data").mkdir(parents=True)
        (path / "Manifest.json").write_text("{}")
        (path / "Data" / "weight.bin").write_bytes(content)
    elif ONNX_FOLDER_NOTE in artifact.notes:
        path.mkdir()
        (path / ONNX_GRAPH).write_bytes(content[:500])
        (path / ONNX_WEIGHTS).write_bytes(content[500:])
    else:
        path.write_bytes(content)
    parts = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    size_bytes = sum(p.stat().st_size for p in parts)
    return replace(artifact, size_bytes=size_bytes, sha256=files.digest_file_or_folder(path))


def edit(out: Path, change: Callable[[Any], object]) -> None:
    path = out / "manifest.json"
    listed = json.loads(path.read_text())
    change(listed)
    path.write_text(json.dumps(listed))
