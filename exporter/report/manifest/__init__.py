"""Write a report as manifest.json, and read it back as a Manifest. What is read is hostile until checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.errors import VerificationError
from exporter.records import Artifact, Comparison, OperatorCost, Report, Verdict
from exporter.report.manifest import manifest_accuracy, manifest_task_accuracy
from exporter.report.manifest.schema import SCHEMA_VERSION, Manifest
from exporter.verify import budget

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

NOTHING_COMPARED = "Nothing was compared."
MAX_MESSAGE = 300
MOST_DB = 3000.0
"""Stands for an infinite bound."""
MAX_BYTES = 64 * 1024 * 1024
"""The largest manifest that is read. One with every sample of a hundred artifacts has 1 MB."""


def dump_manifest(report: Report) -> str:
    """Return the manifest as JSON text: keys in a fixed order, no NaN, no Infinity.

    A figure that is not finite becomes null, and the `not_finite` next to it says what it was.
    """
    manifest = Manifest.model_validate(
        {
            "schema_version": SCHEMA_VERSION,
            "tool": dict(report.tools),
            "toolchain": report.toolchain,
            "source": {
                "file": report.source_file,
                "sha256": report.source_sha256,
                "kind": report.source_kind,
                "architecture": report.architecture,
                "parameters": report.parameters,
                "flops": report.flops,
            },
            "target": {"name": report.target_name, "soc": report.target_soc},
            "budget_ms": report.budget_ms,
            "inputs": [asdict(spec) for spec in report.inputs],
            "outputs": [asdict(spec) for spec in report.outputs],
            "calibration": {"kind": report.calibration_kind, "count": report.calibration_count},
            "scenes": asdict(report.scenes),
            "artifacts": [_manifest_artifact(artifact, report.budget_ms) for artifact in report.artifacts],
            "selected": report.selected,
            "verdict": {"numerics": report.numerics, "budget": report.budget},
            "evidence": _manifest_evidence(report),
            "limits": asdict(report.limits),
            "task": report.task,
            "accuracy": manifest_accuracy.dump_manifest_accuracy_evaluation(report.evaluation)
            if report.evaluation
            else None,
            "task_accuracy": report.task_evaluation
            and manifest_task_accuracy.dump_manifest_task_accuracy_evaluation(report.task_evaluation),
            "calibration_sweep": [
                {
                    "count": point.count,
                    "sqnr_db": point.sqnr_db if math.isfinite(point.sqnr_db) else None,
                    "top1_agreement": point.agreement,
                }
                for point in report.calibration_sweep
            ],
            "preprocessing": asdict(report.preprocessing) if report.preprocessing else None,
            "labels": report.labels,
            "image_input": asdict(report.image_input) if report.image_input else None,
            "selection_reason": report.selection_reason,
            "notes": report.notes,
            "warnings": report.warnings,
            "not_offered": dict(report.not_offered),
            "seconds": report.seconds,
            "stage_seconds": dict(report.stage_seconds),
            "page_sha256": report.page_sha256 or None,
            "export_budget_ms": report.export_budget_ms,
            "operator_costs": [_manifest_cost(cost) for cost in report.operator_costs],
            "mixed_points": [
                asdict(point) | _manifest_decibels(point.sqnr_db) | {"kept": point.float_ops}
                for point in report.mixed_points
            ],
        }
    )
    return manifest.model_dump_json(indent=2) + "\n"


def load_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        VerificationError: It cannot be read, is no manifest of this schema, or names files outside.
    """
    return parse_manifest(_read_manifest(path), path)


def parse_manifest(text: bytes, path: Path) -> Manifest:
    """Check a manifest's text; `path` is for the message.

    Raises:
        VerificationError: For the reasons that `load_manifest` gives.
    """
    from pydantic import ValidationError

    try:
        return Manifest.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise _manifest_refusal(path, error) from None


def _read_manifest(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise VerificationError(f"{path} has {size} bytes; a manifest has at most {MAX_BYTES}.")
        return path.read_bytes()
    except FileNotFoundError:
        raise VerificationError(
            f"{path} does not exist.",
            "Give the folder that export-mobile wrote.",
            code="EM-NO-EXPORT",
        ) from None
    except OSError as error:
        raise VerificationError(f"{path} cannot be read: {error.strerror}.") from None


def _manifest_refusal(path: Path, error: ValidationError) -> VerificationError:
    """Describe the first mistake. A wrong schema version comes before everything else."""
    errors = sorted(error.errors(include_url=False), key=lambda e: e["loc"] != ("schema_version",))
    first = errors[0]
    if first["loc"] == ("schema_version",) and first["type"] == "literal_error":
        return VerificationError(
            f"{path} has schema version {_shown_manifest_value(first['input'])}; "
            f"this export-mobile reads {SCHEMA_VERSION}.",
            "Use the export-mobile that wrote it, or export again.",
        )
    more = f" ({len(errors) - 1} more like it)" if len(errors) > 1 else ""
    return VerificationError(
        f"{path} is not a valid manifest: {_manifest_place(first)}{_manifest_error_message(first)}{more}.",
        "Export again, or restore the file as export-mobile wrote it.",
    )


def _manifest_place(error: ErrorDetails) -> str:
    """Return `artifacts[2].sha256 is "abc": `, or nothing when the whole text is meant."""
    if not error["loc"]:
        return ""
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
    seen = "" if error["type"] == "missing" else f" is {_shown_manifest_value(error['input'])}"
    return f"{name.removeprefix('.')}{seen}: "


def _manifest_error_message(error: ErrorDetails) -> str:
    """What is wrong, in one line: a hostile value may be in it."""
    return error["msg"].removeprefix("Value error, ")[:MAX_MESSAGE]


def _shown_manifest_value(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _manifest_evidence(report: Report) -> dict[str, Any]:
    return {
        "kind": report.verification_kind,
        "count": report.verification_count,
        "floor": report.floor if math.isfinite(report.floor) else None,
        "matrix_weights": report.matrix_weights,
        "files": [{"file": name, "sha256": digest} for name, digest in sorted(report.evidence_files.items())],
    }


def _manifest_cost(cost: OperatorCost) -> dict[str, Any]:
    """Round to a decibel's useful precision, so that writing what was read gives the same text."""
    return {
        "name": cost.name,
        "layer": cost.layer,
        "kind": cost.kind,
        **_manifest_decibels(round(cost.sqnr_db, 3)),
    }


def _manifest_decibels(value: float) -> dict[str, Any]:
    finite = math.isfinite(value)
    return {"sqnr_db": value if finite else None, "not_finite": {} if finite else {"sqnr_db": str(value)}}


def _manifest_artifact(artifact: Artifact, budget_ms: float) -> dict[str, Any]:
    structure, latency = artifact.structure, artifact.latency
    counts = budget.worst_for_budget(artifact.device_latencies, budget_ms)
    return {
        "name": artifact.variant.name,
        "file": artifact.file,
        "format": artifact.variant.format,
        "backend": artifact.variant.backend,
        "precision": artifact.variant.precision,
        "size_bytes": artifact.size_bytes,
        "sha256": artifact.sha256,
        "status": artifact.status,
        "reason": artifact.reason,
        "verification": _manifest_verification(artifact.verdict) if artifact.verdict else None,
        "quantized_weight_fraction": structure.quantized_weight_fraction if structure else None,
        "delegated_fraction": structure.delegated_fraction if structure else None,
        "host_latency": asdict(latency) if latency else None,
        "device_latency": asdict(counts) if counts else None,
        "device_latencies": [asdict(item) for item in artifact.device_latencies],
        "structure": structure
        and {
            "weight_bytes": structure.weight_bytes,
            "weight_elements": _sort_manifest_counts(structure.weight_elements),
            "operators": _sort_manifest_counts(structure.operators),
        },
        "accuracy": manifest_accuracy.dump_manifest_accuracy(artifact.accuracy)
        if artifact.accuracy
        else None,
        "task_accuracy": artifact.task_accuracy
        and manifest_task_accuracy.dump_manifest_task_accuracy(artifact.task_accuracy),
        "arm64_emulated": asdict(artifact.arm64) if artifact.arm64 else None,
        "estimated_latencies": [asdict(item) for item in artifact.estimates],
        "notes": artifact.notes,
        "source_line": artifact.source_line,
        "build_seconds": artifact.build_seconds,
    }


def _sort_manifest_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Sort by name, because readers collect them in the file's order."""
    return dict(sorted(counts.items()))


def _manifest_verification(verdict: Verdict) -> dict[str, Any]:
    return {
        "runtime": verdict.runtime,
        "executor": verdict.executor,
        **_manifest_figures(verdict.comparison or Comparison(0, math.nan, math.nan, None, NOTHING_COMPARED)),
        "limits": dict(verdict.limits),
        "edge": verdict.edge and _manifest_figures(verdict.edge),
        "lowering": verdict.lowering and _manifest_figures(verdict.lowering),
        "worst_channel": verdict.worst_channel and asdict(verdict.worst_channel),
        "task": verdict.task and asdict(verdict.task),
        "sizes": verdict.sizes and asdict(verdict.sizes),
    }


def _manifest_figures(comparison: Comparison) -> dict[str, Any]:
    values = {
        "max_error": comparison.max_error,
        "sqnr_db": comparison.sqnr_db,
        "top1_agreement": comparison.agreement,
    }
    lost = {name: str(v) for name, v in values.items() if v is not None and not math.isfinite(v)}
    return {
        "samples": comparison.samples,
        **{name: None if name in lost else value for name, value in values.items()},
        "scenes": comparison.scenes,
        "sqnr_bounds_db": comparison.sqnr_bounds_db
        and [min(max(bound, -MOST_DB), MOST_DB) for bound in comparison.sqnr_bounds_db],
        "agreement_bounds": comparison.agreement_bounds,
        "problem": comparison.problem,
        "not_finite": lost,
    }
