"""The build stage: every variant and the float64 reference, from the cache or from worker processes."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import LoweringError
from exporter.files import EVIDENCE, SIZES
from exporter.pipeline import cache, int8_stage, simulation, stage_results
from exporter.pipeline.cached_steps import Step, cached_steps
from exporter.pipeline.context import TORCH, Context, Source, preload_of_context
from exporter.pipeline.format_refusals import refuse_what_format_cannot_express
from exporter.pipeline.read_stage import ensure_read_stage_ran
from exporter.pipeline.stage_results import BuildResult, load_stage_data
from exporter.pipeline.workers.jobs import Job
from exporter.records import QUANTIZED, Preprocessing, Purpose, Variant

if TYPE_CHECKING:
    from exporter.records import Captured

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def run_reference_in_build_stage(
    work: Path, target: Path, preprocessing: Preprocessing | None, purpose: Purpose = "verification"
) -> tuple[str, ...]:
    """Run the float64 model on every input that serves `purpose` into `target`; returns notes on how."""
    from exporter import data
    from exporter.capture import captured_program
    from exporter.capture.dynamic_shapes import run_reference_of_dynamic_shapes
    from exporter.capture.float64_reference import run_float64_reference
    from exporter.verify import reference_io
    from exporter.verify.several_sizes import save_several_sizes

    captured = captured_program.load_captured_program(work, mapped=False)
    samples = load_stage_data(work)
    edges = data.edge_inputs(captured.inputs, preprocessing, samples.verification[0], samples.calibration)
    inputs = samples.choice if purpose == "choice" else samples.verification
    references, notes = run_float64_reference(captured, inputs, edges, samples.scene_of.get(purpose, ()))
    reference_io.save_reference_io(references, target)
    if captured.dynamic and purpose == "verification":
        save_several_sizes(run_reference_of_dynamic_shapes(captured, inputs), target.with_name(SIZES))
    return notes


def build_variants_in_stage(work: Path, variants: tuple[Variant, ...], directory: Path) -> list[BuildResult]:
    """Make the variants of one group, one after the other, in `directory`.

    Args:
        work: Holds what `read_and_capture` wrote, and `quantize_to_int8` where the group is quantised.
        variants: They share intermediate results within this process.
        directory: Where the artifacts go.
    """
    from exporter.capture import captured_program
    from exporter.quantize import int8_recipe

    captured = captured_program.load_captured_program(work)
    notes: tuple[str, ...] = ()
    if any(variant.precision in QUANTIZED for variant in variants):
        captured = replace(captured, program=int8_recipe.load_int8_recipe_program(work))
        notes = tuple(note for note in [int8_recipe.load_int8_recipe_note(work)] if note)
    built = [_build_variant_in_stage(captured, variant, directory) for variant in variants]
    return [replace(b, notes=(*b.notes, *notes)) for b in built]


def _build_variant_in_stage(captured: Captured, variant: Variant, directory: Path) -> BuildResult:
    from exporter.capture.lowering_errors import lowering_error
    from exporter.formats import FORMATS
    from exporter.formats.native_output import explain_by_native_compiler_output

    started = time.monotonic()
    try:
        refuse_what_format_cannot_express(captured, variant)
        with explain_by_native_compiler_output():
            emission = FORMATS[variant.format].emit(captured, variant, directory)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise  # ends the run: the siblings could not be written either
        return _result_of_missing_variant_in_build_stage(variant, lowering_error(error), started)
    except Exception as error:
        cause = error if isinstance(error, LoweringError) else lowering_error(error)
        return _result_of_missing_variant_in_build_stage(
            variant, _name_variable_sizes_in_build_stage(cause, captured), started
        )
    return BuildResult(variant, emission.path.name, emission.notes, seconds=time.monotonic() - started)


def _name_variable_sizes_in_build_stage(cause: LoweringError, captured: Captured) -> LoweringError:
    """Name the outputs whose sizes depend on the data: most compilers stumble over nothing else."""
    if not captured.variable:
        return cause
    names = ", ".join(captured.variable)
    return LoweringError(f"The size of {names} depends on the data: {cause.cause}", cause.source)


def _result_of_missing_variant_in_build_stage(
    variant: Variant, cause: LoweringError, started: float
) -> BuildResult:
    return BuildResult(variant, None, (), cause.cause, cause.source, time.monotonic() - started)


def run_build_stage(context: Context, source: Source) -> tuple[Source, tuple[stage_results.BuildResult, ...]]:
    """Make every variant, the float64 reference beside, and what each precision costs."""
    quantize = int8_stage.int8_stage_job(context)
    variants = [
        artifact_step_of_build_stage(context, source, variant, quantize)
        for variant in context.variants
        if variant.precision != "mixed"
    ]
    reference_job = _reference_job_of_build_stage(context, source)
    reference = (
        [_reference_step_of_build_stage(context, source, reference_job)] if context.request.verify else []
    )
    judgement = (
        [int8_stage.int8_stage_judge_step(context, source, quantize)]
        if int8_stage.is_int8_judged_in_stage(context)
        else []
    )
    simulations = simulation.simulation_steps(context, source, reference_job)
    steps = [*variants, *judgement, *reference, *simulations]
    results_of_steps = iter(
        cached_steps(
            context.run, context.cache, "build", steps, lambda: ensure_read_stage_ran(context, source)
        )
    )
    built = tuple(next(results_of_steps) for _ in variants)
    for quantization in (next(results_of_steps) for _ in judgement):
        source = replace(source, quantization=quantization)
    for notes in results_of_steps:
        source = replace(source, facts=replace(source.facts, notes=(*source.facts.notes, *notes)))
    return source, built


def _reference_job_of_build_stage(context: Context, source: Source) -> Job:
    arguments = (context.folders.work, context.evidence, source.facts.preprocessing)
    return Job("the float64 reference", run_reference_in_build_stage, arguments, preload=TORCH, cost_s=8)


def _reference_step_of_build_stage(context: Context, source: Source, job: Job) -> Step:
    return Step(
        "reference",
        source.key,
        tuple[str, ...],
        lambda _: job,
        folder=context.folders.out,
        files=lambda _: (EVIDENCE, SIZES) if context.request.several_sizes else (EVIDENCE,),
    )


def artifact_step_of_build_stage(
    context: Context,
    source: Source,
    variant: Variant,
    prepare: Job,
    folders: tuple[Path, Path] | None = None,
    key: Callable[[str], str] = str,
    extra_files: tuple[str, ...] = (),
) -> Step:
    """Return the step that makes one artifact.

    Args:
        context: The run.
        source: The checkpoint.
        variant: The artifact's.
        prepare: Makes the quantised program that quantised artifacts are lowered from.
        folders: Where the builders read the captured model, and where the artifact is written; the run's work
            folder and OUT when None.
        key: Turns the artifact's cache key into the step's.
        extra_files: Further files that belong to the artifact.
    """
    work, out = folders or (context.folders.work, context.folders.out)
    artifact_key = _build_stage_key_of_artifact(context, source, variant)
    return Step(
        "artifact",
        key(artifact_key) if artifact_key else "",
        stage_results.BuildResult,
        lambda group: _build_stage_job(work, out, [step.item for step in group], prepare),
        group=variant.group if folders is None else "",
        item=variant,
        folder=out,
        files=lambda built: (built.file, *extra_files),
        value=lambda built: next(b for b in built if b.variant == variant),
        failed=lambda error: _result_of_died_build_stage_job(variant, error),
        keep=lambda built: built.file is not None,  # a failure is tried again: it may have been the machine's
    )


def _build_stage_job(work: Path, out: Path, variants: Sequence[Variant], prepare: Job) -> Job:
    return Job(
        ", ".join(variant.name for variant in variants),
        build_variants_in_stage,
        (work, tuple(variants), out),
        preload=preload_of_context(variants[0]),
        cost_s=sum(variant.cost_s for variant in variants),
        after=prepare if variants[0].precision in QUANTIZED else None,
    )


def _result_of_died_build_stage_job(variant: Variant, error: Exception) -> stage_results.BuildResult:
    """Return what a variant becomes when its whole process died.

    Raises:
        OSError: The disk is full, which ends the run: the siblings could not be written either.
    """
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        raise error
    cause, line = (error.cause, error.source) if isinstance(error, LoweringError) else (str(error), None)
    return stage_results.BuildResult(variant, None, error=cause, source_line=line)


def _build_stage_key_of_artifact(context: Context, source: Source, variant: Variant) -> str:
    """Return an artifact's cache key; for mixed artifacts it lacks which operators stay in float.

    It is empty when the graph's digest does not cover what the artifact is made from.
    """
    facts, request = source.facts, context.request
    if not facts.digest or (variant.format == "torchscript" and not source.key):
        return ""  # TorchScript is made from the user's code, which the digest does not cover
    quantized = variant.precision in QUANTIZED
    data = int8_stage.int8_stage_data_digest(context, source) if quantized else ""
    return cache.cache_key(
        cache.cache_toolchain_key(),
        facts.digest,
        variant,
        facts.inputs,
        facts.outputs,
        request.torchscript,
        (request.dynamic, request.photo_sizes),
        (request.about, facts.labels, facts.preprocessing, facts.image),
        data,
        request.limits.min_quantized_weights if quantized else None,
    )
