"""Builds the report from the stages' results, and writes manifest and page next to the artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.config.toolchains import installed_toolchain, toolchain_warnings
from exporter.files import (
    MANIFEST,
    OUTPUTS,
    PAGE,
    digest_file,
    digest_file_or_folder,
    file_size_bytes,
    forget_page_files,
    keep_page_file,
    name_of_source_file,
    write_text_file,
)
from exporter.pipeline import stage_results, verify_stage
from exporter.pipeline.context import Context, Source
from exporter.pipeline.stage_results import CheckedArtifactResult
from exporter.records import SHIPPABLE, Artifact, Emulation, Latency, Report, Status
from exporter.report import text
from exporter.verify import select_artifact

if TYPE_CHECKING:
    import numpy as np

TOOLS = (
    "torch",
    "torchvision",
    "executorch",
    "torchao",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "coremltools",
    "numpy",
)
TOOLS_OF_EXTRAS = {"coreai": "coreai-core", "onnx-qnn": "onnxruntime-qnn"}
"""Format -> the package that makes it, where it is no dependency: listed where the format was made."""


def report_stage_rows(
    context: Context,
    built: Sequence[stage_results.BuildResult],
    checked: Mapping[str, CheckedArtifactResult],
    latencies: Mapping[str, Latency],
    emulations: Mapping[str, Emulation],
) -> tuple[Artifact, ...]:
    """Make a row of the manifest for every variant that was to be made."""
    rows = (
        _report_stage_row(context, item, checked.get(item.variant.name), latencies.get(item.variant.name))
        for item in built
    )
    return tuple(_add_arm_to_report_stage(row, emulations.get(row.variant.name)) for row in rows)


def _add_arm_to_report_stage(row: Artifact, result: Emulation | None) -> Artifact:
    """Add what an artifact computed on emulated Arm; one that is wrong there does not pass."""
    if result and row.status in SHIPPABLE and result.status == "failed":
        return replace(row, arm64=result, status=result.status, reason=result.reason)
    return replace(row, arm64=result)


def _report_stage_row(
    context: Context,
    built: stage_results.BuildResult,
    checked: CheckedArtifactResult | None,
    latency: Latency | None,
) -> Artifact:
    if built.file is None or checked is None:
        return Artifact(
            built.variant,
            file=None,
            size_bytes=None,
            sha256=None,
            status="error",
            reason=built.error,
            source_line=built.source_line,
            build_seconds=round(built.seconds, 3),
        )
    path = context.folders.out / built.file
    return Artifact(
        built.variant,
        file=built.file,
        size_bytes=file_size_bytes(path),
        sha256=digest_file_or_folder(path),
        status=checked.verdict.status,
        reason=checked.verdict.reason,
        notes=(*built.notes, *text.sizes_text(checked.verdict.sizes)),
        structure=checked.structure,
        verdict=checked.verdict,
        latency=latency,
        build_seconds=round(built.seconds, 3),
    )


def _report_stage_tools(rows: Sequence[Artifact]) -> tuple[str, ...]:
    made = {row.variant.format for row in rows}
    return ("export-mobile", *TOOLS, *(TOOLS_OF_EXTRAS[name] for name in sorted(made & set(TOOLS_OF_EXTRAS))))


def make_report_in_stage(
    context: Context,
    source: Source,
    rows: Sequence[Artifact],
    stage_seconds: Mapping[str, float],
    extras: stage_results.ExtraResults,
) -> Report:
    """Make the report of the run, the choice included."""
    facts, request, target = source.facts, context.request, context.target
    choice = select_artifact.select_artifact(
        rows,
        target.runnable,
        facts.data_kind == "synthetic",
        request.allow_synthetic,
        request.allow_inconclusive,
    )
    return Report(
        source_file=name_of_source_file(request.checkpoint),
        source_sha256=facts.source_sha256,
        source_kind=facts.source_kind,
        architecture=facts.architecture,
        parameters=facts.parameters,
        flops=facts.flops,
        target_name=target.name,
        target_soc=target.soc,
        budget_ms=request.budget_ms,
        inputs=facts.inputs,
        outputs=facts.outputs,
        preprocessing=facts.preprocessing,
        calibration_kind=facts.data_kind,
        calibration_count=facts.calibration_count,
        verification_kind=facts.data_kind if request.verify else "none",
        verification_count=facts.verification_count if request.verify else 0,
        scenes=facts.scenes,
        floor=_report_stage_floor(context),
        artifacts=tuple(rows),
        selected=choice.name,
        selection_reason=choice.reason,
        numerics=_report_stage_numerics(rows, choice.name, request.verify),
        budget="not_measured",
        tools={name.replace("-", "_"): metadata.version(name) for name in _report_stage_tools(rows)},
        toolchain=installed_toolchain().text,
        notes=facts.notes,
        warnings=(*facts.warnings, *extras.warnings, *toolchain_warnings()),
        not_offered=target.why_not,
        seconds=round(sum(stage_seconds.values()), 3),
        stage_seconds=dict(stage_seconds),
        labels=facts.labels,
        image_input=facts.image,
        evidence_files=_report_stage_evidence(context),
        limits=request.limits,
        task=request.task,
        operator_costs=source.quantization.costs if source.quantization else (),
        matrix_weights=facts.matrix_weights,
        evaluation=extras.evaluation,
        task_evaluation=extras.task_evaluation,
        calibration_sweep=extras.curve,
        mixed_points=extras.mixed_points,
    )


def _report_stage_numerics(rows: Sequence[Artifact], selected: str | None, verified: bool) -> Status:
    if selected:
        return next(row.status for row in rows if row.variant.name == selected)
    if any(row.status == "inconclusive" for row in rows):
        return "inconclusive"
    return "failed" if verified and rows else "not_run"


def _report_stage_floor(context: Context) -> float:
    from exporter.verify import reference_io

    return reference_io.load_reference_io(context.evidence).floor if context.evidence.exists() else 0.0


def _report_stage_evidence(context: Context) -> dict[str, str]:
    paths = sorted(context.folders.out.glob("*.npz"))
    return {path.name: digest_file(path) for path in paths}


def write_report_in_stage(folder: Path, report: Report) -> Report:
    """Write report.html and, last, manifest.json; each aside and renamed.

    The page of the manifest before is kept until the manifest is replaced, so that a kill in between leaves a
    valid folder.

    Returns:
        The report with the page's hash, as it is in the manifest.
    """
    from exporter.report import manifest

    page = render_page_in_report_stage(folder, report)
    keep_page_file(folder)
    write_text_file(folder / PAGE, page)
    written = replace(report, page_sha256=digest_file(folder / PAGE))
    write_text_file(folder / MANIFEST, manifest.dump_manifest(written))
    forget_page_files(folder)
    return written


def render_page_in_report_stage(folder: Path, report: Report) -> str:
    """Render the page of a folder's export."""
    from exporter.report import html

    return html.render_html(
        report, _report_stage_outputs(folder / OUTPUTS) if OUTPUTS in report.evidence_files else {}
    )


def save_outputs_in_report_stage(context: Context, checked: Mapping[str, CheckedArtifactResult]) -> None:
    """Save output values by artifact, and the float64 model's as "reference": the page can be drawn again."""
    import numpy as np

    from exporter.verify import reference_io

    values = {
        name: np.array(artifact.outputs, np.float32) for name, artifact in checked.items() if artifact.outputs
    }
    if values:
        reference = reference_io.load_reference_io(context.evidence).reference[0]
        values["reference"] = verify_stage.histogram_values_of_verify_stage(reference).astype(np.float32)
        np.savez_compressed(context.folders.out / OUTPUTS, **values)  # type: ignore[arg-type]


def _report_stage_outputs(path: Path) -> dict[str, np.ndarray]:
    from exporter.verify import reference_io

    return reference_io.read_reference_io_arrays(path)
