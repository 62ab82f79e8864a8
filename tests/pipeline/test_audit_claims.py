"""Manifests that claim another thing than what lies in OUT, each with every hash made to fit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from exporter.cli.console import listings
from exporter.files import digest_file
from exporter.pipeline import audit, audit_claims, audit_figures
from exporter.pipeline.audit import Audit
from exporter.pipeline.stage_results import CheckedArtifactResult
from exporter.records import Comparison, Report, Verdict
from exporter.report import manifest
from exporter.report.manifest import schema
from exporter.verify import reference_io
from exporter.verify.reference_io import ReferenceIO
from tests.release import outs
from tests.report import sample

COUNT = 20
LOWERING = "int8.lowering.npz"
Edit = Callable[[Any], object]


def honest() -> Report:
    """A report whose evidence is what `outs` writes."""
    report = outs.report()
    rows = tuple(
        replace(a, latency=sample.latency(1.0)) if a.variant.name == report.selected else a
        for a in report.artifacts
    )
    return replace(report, artifacts=rows, verification_count=COUNT, verification_kind="photos", floor=1e-7)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An export that holds: its evidence, its page and its sizes are what the manifest says."""
    folder = outs.write(tmp_path / "out", honest())
    (output,) = reference_io.load_reference_io(folder / "verification.npz").reference
    reference_io.save_reference_io_lowering(reference_io.Lowering((output,), 40.0), folder / LOWERING)
    outs.edit(folder, lambda listed: listed["evidence"]["files"].append({"file": LOWERING, "sha256": ""}))
    rehash(folder)
    return folder


def rehash(folder: Path) -> None:
    """Make every hash and size fit, as a forger would."""

    def fit(listed: Any) -> None:
        for item in listed["evidence"]["files"]:
            item["sha256"] = digest_file(folder / item["file"])
        listed["page_sha256"] = digest_file(folder / "report.html")

    outs.edit(folder, fit)


def row(listed: Any, name: str = "onnx-fp32") -> Any:
    return next(a for a in listed["artifacts"] if a["name"] == name)


def checked() -> dict[str, CheckedArtifactResult]:
    """What the artifacts give now: exactly what the honest report says."""
    return {
        a.variant.name: CheckedArtifactResult(a.structure, a.verdict) for a in honest().artifacts if a.verdict
    }


def problems(folder: Path) -> str:
    """Everything that contradicts the manifest, the artifacts' figures included."""
    listed = manifest.load_manifest(folder / "manifest.json")
    problems = [
        *audit._audit_evidence(folder, listed),
        *audit_claims.audit_claims_of_evidence(folder, listed),
        *audit_claims.audit_claims_of_files(folder, listed),
        *audit_figures.audit_figures_of_artifacts(listed, checked()),
    ]
    return " ".join(problems)


INT8 = "executorch-xnnpack-int8"


def figure(name: str, value: Any, part: str = "", artifact: str = "onnx-fp32") -> Edit:
    """Another figure of an artifact's verification."""

    def change(listed: Any) -> None:
        verification = row(listed, artifact)["verification"]
        (verification[part] if part else verification)[name] = value

    return change


def of(field: str, value: Any, *inner: str) -> Edit:
    """Another value of an artifact's field."""

    def change(listed: Any) -> None:
        place = row(listed)
        for key in (field, *inner)[:-1]:
            place = place[key]
        place[(field, *inner)[-1]] = value

    return change


def top(*path: str, value: Any) -> Edit:
    """Another value anywhere in the manifest."""

    def change(listed: Any) -> None:
        place = listed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


TASK = {"task": "boxes", "name": "mAP", "value": 1.0, "unit": "", "limit": 0.9, "passed": True, "detail": ""}
CHANNEL = {
    "output": "logits", "channel": "[..., 0]", "label": "", "sqnr_db": 90.0, "limit_db": 3.0, "fault": ""
}  # fmt: skip
FORGED: dict[str, tuple[Edit, str]] = {
    "a smaller error": (figure("max_error", 1e-7, artifact=INT8), r"int8: verification.max_error is 1e-07"),
    "a perfect int8": (figure("sqnr_db", 300.0, artifact=INT8), r"int8: verification.sqnr_db is 300"),
    "a perfect lowering": (
        figure("max_error", 0.4, "lowering", INT8),
        r"int8: verification.lowering.max_error is 0.4",
    ),
    "a larger error": (figure("max_error", 0.5), r"verification.max_error is 0.5"),
    "more decibels": (figure("sqnr_db", 20.0), r"verification.sqnr_db is 20"),
    "less agreement": (figure("top1_agreement", 0.5), r"top1_agreement is 0.5"),
    "no agreement": (figure("top1_agreement", None), r"top1_agreement is None"),
    "more samples": (figure("samples", 640), r"verification.samples is 640"),
    "fewer samples": (figure("samples", 1), r"verification.samples is 1"),
    "another limit": (figure("max_error", 1.0, "limits"), r"limits.max_error is 1.0"),
    "a limit more": (figure("min_sqnr_db", 1.0, "limits"), r"limits.min_sqnr_db is 1.0"),
    "no limits": (of("verification", {}, "limits"), r"limits.max_error is None"),
    "no edges": (of("verification", None, "edge"), r"verification.edge is missing"),
    "fewer edges": (figure("samples", 1, "edge"), r"verification.edge.samples is 1"),
    "a better edge": (figure("max_error", 0.9, "edge"), r"verification.edge.max_error is 0.9"),
    "a task": (of("verification", TASK, "task"), r"verification.task is made up"),
    "a channel": (of("verification", CHANNEL, "worst_channel"), r"verification.worst_channel is made up"),
    "another size": (of("size_bytes", 1), r"size_bytes is 1, the file has 3000"),
    "more delegated": (of("delegated_fraction", 0.999), r"delegated_fraction is 0.999"),
    "more quantised": (of("quantized_weight_fraction", 0.999), r"quantized_weight_fraction is 0.999"),
    "other weights": (of("structure", 7, "weight_bytes"), r"structure.weight_bytes is 7"),
    "other operators": (of("structure", {"Evil": 1}, "operators"), r"structure.operators is"),
    "other types": (of("structure", {"int4": 1}, "weight_elements"), r"structure.weight_elements is"),
    "more evidence": (
        top("evidence", "count", value=64),
        r"holds 20 samples \(inputs\), the manifest says 64",
    ),
    "less evidence": (top("evidence", "count", value=1), r"holds 20 samples \(inputs\), the manifest says 1"),
    "another floor": (top("evidence", "floor", value=1.0), r"evidence.floor is 1.0"),
    "no floor": (top("evidence", "floor", value=None), r"evidence.floor is None"),
    "another input": (
        top("inputs", value=[{"name": "x", "shape": [1, 3, 8, 8], "dtype": "float32"}]),
        r"holds inputs",
    ),
    "another type of input": (
        top("inputs", value=[{"name": "x", "shape": [1, 3, 4, 4], "dtype": "int64"}]),
        r"holds inputs float32",
    ),
    "another chip": (top("target", "soc", value="SM8750"), r"target.soc is 'SM8750'"),
    "another choice": (top("selected", value=INT8), r"selected is executorch"),
    "no choice": (top("selected", value=None), r"selected is None"),
    "another verdict": (top("verdict", "numerics", value="failed"), r"verdict.numerics is failed"),
    "another page": (top("page_sha256", value="0" * 64), r"report.html is not the file"),
}
"""A change of the manifest, and what verify says about it."""


def test_an_honest_export_has_no_contradiction(out: Path) -> None:
    """Otherwise the table below would prove nothing."""
    assert problems(out) == ""


@pytest.mark.parametrize("name", FORGED)
def test_a_false_claim_is_found(name: str, out: Path) -> None:
    """A false claim is reported with the field's name and the computed figure."""
    change, words = FORGED[name]
    outs.edit(out, change)
    assert re.search(words, problems(out))


def cut(**groups: slice) -> Callable[[Path], None]:
    """Evidence with fewer samples or edges, in a well-formed file."""

    def change(folder: Path) -> None:
        stored = reference_io.load_reference_io(folder / "verification.npz")
        parts: dict[str, Any] = {n: tuple(a[s] for a in getattr(stored, n)) for n, s in groups.items()}
        reference_io.save_reference_io(replace(stored, **parts), folder / "verification.npz")

    return change


def without_edges(folder: Path) -> None:
    stored = reference_io.load_reference_io(folder / "verification.npz")
    emptied: ReferenceIO = replace(stored, edge_names=("zeros", "tiny"))
    reference_io.save_reference_io(emptied, folder / "verification.npz")


def cut_lowering(folder: Path) -> None:
    stored = reference_io.load_reference_io_lowering(folder / LOWERING)
    reference_io.save_reference_io_lowering(
        replace(stored, outputs=tuple(a[:3] for a in stored.outputs)), folder / LOWERING
    )


def other_type(folder: Path) -> None:
    stored = reference_io.load_reference_io(folder / "verification.npz")
    inputs = tuple(a.astype(np.float16) for a in stored.inputs)
    reference_io.save_reference_io(replace(stored, inputs=inputs), folder / "verification.npz")


CUT: dict[str, tuple[Callable[[Path], object], str]] = {
    "inputs and outputs": (cut(inputs=slice(3), reference=slice(3)), r"holds 3 samples \(inputs\)"),
    "all samples": (cut(inputs=slice(0), reference=slice(0)), r"holds 0 samples"),
    "outputs": (cut(reference=slice(3)), r"holds 3 samples \(reference\)"),
    "edges": (cut(edge_inputs=slice(0), edge_reference=slice(0)), r"names 1 edge inputs and holds others"),
    "edge names": (without_edges, r"names 2 edge inputs and holds others"),
    "the quantised program's outputs": (cut_lowering, r"int8.lowering.npz holds 3 samples"),
    "another type": (other_type, r"holds inputs float16"),
    "no evidence": (lambda d: np.savez(d / "verification.npz", a=np.zeros(1)), r"is not the evidence"),
    "a page": (lambda d: (d / "report.html").unlink(), r"report.html is missing"),
}
"""What was cut or changed in OUT, its hash made to fit where there is a file."""


@pytest.mark.parametrize("name", CUT)
def test_evidence_that_was_cut_is_seen(name: str, out: Path) -> None:
    """Fewer samples than the manifest says are no proof of what it says."""
    change, words = CUT[name]
    change(out)
    if (out / "report.html").exists():
        rehash(out)
    assert re.search(words, problems(out))


def test_another_processors_rounding_is_no_false_claim(out: Path) -> None:
    """Figures may differ a little, and below float32's own rounding by any factor."""

    def nudge(listed: Any) -> None:
        verification = row(listed)["verification"]
        verification["max_error"] *= 3
        int8 = row(listed, INT8)["verification"]
        int8["sqnr_db"] += 0.5
        int8["max_error"] *= 1.1

    outs.edit(out, nudge)
    assert problems(out) == ""


def test_what_only_a_signature_can_prove_is_said_in_one_line(out: Path) -> None:
    """Every field that nothing in OUT proves, by its name; changed limits are shown."""
    outs.edit(out, top("limits", "int8_min_sqnr_db", value=3.0))
    listed: schema.Manifest = manifest.load_manifest(out / "manifest.json")
    names = audit_claims.unproven_audit_claims(listed)
    assert {"source", "tool", "calibration", "host_latency", "figures of what did not pass"} <= set(names)
    assert "report.html" not in names
    facts = (audit_claims.extent_of_audit_claims(listed, {}), *audit_claims.audit_claim_of_limits(listed))
    console = Console(width=2000, record=True, force_terminal=False, quiet=False)
    listings.list_audit(Audit((), None, (), facts, names), console)
    lines = console.export_text().splitlines()
    assert sum("Only a signature can vouch for: source, tool" in line for line in lines) == 1
    assert any("Limits were changed: int8_min_sqnr_db 3 (usually 20)." in line for line in lines)
    assert any("No artifact ran." in line for line in lines)


def ran(samples: int, edges: int) -> CheckedArtifactResult:
    """Return the check of an artifact that ran on so many samples and edge inputs."""
    comparison = Comparison(samples, 0.0, 99.0, None)
    edge = Comparison(edges, 0.0, 99.0, None) if edges else None
    return CheckedArtifactResult(None, Verdict("passed", None, "runtime 1", comparison, edge))


NOT_RUN = CheckedArtifactResult(None, Verdict("not_run", "No runtime.", "", None))


@pytest.mark.parametrize(
    ("checked", "sentence"),
    [
        ({"a": ran(64, 8), "b": ran(64, 8)}, "Compared on 64 samples (photos) and 8 edge inputs."),
        ({"v": ran(8, 6)}, "Compared on 8 samples (photos) and 6 edge inputs."),
        ({"a": ran(64, 1), "v": ran(8, 1), "c": ran(1, 0), "d": ran(8, 1)},
         "Compared on 64 samples (photos) and 1 edge input; v, d on 8 samples and 1 edge input; "
         "c on 1 sample and 0 edge inputs."),
        ({"v": ran(8, 6), "n": NOT_RUN}, "Compared on 8 samples (photos) and 6 edge inputs."),
        ({"n": NOT_RUN}, "No artifact ran."),
    ],
)  # fmt: skip
def test_the_extent_is_what_ran_now(
    out: Path, checked: dict[str, CheckedArtifactResult], sentence: str
) -> None:
    """The sentence counts what the artifacts ran on now: a stand-in for a runtime runs fewer samples."""
    assert (
        audit_claims.extent_of_audit_claims(manifest.load_manifest(out / "manifest.json"), checked)
        == sentence
    )


def test_every_field_of_the_manifest_is_proven_or_named(out: Path) -> None:
    """A field that is added later must be recomputed or listed."""
    listed = json.loads((out / "manifest.json").read_text())
    recomputed = {
        "schema_version", "target", "budget_ms", "inputs", "outputs", "artifacts", "selected", "verdict",
        "image_input",
        "evidence", "limits", "accuracy", "task_accuracy", "page_sha256", "selection_reason", "release",
    }  # fmt: skip
    timing = {"seconds", "stage_seconds"}
    accounted = recomputed | timing | set(audit_claims.ALWAYS_UNPROVEN) | set(audit_claims.SOMETIMES_UNPROVEN)
    assert set(listed) <= accounted
