"""Runs the stages in order: read, capture, build, verify, measure, choose, report, publish."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter import staging
from exporter.checkpoints import checkpoint_folder
from exporter.checkpoints.checkpoint_source import check_regular_checkpoint_source
from exporter.config import targets
from exporter.config.buckets import lists_sizes
from exporter.config.request import Request
from exporter.errors import CheckpointError, UsageError
from exporter.files import clean_log_file
from exporter.pipeline import (
    accuracy_stage,
    build_stage,
    cache,
    calibration_sweep,
    emulation_stage,
    estimate_stage,
    job_rights,
    memory,
    mixed_precision_search,
    read_stage,
    stage_results,
    verify_stage,
    weights_memory,
)
from exporter.pipeline.context import Context, Event, Observer
from exporter.pipeline.host_latency import measure_host_latencies_of_artifacts
from exporter.pipeline.mixed_precision_candidates import Measurer
from exporter.pipeline.report_stage import (
    make_report_in_stage,
    report_stage_rows,
    save_outputs_in_report_stage,
    write_report_in_stage,
)
from exporter.pipeline.variants import check_image_variants, check_variant_extras, plan_variants
from exporter.pipeline.workers.pool import WorkerPool
from exporter.records import Report


def export(
    checkpoint: str | Path,
    target: str,
    observer: Observer | None = None,
    measure: Measurer | None = None,
    **options: Any,
) -> Report:
    """Export a checkpoint for a target: every variant built, verified and timed, the best one chosen.

    Args:
        checkpoint: Any file `export-mobile inspect` can read.
        target: A name that `export-mobile targets` lists.
        observer: Called at every step.
        measure: Times the candidates of `search`; this host's runtimes when None.
        options: The other fields of `Request`.

    Returns:
        The report; also written to OUT. `report.selected` is None when nothing may be shipped.

    Raises:
        ExportError: The checkpoint cannot be read, its network is unknown, OUT cannot be written, …
    """
    for name in ("calibration", "evaluation", "out"):
        if isinstance(path := options.get(name), str):
            options[name] = Path(path)
    return run_pipeline(Request(checkpoint=Path(checkpoint), target=target, **options), observer, measure)


def run_pipeline(
    request: Request, observer: Observer | None = None, measure: Measurer | None = None
) -> Report:
    """Run an export for a request that is already complete."""
    request = replace(request, checkpoint=checkpoint_folder.find_checkpoint_folder(request.checkpoint))
    target = targets.get_target(request.target)
    variants = plan_variants(target, request.formats, request.precisions, request.search)
    check_variant_extras(variants)
    check_image_variants(request, variants)
    _check_pipeline_source(request.checkpoint)
    _check_pipeline_verified(request)
    if request.cache:
        cache.check_cache_private(cache.default_cache_root())
    observer = observer or _silent_pipeline_observer
    weights_bytes = weights_memory.weights_memory_bytes(request.checkpoint)
    planned = memory.plan_memory(weights_bytes, request.jobs, request.memory_gib)
    with staging.staging(request.destination, request.force) as folders:
        observer(Event("plan", str(planned), 0, 0))
        allowed = job_rights.job_rights_to_export(request, folders)
        with WorkerPool(planned.workers, folders.log, allowed) as workers:
            context = Context(request, target, variants, folders, workers, observer)
            report = _pipeline_stages(context, measure, planned, weights_bytes)
            context.cache.prune(cache.cache_limit_bytes())
        clean_log_file(folders.log)
        staging.publish_staged(folders, request.destination, request.force)
    return report


def _keep_pipeline_within_memory(
    context: Context, facts: stage_results.ReadResult, planned: memory.MemoryPlan, weights_bytes: int
) -> None:
    """Run fewer jobs at once, or none, where the network's values take more than its weights let expect.

    Raises:
        NotEnoughMemoryError: One job alone takes more than what is free.
    """
    samples_bytes = memory.samples_memory_bytes(
        facts.inputs, facts.outputs, facts.calibration_count, facts.verification_count
    )
    need = memory.MemoryNeed(weights_bytes, facts.activation_bytes, samples_bytes)
    request = context.request
    anew = memory.plan_memory_of_network(planned, need, request.jobs, bool(request.memory_gib))
    context.workers.adapt(anew.workers, memory.VALUES_LIMIT * need.value_bytes)
    if anew.workers != planned.workers or anew.needed_bytes > 1.5 * planned.needed_bytes:
        context.observer(Event("plan", str(anew), 0, 0))


def _pipeline_stages(
    context: Context, measure: Measurer | None, planned: memory.MemoryPlan, weights_bytes: int
) -> Report:
    clock = PipelineClock(context.observer)
    with clock("read"):
        model = read_stage.run_read_stage(context)
        _keep_pipeline_within_memory(context, model.facts, planned, weights_bytes)
        labels = accuracy_stage.samples_for_accuracy_stage(context, model)
    with clock("build"):
        model, built = build_stage.run_build_stage(context, model)
    with clock("verify"):
        checked = verify_stage.run_verify_stage(context, model, built)
    with clock("measure"):
        timed = measure_host_latencies_of_artifacts(context, built, checked)
    search = mixed_precision_search.SearchResult()
    if context.request.search:
        with clock("search"):
            search = mixed_precision_search.search_mixed_precision(
                context, model, built, checked, timed, labels, measure
            )
        built, checked = (*built, *search.built), {**checked, **search.checked}
    if search.built:
        with clock("measure"):  # again, as what is chosen is chosen by comparison
            timed = measure_host_latencies_of_artifacts(context, built, checked)
    with clock("arm64"):
        emulations = emulation_stage.run_emulation_stage_of_export(context, built, model.facts.flops)
    extras = stage_results.ExtraResults()
    artifacts = report_stage_rows(context, built, checked, timed, emulations)
    with clock("estimate"):
        artifacts = estimate_stage.run_estimate_stage_of_export(context, built, artifacts, model.facts.flops)
    if context.request.calibration_sweep:
        with clock("sweep"):
            extras = calibration_sweep.run_calibration_sweep(context, model)
    extras = replace(extras, mixed_points=search.points, warnings=(*extras.warnings, *search.warnings))
    if labels is not None:
        with clock("accuracy"):
            artifacts, extras = accuracy_stage.run_accuracy_stage(
                context, model, built, checked, labels, search.answers, artifacts, extras
            )
    save_outputs_in_report_stage(context, checked)
    report = make_report_in_stage(context, model, artifacts, clock.seconds, extras)
    with clock("report"):
        return write_report_in_stage(context.folders.out, report)


class PipelineClock:
    """Times the stages and announces them."""

    def __init__(self, observer: Observer) -> None:
        self.seconds: dict[str, float] = {}
        self._observer = observer

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begin = time.monotonic()
        self._observer(Event(stage, "", 0, 0))
        yield
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.monotonic() - begin, 3)


def _silent_pipeline_observer(event: Event) -> None:
    """Ignore an event, for callers without an observer."""


def _check_pipeline_source(path: Path) -> None:
    from exporter import checkpoints

    if checkpoints.is_folder(path):
        return
    if path.is_dir() or not path.exists():
        state = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{path} {state}, expected a checkpoint file.", "Check the path.")
    check_regular_checkpoint_source(path)


def _check_pipeline_verified(request: Request) -> None:
    asked = [
        ("--eval", request.evaluation),
        ("--calibration-sweep", request.calibration_sweep),
        ("--search", request.search),
    ]
    for option, value in asked:
        if value and not request.verify:
            raise UsageError(
                f"{option} needs the verification's results.", f"Leave out --no-verify or {option}."
            )
    if lists_sizes(request.dynamic):
        raise UsageError(
            "--dynamic lists sizes, and one export has one file for all.",
            "Export from the command line, or by exporter.pipeline.buckets.export_buckets.",
        )
    if request.several_sizes and request.search:
        raise UsageError(
            "--search is for one size of each input.", "Leave out --dynamic and --photo-sizes, or --search."
        )
    if request.photo_sizes and (request.dynamic or not request.embed_preprocessing):
        raise UsageError(
            "--photo-sizes lets artifacts that take a photo's bytes resize it, to the network's one size.",
            "Give --embed-preprocessing with it, and leave out --dynamic.",
        )
    if request.evaluation and request.state == "explicit":
        raise UsageError(
            "--eval has no state to send: its samples are calls on their own.", "Leave out --state explicit."
        )
