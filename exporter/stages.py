"""The stages from a checkpoint to timed artifacts: the cache's finds are taken, the rest runs in workers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exporter import cache, int8_stage, jobs, quantizing
from exporter.context import EVIDENCE, TORCH, Context, Event, Run, Source, preload_of
from exporter.errors import LoweringError
from exporter.records import QUANTIZED, Latency, Structure, Variant, Verdict
from exporter.workers import Job, Outcome


def read(context: Context) -> Source:
    """Read the checkpoint, infer its network, load the data and capture, or find all that in the cache."""
    key = _source_key(context)
    facts = context.cache.get("model", key, jobs.Facts, context.folders.out)
    if facts is not None:
        return Source(facts, key)
    return Source(_capture(context), key)


def _capture(context: Context) -> jobs.Facts:
    job = Job(
        "reading the checkpoint",
        jobs.capture_model,
        (context.request.model, context.folders.work),
        preload=TORCH,
    )
    context.workers.warm(preload_of(max(context.variants, key=lambda v: v.cost_s)))
    (outcome,) = context.run("read", [job])
    facts: jobs.Facts = outcome.result()
    return facts


def ensure_captured(context: Context) -> None:
    """Capture the model now if it is not in the work folder, as the cache keeps its facts only."""
    if not (context.folders.work / jobs.DATA).exists():
        _capture(context)


def _source_key(context: Context) -> str:
    request = context.request.model
    if request.trust or (request.arch and not request.arch.startswith("torchvision/")):
        return ""  # the user's own code decides what comes out, and code cannot be hashed with its imports
    anywhere = replace(request, checkpoint=Path(), calibration=None)
    return cache.key(
        cache.toolchain(), cache.digest_file(request.checkpoint), anywhere, context.calibration_digest
    )


def build(context: Context, source: Source) -> tuple[Source, tuple[jobs.Built, ...]]:
    """Make every variant that the cache does not have, and the reference beside."""
    keys = {v: artifact_key(context, source, v) for v in context.variants if v.precision != "mixed"}
    found = {v: _cached_artifact(context, v, key) for v, key in keys.items()}
    missing = [v for v, built in found.items() if built is None]
    source = replace(source, quantization=int8_stage.cached(context, source))
    needs_judgement = context.request.verify and int8_stage.wanted(context) and source.quantization is None
    needs_reference = context.request.verify and not context.evidence.exists()
    if missing or needs_reference or needs_judgement:
        ensure_captured(context)
    quantize = int8_stage.quantize_job(context)
    work = _build_jobs(context, missing, quantize)
    if needs_judgement:
        work.append(int8_stage.judge_job(context, quantize))
    if any(job.after for job in work):
        work.append(quantize)
    if needs_reference:
        work.append(_reference_job(context, source))
    for outcome in context.run("build", work, lambda outcome: _keep_built(context, outcome, keys)):
        if outcome.job.function is jobs.make_reference:
            source = _add_notes(source, outcome.result())
            _keep_source(context, source)
        elif outcome.job.function is jobs.build:
            found |= {built.variant: built for built in built_by(outcome)}
        elif outcome.job.function is quantizing.judge_quantized and outcome.error is None:
            source = replace(source, quantization=outcome.value)
            int8_stage.keep(context, source)
    return source, tuple(built for built in found.values() if built is not None)


def _keep_built(context: Context, outcome: Outcome, keys: Mapping[Variant, str]) -> None:
    """As soon as a job ends: a run that is killed later need not do it again."""
    if outcome.job.function is jobs.build and outcome.error is None:
        for built in outcome.value:
            _keep_artifact(context, built, keys[built.variant])


def _reference_job(context: Context, source: Source) -> Job:
    arguments = (context.folders.work, context.evidence, source.facts.preprocessing)
    return Job("the float64 reference", jobs.make_reference, arguments, preload=TORCH, cost_s=8)


def _build_jobs(context: Context, variants: Sequence[Variant], quantize: Job) -> list[Job]:
    groups: dict[str, list[Variant]] = {}
    for variant in variants:
        groups.setdefault(variant.group, []).append(variant)
    return [
        Job(
            ", ".join(v.name for v in group),
            jobs.build,
            (context.folders.work, tuple(group), context.folders.out),
            preload=preload_of(group[0]),
            cost_s=sum(v.cost_s for v in group),
            after=quantize if group[0].precision == "int8" else None,
        )
        for group in groups.values()
    ]


def built_by(outcome: Outcome) -> list[jobs.Built]:
    """The job's results; when its whole process died, an error for each variant it was to make."""
    if outcome.error is None:
        return list(outcome.value)
    if isinstance(outcome.error, OSError) and outcome.error.errno in jobs.DISK_FULL:
        raise outcome.error
    error = outcome.error
    cause, line = (error.cause, error.source) if isinstance(error, LoweringError) else (str(error), None)
    return [jobs.Built(variant, None, error=cause, source_line=line) for variant in outcome.job.arguments[1]]


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
    data = int8_stage.data_digest(context, source) if variant.precision in QUANTIZED else ""
    return cache.key(
        cache.toolchain(), facts.digest, variant, facts.inputs, facts.outputs, request.torchscript, data
    )


def _cached_artifact(context: Context, variant: Variant, key: str) -> jobs.Built | None:
    return context.cache.get("artifact", key, jobs.Built, context.folders.out)


def _keep_artifact(context: Context, built: jobs.Built, key: str) -> None:
    if built.file:  # a failure is tried again: it may have been the machine's
        context.cache.put("artifact", key, built, {built.file: context.folders.out / built.file})


@dataclass(frozen=True, eq=False)
class CheckedArtifact:
    """What verification found, and where its answer is kept."""

    structure: Structure | None
    verdict: Verdict
    outputs: tuple[float, ...] = ()
    """Some output values, for the report's histogram."""


def verify(context: Context, source: Source, built: Sequence[jobs.Built]) -> Mapping[str, CheckedArtifact]:
    """Judge every file that was made, each in a process of its own. Variant name -> finding."""
    if not context.request.verify:
        verdict = Verdict("not_run", "Verification was switched off (--no-verify).", "", None)
        return {b.variant.name: CheckedArtifact(None, verdict) for b in built if b.file}
    return check_files(
        context.folders.out,
        [(b.variant, b.file) for b in built if b.file],
        expected(context, source),
        context.run,
        context.cache,
    )


def expected(context: Context, source: Source) -> jobs.Expected:
    """What every artifact of this run is checked against."""
    facts = source.facts
    return jobs.Expected(facts.inputs, facts.outputs, facts.matrix_weights, context.request.limits)


def check_files(
    folder: Path,
    files: Sequence[tuple[Variant, str]],
    expected: jobs.Expected,
    run: Run,
    kept: cache.Cache,
) -> Mapping[str, CheckedArtifact]:
    """Verify files from what lies in their folder alone; findings for unchanged ones come from the cache."""
    keys = {v: _verdict_key(folder, v, file, expected) for v, file in files}
    found = {v: kept.get("verdict", key, CheckedArtifact) for v, key in keys.items()}
    work = [_verify_job(folder, v, file, expected) for v, file in files if found[v] is None]

    def on_outcome(outcome: Outcome) -> None:
        """At once: a run that is killed later need not judge this file again."""
        variant = outcome.job.arguments[1]
        found[variant] = _checked(outcome)
        if outcome.error is None:
            kept.put("verdict", keys[variant], found[variant])

    if work:
        run("verify", work, on_outcome)
    return {v.name: checked for v, checked in found.items() if checked is not None}


def _verify_job(folder: Path, variant: Variant, file: str, expected: jobs.Expected) -> Job:
    lowering = folder / jobs.lowering_file(variant.precision, variant.name)
    arguments = (
        folder / file,
        variant,
        folder / EVIDENCE,
        lowering if lowering.exists() else None,
        expected,
    )
    return Job(
        variant.name, jobs.verify_artifact, arguments, preload=preload_of(variant), cost_s=variant.cost_s
    )


def _verdict_key(folder: Path, variant: Variant, file: str, expected: jobs.Expected) -> str:
    lowering = folder / jobs.lowering_file(variant.precision, variant.name)
    digests = [cache.digest_path(p) for p in (folder / file, folder / EVIDENCE, lowering) if p.exists()]
    return cache.key(cache.toolchain(), variant, digests, expected)


def _checked(outcome: Outcome) -> CheckedArtifact:
    if outcome.error is not None:  # its runtime crashed: that is a verdict on the file
        return CheckedArtifact(None, Verdict("failed", str(outcome.error), "", None))
    checked: jobs.Checked = outcome.value
    values = () if checked.outputs is None else tuple(float(x) for x in checked.outputs)
    return CheckedArtifact(checked.structure, checked.verdict, values)


def measure(
    context: Context, built: Sequence[jobs.Built], checked: Mapping[str, CheckedArtifact]
) -> Mapping[str, Latency]:
    """Time every artifact that ran here, one at a time so that nothing disturbs the figures."""
    ran = [b for b in built if b.file and checked[b.variant.name].verdict.comparison is not None]
    latencies: dict[str, Latency] = {}
    for done, item in enumerate(ran):
        context.observer(Event("measure", item.variant.name, done, len(ran)))
        path = context.folders.out / str(item.file)
        if (found := latency(context, path, item.variant)) is not None:
            latencies[item.variant.name] = found
    return latencies


def latency(context: Context, path: Path, variant: Variant) -> Latency | None:
    """Time one file here, or take what the cache knows of it; None when its runtime fails."""
    key = cache.key(
        cache.toolchain(), cache.digest_path(path), cache.digest_file(context.evidence), _threads(context)
    )
    if (kept := context.cache.get("latency", key, Latency)) is not None:
        return kept
    arguments = (path, variant, context.evidence, _threads(context))
    job = Job(variant.name, jobs.measure_latency, arguments, preload=preload_of(variant))
    (outcome,) = context.workers.run([job])
    if outcome.error is not None:
        return None
    found: Latency = outcome.value
    context.cache.put("latency", key, found)
    return found


def _threads(context: Context) -> int:
    return context.request.threads or min(len(os.sched_getaffinity(0)), 4)
