"""The stages in order: read, capture, build, verify, measure, choose, report, publish."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter import assemble, cache, evaluate, publish, searching, stages, targets
from exporter.candidates import Measurer
from exporter.context import Context, Event, Observer
from exporter.errors import CheckpointError, UsageError
from exporter.records import Report, Variant
from exporter.request import Request
from exporter.workers import Workers

MAX_WORKERS = 4


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
        observer: Told at every step.
        measure: What times the candidates of `search`; this host's runtimes when None.
        options: The other fields of `Request`.

    Returns:
        The report; also written to OUT. `report.selected` is None when nothing may be shipped.

    Raises:
        ExportError: The checkpoint cannot be read, its network is unknown, OUT cannot be written, …
    """
    for name in ("calibration", "evaluation", "out"):
        if isinstance(path := options.get(name), str):
            options[name] = Path(path)
    return run(Request(checkpoint=Path(checkpoint), target=target, **options), observer, measure)


def run(request: Request, observer: Observer | None = None, measure: Measurer | None = None) -> Report:
    """As `export`, for a request that is already put together."""
    target = targets.get(request.target)
    variants = plan(target, request.formats, request.precisions, request.search)
    _check_is_file(request.checkpoint)
    _check_verified(request)
    with publish.staging(request.destination, request.force) as folders:
        with Workers(request.jobs or worker_count(), folders.log) as workers:
            context = Context(request, target, variants, folders, workers, observer or _silent)
            report = _stages(context, measure)
            context.cache.prune(cache.limit_bytes())
        publish.publish(folders, request.destination)
    return report


def _stages(context: Context, measure: Measurer | None) -> Report:
    clock = Clock(context.observer)
    with clock("read"):
        model = stages.read(context)
        labels = evaluate.find(context, model)
    with clock("build"):
        model, built = stages.build(context, model)
    with clock("verify"):
        checked = stages.verify(context, model, built)
    with clock("measure"):
        timed = stages.measure(context, built, checked)
    found = searching.Found()
    if context.request.search:
        with clock("search"):
            found = searching.search(context, model, built, checked, timed, labels, measure)
        built, checked, timed = (
            (*built, *found.built),
            {**checked, **found.checked},
            {**timed, **found.latencies},
        )
    extras = evaluate.Extras()
    artifacts = assemble.artifacts(context, built, checked, timed)
    if context.request.calibration_curve:
        with clock("curve"):
            extras = evaluate.calibration_curve(context, model)
    extras = replace(extras, mixed_points=found.points, warnings=(*extras.warnings, *found.warnings))
    if labels is not None:
        with clock("accuracy"):
            artifacts, extras = evaluate.accurate(
                context, model, built, checked, labels, found.answers, artifacts, extras
            )
    assemble.save_outputs(context, checked)
    report = assemble.report(context, model, artifacts, clock.seconds, extras)
    with clock("report"):
        assemble.write(context.folders.out, report)
    return report


class Clock:
    """Times the stages and announces them."""

    def __init__(self, observer: Observer) -> None:
        self.seconds: dict[str, float] = {}
        self._observer = observer

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begin = time.monotonic()
        self._observer(Event(stage, "", 0, 0))
        yield
        self.seconds[stage] = round(time.monotonic() - begin, 3)


def _silent(event: Event) -> None:
    """The observer of a caller who does not want to watch."""


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{path} {what}, expected a checkpoint file.", "Check the path.")


def _check_verified(request: Request) -> None:
    asked = [
        ("--eval", request.evaluation),
        ("--calibration-curve", request.calibration_curve),
        ("--search", request.search),
    ]
    for option, value in asked:
        if value and not request.verify:
            raise UsageError(
                f"{option} needs the verification's results.", f"Leave out --no-verify or {option}."
            )


def plan(
    target: targets.Target, formats: Sequence[str] = (), precisions: Sequence[str] = (), search: bool = False
) -> tuple[Variant, ...]:
    """The variants to make.

    Raises:
        UsageError: A format or precision that does not exist, or that leaves nothing to do.
    """
    from exporter.formats import VARIANTS

    offered = [VARIANTS[name] for name in target.variants if search or VARIANTS[name].precision != "mixed"]
    if "mixed" in precisions and not search:
        raise UsageError("Precision mixed is what --search looks for.", "Give --search.")
    _check_names("--formats", formats, {v.format for v in VARIANTS.values()} | set(VARIANTS))
    _check_names("--precisions", precisions, {v.precision for v in VARIANTS.values()})
    chosen = tuple(
        v
        for v in offered
        if (not formats or v.format in formats or v.name in formats)
        and (not precisions or v.precision in precisions)
    )
    if not chosen:
        raise UsageError(
            f"No artifact for {target.name} is left by --formats {','.join(formats) or 'all'} and "
            f"--precisions {','.join(precisions) or 'all'}.",
            f"It offers: {', '.join(v.name for v in offered)}.",
        )
    if search and not any(v.precision == "mixed" for v in chosen):
        mixed = ", ".join(v.name for v in offered if v.precision == "mixed")
        raise UsageError(
            f"--search makes mixed artifacts, and --formats and --precisions leave none of {target.name}'s.",
            f"It offers: {mixed or 'none'}.",
        )
    return chosen


def check_required(request: Request, required: Sequence[str]) -> None:
    """Refuse a `--require` that nothing of what is to be made could satisfy.

    Raises:
        UsageError: It names no format, precision or artifact of this run.
    """
    variants = plan(targets.get(request.target), request.formats, request.precisions, request.search)
    offered = {name for v in variants for name in (v.format, v.precision, v.name)}
    _check_names("--require", required, offered)


def _check_names(option: str, given: Sequence[str], known: set[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UsageError(
            f"{option} does not know {', '.join(unknown)}.", f"Known: {', '.join(sorted(known))}."
        )


def worker_count() -> int:
    """As many worker processes as cores, up to four: each holds a framework in memory."""
    return min(len(os.sched_getaffinity(0)), MAX_WORKERS)
