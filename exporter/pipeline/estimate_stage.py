"""Estimates latencies on a Snapdragon's CPU from what artifacts execute. Nothing is measured."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from exporter import temporary_files
from exporter.config import targets
from exporter.config.targets import Target
from exporter.emulated.run import BACKENDS
from exporter.errors import UsageError, VerificationError
from exporter.estimate import anchors, latency_model, operator_split, parameters, small_core
from exporter.estimate.instruction_counts import Counts
from exporter.estimate.operator_split import GraphOperator
from exporter.files import EVIDENCE, MANIFEST, digest_file_or_folder, file_inside
from exporter.pipeline import count_stage, job_rights
from exporter.pipeline.cache import Cache, default_cache_root
from exporter.pipeline.context import Context, Observer, run_with_context_observer
from exporter.pipeline.report_stage import write_report_in_stage
from exporter.pipeline.stage_results import BuildResult
from exporter.pipeline.workers.pool import WorkerPool
from exporter.records import QUANTIZED, SHIPPABLE, Artifact, DeviceLatency, EstimatedLatency, Report, Status
from exporter.verify import budget, estimate_verdicts, select_artifact

RUNTIMES = {**BACKENDS, "lite": "torchscript"}
"""Backend of a variant -> the runtime whose costs are fitted. GPUs and NPUs are missing: no estimate."""
ESTIMATED: frozenset[Status] = SHIPPABLE | {"failed"}
"""Statuses of artifacts that have an estimate: wrong outputs take as long as right ones."""
SWITCH = "EXPORT_MOBILE_ESTIMATE"
"""Environment variable: "0" leaves estimates out of exports that do not ask for them."""


def is_estimate_stage_wanted(asked: bool | None, target: Target) -> bool:
    """Tell whether an export estimates: it was asked to, or it was not asked and the target allows it."""
    if not latency_model.has_latency_model(target):
        return False
    return os.environ.get(SWITCH, "1") != "0" if asked is None else asked


def run_estimate_stage(
    rows: Sequence[Artifact],
    counts: Mapping[str, Counts],
    target: Target,
    flops: int | None,
    operators: Sequence[GraphOperator] = (),
) -> tuple[Artifact, ...]:
    """Add the estimates of every artifact that a CPU runs, whether its outputs were right or not.

    Args:
        rows: The artifacts.
        counts: Artifact name -> what it executes; what is missing is estimated from the graph.
        target: The phone.
        flops: FLOPs of one inference; None or 0 leaves what was not counted without an estimate, unless there
            are operators.
        operators: Those of the network's graph; none where OUT has no graph.
    """
    kernels = max(
        (latency_model.count_kernels_for_latency_model(r.structure.operators) for r in rows if r.structure),
        default=0,
    )
    return tuple(
        replace(
            row,
            estimates=_estimates_in_stage(
                row, counts.get(row.variant.name), target, flops, kernels, operators
            ),
        )
        for row in rows
    )


def operators_for_estimates(rows: Sequence[Artifact], folder: Path) -> tuple[GraphOperator, ...]:
    """Return the operators of the network's graph; none where OUT has no graph of it.

    Args:
        rows: The artifacts.
        folder: OUT.
    """
    named = any(row.file == operator_split.NAMED and row.status in ESTIMATED for row in rows)
    return operator_split.operators_to_split(folder / operator_split.NAMED) if named else ()


def split_estimates_in_stage(
    rows: Sequence[Artifact], operators: Sequence[GraphOperator]
) -> tuple[Artifact, ...]:
    """Divide each artifact's fastest estimate over operators and modules, where there is a graph of them.

    Args:
        rows: The artifacts with their estimates.
        operators: Those of the network's graph.
    """
    if not operators:
        return tuple(rows)
    return tuple(replace(row, estimates=_split_row_in_estimate_stage(row, operators)) for row in rows)


def _split_row_in_estimate_stage(
    row: Artifact, operators: Sequence[GraphOperator]
) -> tuple[EstimatedLatency, ...]:
    best = estimate_verdicts.best_estimate_verdict(row)
    return tuple(
        replace(item, operators=operator_split.operator_split_of_estimate(item, operators))
        if item is best
        else item
        for item in row.estimates
    )


def _estimates_in_stage(
    row: Artifact,
    counts: Counts | None,
    target: Target,
    flops: int | None,
    kernels: int,
    operators: Sequence[GraphOperator],
) -> tuple[EstimatedLatency, ...]:
    runtime = RUNTIMES.get(row.variant.backend)
    fitted = parameters.load_parameters()
    fit = latency_model.fit_of_latency_model(fitted, runtime, row.variant.precision) if runtime else None
    if (
        not runtime
        or not fit
        or not row.structure
        or row.status not in ESTIMATED
        or row.variant.name not in target.runnable
    ):
        return ()
    if counts is None and not flops and not operators:
        return ()
    own = latency_model.count_kernels_for_latency_model(row.structure.operators) or kernels
    narrow = row.variant.precision in QUANTIZED
    graph = latency_model.graph_work_for_latency_model(operators, target, 1 if narrow else 4)
    work = latency_model.Work(counts, flops or 0, row.structure.weight_bytes, own, graph)
    learned = anchors.read_anchors()
    estimated = [
        latency_model.estimate_by_latency_model(work, target, fitted, fit, row.variant.precision, threads)
        for threads in latency_model.THREADS
    ]
    on_small = small_core.estimate_on_small_core(work, target, fitted, fit, row.variant.precision)
    return tuple(
        anchors.anchor_estimate(item, learned, target.soc, runtime, row.variant.precision, row.sha256 or "")
        for item in (*estimated, *([on_small] if on_small else ()))
    )


def learn_anchors_in_estimate_stage(report: Report, latencies: Sequence[tuple[str, DeviceLatency]]) -> int:
    """Keep how far real phones' measurements were from their estimates; return how many were kept."""
    rows = {row.variant.name: row for row in report.artifacts}
    kept = []
    for name, latency in latencies:
        row = rows[name]
        learned = anchors.ratio_of_anchor(latency, row.estimates)
        runtime = RUNTIMES.get(row.variant.backend)
        if learned and runtime:
            threads, ratio = learned
            soc = str(latency.device.get("soc", ""))
            precision, digest = row.variant.precision, row.sha256 or ""
            kept.append(anchors.Anchor(soc, latency.serial, runtime, precision, threads, digest, ratio))
    if kept:
        anchors.keep_anchors(kept)
    return len(kept)


def run_estimate_stage_of_export(
    context: Context, built: Sequence[BuildResult], rows: Sequence[Artifact], flops: int | None
) -> tuple[Artifact, ...]:
    """Add estimates to an export's rows; count only where the programs are prepared already."""
    if not is_estimate_stage_wanted(context.request.estimate, context.target):
        return tuple(rows)
    tools = count_stage.tools_for_count_stage(default_cache_root()) if context.request.verify else None
    files = [(item.variant, item.file) for item in built if item.file]
    counts = (
        count_stage.run_count_stage(
            context.folders.out, files, context.target, tools, context.run, context.cache
        )
        if tools
        else {}
    )
    operators = operators_for_estimates(rows, context.folders.out)
    return split_estimates_in_stage(
        run_estimate_stage(rows, counts, context.target, flops, operators), operators
    )


def report_of_estimate_stage(out: Path) -> tuple[Report, Target]:
    """Return the report and the target of an export that can be estimated.

    Args:
        out: A folder that `export` made.

    Raises:
        UsageError: The target is no Snapdragon.
        VerificationError: OUT has no valid manifest.
    """
    from exporter.report import manifest
    from exporter.report.manifest import restore

    report = restore.restore_report(manifest.load_manifest(out / MANIFEST))
    target = targets.get_target(report.target_name)
    if not latency_model.has_latency_model(target):
        raise UsageError(
            f"{target.title} has no estimate: only Snapdragons have.",
            "Export for one, as --target snapdragon865.",
        )
    return report, target


def run_estimate_stage_for_command(
    out: Path, workers: int = 1, observer: Observer | None = None, cached: bool = True
) -> Report:
    """Estimate the artifacts of an export, choose again unless a phone has measured, and write OUT's report.

    Args:
        out: A folder that `export` made.
        workers: Artifacts counted at the same time, each in a process of its own.
        observer: Told at every step.
        cached: Keep counts in the build cache, and take them from there.

    Raises:
        UsageError: The target is no Snapdragon.
        VerificationError: OUT has no valid manifest, or a file is not the one that was exported.
    """
    report, target = report_of_estimate_stage(out)
    files = [(row.variant, row.file) for row in report.artifacts if row.file and row.status in ESTIMATED]
    for row in report.artifacts:
        if row.file and digest_file_or_folder(file_inside(out, row.file)) != row.sha256:
            raise VerificationError(f"{row.file} is not the file that was exported.", code="EM-CHANGED")
    tools = count_stage.tools_for_count_stage(default_cache_root()) if (out / EVIDENCE).is_file() else None
    counts: Mapping[str, Counts] = {}
    if tools:
        allowed = job_rights.job_rights_to_verify(out, tools[0].folder)
        kept = Cache(default_cache_root() if cached else None)
        with (
            temporary_files.temporary_scratch("estimate") as folder,
            WorkerPool(workers, folder / "log", allowed) as pool,
        ):
            run = functools.partial(run_with_context_observer, pool, observer or (lambda _: None))
            counts = count_stage.run_count_stage(out, files, target, tools, run, kept)
    operators = operators_for_estimates(report.artifacts, out)
    rows = split_estimates_in_stage(
        run_estimate_stage(report.artifacts, counts, target, report.flops, operators), operators
    )
    estimated = _choose_again_in_estimate_stage(replace(report, artifacts=rows), target)
    return write_report_in_stage(out, estimated)


def _choose_again_in_estimate_stage(report: Report, target: Target) -> Report:
    """Choose again; what a phone has measured stays chosen."""
    before = next((row for row in report.artifacts if row.variant.name == report.selected), None)
    if before is None or any(item.evidence == "measured" for item in before.device_latencies):
        return report
    choice = select_artifact.select_artifact(
        report.artifacts,
        target.runnable,
        synthetic=report.calibration_kind == "synthetic",
        allow_synthetic=before.variant.precision in QUANTIZED,
        allow_inconclusive=before.status == "inconclusive",
    )
    chosen = next(row for row in report.artifacts if row.variant.name == choice.name)
    return replace(
        report,
        selected=choice.name,
        selection_reason=choice.reason,
        numerics=chosen.status,
        budget=budget.budget_verdict(chosen.device_latencies, report.budget_ms),
    )
