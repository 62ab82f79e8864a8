"""Restore a Report from a Manifest: everything that the page shows except the output values."""

from __future__ import annotations

import math

from exporter.records import Artifact, Comparison, Report, Structure, Verdict
from exporter.report.manifest import NOTHING_COMPARED, schema


def restore_report(listed: schema.Manifest) -> Report:
    """Return the report that the manifest was written from.

    A manifest does not hold a structure's own inputs and outputs; the model's replace them.
    """
    floor = listed.evidence.floor
    return Report(
        source_file=listed.source.file,
        source_sha256=listed.source.sha256,
        source_kind=listed.source.kind,
        architecture=listed.source.architecture,
        parameters=listed.source.parameters,
        flops=listed.source.flops,
        target_name=listed.target.name,
        target_soc=listed.target.soc,
        budget_ms=listed.budget_ms,
        export_budget_ms=listed.export_budget_ms,
        inputs=listed.inputs,
        outputs=listed.outputs,
        preprocessing=listed.preprocessing,
        calibration_kind=listed.calibration.kind,
        calibration_count=listed.calibration.count,
        verification_kind=listed.evidence.kind,
        verification_count=listed.evidence.count,
        floor=math.nan if floor is None else floor,
        artifacts=tuple(_restore_artifact(row, listed) for row in listed.artifacts),
        selected=listed.selected,
        selection_reason=listed.selection_reason,
        numerics=listed.verdict.numerics,
        budget=listed.verdict.budget,
        tools=listed.tool,
        toolchain=listed.toolchain,
        notes=listed.notes,
        warnings=listed.warnings,
        not_offered=listed.not_offered,
        seconds=listed.seconds,
        stage_seconds=listed.stage_seconds,
        labels=listed.labels,
        image_input=listed.image_input,
        operator_costs=tuple(item.record() for item in listed.operator_costs),
        mixed_points=tuple(item.record() for item in listed.mixed_points),
        scenes=listed.scenes,
        limits=listed.limits,
        task=listed.task,
        matrix_weights=listed.evidence.matrix_weights,
        evidence_files={item.file: item.sha256 for item in listed.evidence.files},
        page_sha256=listed.page_sha256 or "",
        calibration_sweep=tuple(point.record() for point in listed.calibration_sweep),
        evaluation=listed.accuracy.record() if listed.accuracy else None,
        task_evaluation=listed.task_accuracy.record() if listed.task_accuracy else None,
    )


def _restore_artifact(row: schema.Artifact, listed: schema.Manifest) -> Artifact:
    return Artifact(
        row.variant(),
        file=row.file,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        status=row.status,
        reason=row.reason,
        notes=row.notes,
        source_line=row.source_line,
        structure=_restore_structure(row, listed),
        verdict=_restore_verdict(row),
        latency=row.host_latency,
        build_seconds=row.build_seconds,
        device_latencies=row.measured_on(),
        accuracy=row.accuracy.record() if row.accuracy else None,
        task_accuracy=row.task_accuracy.record() if row.task_accuracy else None,
        arm64=row.arm64_emulated,
        estimates=row.estimated_latencies,
    )


def _restore_structure(row: schema.Artifact, listed: schema.Manifest) -> Structure | None:
    if row.structure is None:
        return None
    return Structure(
        inputs=listed.inputs,
        outputs=listed.outputs,
        operators=row.structure.operators,
        weight_bytes=row.structure.weight_bytes,
        weight_elements=row.structure.weight_elements,
        delegated_fraction=row.delegated_fraction,
    )


def _restore_verdict(row: schema.Artifact) -> Verdict | None:
    figures = row.verification
    if figures is None:
        return None
    return Verdict(
        status=row.status,
        reason=row.reason,
        runtime=figures.runtime,
        comparison=restore_comparison(figures),
        edge=restore_comparison(figures.edge),
        lowering=restore_comparison(figures.lowering),
        limits=figures.limits,
        worst_channel=figures.worst_channel,
        task=figures.task,
        executor=figures.executor,
        sizes=figures.sizes,
    )


def restore_comparison(figures: schema.Figures | None) -> Comparison | None:
    """The figures of one comparison; None when nothing was compared."""
    if figures is None or figures.problem == NOTHING_COMPARED:
        return None
    return Comparison(
        samples=figures.samples,
        max_error=_restore_figure("max_error", figures.max_error, figures),
        sqnr_db=_restore_figure("sqnr_db", figures.sqnr_db, figures),
        agreement=figures.top1_agreement,
        problem=figures.problem,
        scenes=figures.scenes,
        sqnr_bounds_db=figures.sqnr_bounds_db,
        agreement_bounds=figures.agreement_bounds,
    )


def _restore_figure(name: str, value: float | None, figures: schema.Figures) -> float:
    return float(figures.not_finite.get(name, "nan")) if value is None else value
