"""The build stage: every variant and the float64 reference, from the cache or from worker processes."""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import LoweringError
from exporter.files import EVIDENCE
from exporter.pipeline import cache, int8, results
from exporter.pipeline.context import TORCH, Context, Source, preload_of
from exporter.pipeline.read import ensure_captured
from exporter.pipeline.results import Built, load_data
from exporter.pipeline.workers.pool import Job, Outcome
from exporter.records import QUANTIZED, Preprocessing, Variant

if TYPE_CHECKING:
    from exporter.records import Captured

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def make_reference(work: Path, target: Path, preprocessing: Preprocessing | None) -> tuple[str, ...]:
    """Run the float64 model on every verification input into `target`; returns notes on how."""
    from exporter import data
    from exporter.capture import program
    from exporter.verify import reference_io

    captured = program.load(work)
    samples = load_data(work).verification
    edges = data.edge_inputs(captured.inputs, preprocessing, samples[0])
    found, notes = program.reference(captured, samples, edges)
    reference_io.save(found, target)
    return notes


def build_variants(work: Path, variants: tuple[Variant, ...], directory: Path) -> list[Built]:
    """Make the variants of one group, one after the other, in `directory`.

    Args:
        work: Holds what `capture_model` wrote, and `quantize_model` where the group is quantised.
        variants: They share intermediate results within this process.
        directory: Where the artifacts go.
    """
    from exporter.capture import program
    from exporter.quantize import int8

    captured = program.load(work)
    notes: tuple[str, ...] = ()
    if any(variant.precision in QUANTIZED for variant in variants):
        captured = replace(captured, program=int8.load_program(work))
        notes = tuple(note for note in [int8.load_note(work)] if note)
    built = [_build_one(captured, variant, directory) for variant in variants]
    return [replace(b, notes=(*b.notes, *notes)) for b in built]


def _build_one(captured: Captured, variant: Variant, directory: Path) -> Built:
    from exporter.capture.lowering_errors import lowering_error
    from exporter.formats import FORMATS

    started = time.monotonic()
    try:
        emission = FORMATS[variant.format].emit(captured, variant, directory)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise  # ends the run: the siblings could not be written either
        return _not_built(variant, lowering_error(error), started)
    except Exception as error:
        cause = error if isinstance(error, LoweringError) else lowering_error(error)
        return _not_built(variant, cause, started)
    return Built(variant, emission.path.name, emission.notes, seconds=time.monotonic() - started)


def _not_built(variant: Variant, cause: LoweringError, started: float) -> Built:
    return Built(variant, None, (), cause.cause, cause.source, time.monotonic() - started)


def build(context: Context, source: Source) -> tuple[Source, tuple[results.Built, ...]]:
    """Make every variant that the cache does not have, and the reference beside."""
    keys = {v: artifact_key(context, source, v) for v in context.variants if v.precision != "mixed"}
    found = {v: _cached_artifact(context, v, key) for v, key in keys.items()}
    missing = [v for v, built in found.items() if built is None]
    source = replace(source, quantization=int8.cached(context, source))
    needs_judgement = context.request.verify and int8.wanted(context) and source.quantization is None
    needs_reference = context.request.verify and not context.evidence.exists()
    if missing or needs_reference or needs_judgement:
        ensure_captured(context)
    quantize = int8.quantize_job(context)
    work = _build_jobs(context, missing, quantize)
    if needs_judgement:
        work.append(int8.judge_job(context, quantize))
    if any(job.after for job in work):
        work.append(quantize)
    if needs_reference:
        work.append(_reference_job(context, source))
    for outcome in context.run("build", work, lambda outcome: _keep_built(context, outcome, keys)):
        if outcome.job.function is make_reference:
            source = _add_notes(source, outcome.result())
            _keep_source(context, source)
        elif outcome.job.function is build_variants:
            found |= {built.variant: built for built in built_by(outcome)}
        elif outcome.job.function is int8.judge_quantized and outcome.error is None:
            source = replace(source, quantization=outcome.value)
            int8.keep(context, source)
    return source, tuple(built for built in found.values() if built is not None)


def _keep_built(context: Context, outcome: Outcome, keys: Mapping[Variant, str]) -> None:
    """As soon as a job ends: a run that is killed later need not do it again."""
    if outcome.job.function is build_variants and outcome.error is None:
        for built in outcome.value:
            _keep_artifact(context, built, keys[built.variant])


def _reference_job(context: Context, source: Source) -> Job:
    arguments = (context.folders.work, context.evidence, source.facts.preprocessing)
    return Job("the float64 reference", make_reference, arguments, preload=TORCH, cost_s=8)


def _build_jobs(context: Context, variants: Sequence[Variant], quantize: Job) -> list[Job]:
    groups: dict[str, list[Variant]] = {}
    for variant in variants:
        groups.setdefault(variant.group, []).append(variant)
    return [
        Job(
            ", ".join(v.name for v in group),
            build_variants,
            (context.folders.work, tuple(group), context.folders.out),
            preload=preload_of(group[0]),
            cost_s=sum(v.cost_s for v in group),
            after=quantize if group[0].precision == "int8" else None,
        )
        for group in groups.values()
    ]


def built_by(outcome: Outcome) -> list[results.Built]:
    """The job's results; when its whole process died, an error for each variant it was to make."""
    if outcome.error is None:
        return list(outcome.value)
    if isinstance(outcome.error, OSError) and outcome.error.errno in DISK_FULL:
        raise outcome.error
    error = outcome.error
    cause, line = (error.cause, error.source) if isinstance(error, LoweringError) else (str(error), None)
    return [
        results.Built(variant, None, error=cause, source_line=line) for variant in outcome.job.arguments[1]
    ]


def _add_notes(source: Source, notes: tuple[str, ...]) -> Source:
    return replace(source, facts=replace(source.facts, notes=(*source.facts.notes, *notes)))


def _keep_source(context: Context, source: Source) -> None:
    context.cache.put("model", source.key, source.facts, {EVIDENCE: context.evidence})


def artifact_key(context: Context, source: Source, variant: Variant) -> str:
    """The cache's; of mixed artifacts without what is kept in float.

    Empty when the graph's digest does not cover what the artifact is made from.
    """
    facts, request = source.facts, context.request
    if not facts.digest or (variant.format == "torchscript" and not source.key):
        return ""  # TorchScript is made from the user's code, which the digest does not cover
    data = int8.data_digest(context, source) if variant.precision in QUANTIZED else ""
    return cache.key(
        cache.toolchain(), facts.digest, variant, facts.inputs, facts.outputs, request.torchscript, data
    )


def _cached_artifact(context: Context, variant: Variant, key: str) -> results.Built | None:
    return context.cache.get("artifact", key, results.Built, context.folders.out)


def _keep_artifact(context: Context, built: results.Built, key: str) -> None:
    if built.file:  # a failure is tried again: it may have been the machine's
        context.cache.put("artifact", key, built, {built.file: context.folders.out / built.file})
