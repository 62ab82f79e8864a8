"""The build stage: every variant and the float64 reference, from the cache or from worker processes."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import LoweringError
from exporter.files import EVIDENCE, SIZES
from exporter.pipeline import cache, int8_stage, simulation, stage_results
from exporter.pipeline.cached_steps import Step, cached_steps
from exporter.pipeline.context import TORCH, Context, Source, preload_of_context
from exporter.pipeline.read_stage import ensure_read_stage_ran
from exporter.pipeline.stage_results import BuildResult, load_stage_data
from exporter.pipeline.workers.jobs import Job
from exporter.records import QUANTIZED, FormatName, Preprocessing, Purpose, Variant

if TYPE_CHECKING:
    from exporter.records import Captured

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
GIVES_COMPLEX: Mapping[FormatName, bool] = {
    "torchscript": True,
    "onnx": False,  # torch.onnx writes a real tensor with one axis more: another output than the model's
    "coreml": False,
    "executorch": False,  # its Core ATen operators take no complex tensors
    "coreai": False,
    "onnx-qnn": False,
}
"""Whether a format's files can give complex outputs."""


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
        refuse_to_build_batch_statistics(captured, variant)
        refuse_state_in_build_stage(captured, variant)
        refuse_complex_in_build_stage(captured, variant)
        refuse_pixels_in_build_stage(captured, variant)
        refuse_sizes_in_build_stage(captured, variant)
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


def refuse_state_in_build_stage(captured: Captured, variant: Variant) -> None:
    """Refuse to write a file that would forget what the network keeps from call to call.

    Raises:
        LoweringError: The buffers' names, and the way out.
    """
    from exporter.capture.state import state_not_in_buffers
    from exporter.formats import FORMATS

    if not captured.state:
        return
    names = ", ".join(captured.state)
    way_out = "--state explicit makes inputs and outputs of what forward keeps"
    if plain := state_not_in_buffers(captured.module, captured.state):
        raise LoweringError(
            f"forward changes {', '.join(plain)}, which no file keeps: register a buffer; or {way_out}"
        )
    if not FORMATS[variant.format].KEEPS_STATE:
        raise LoweringError(
            f"{variant.format} files keep nothing between calls, but forward changes {names}: {way_out}"
        )
    if variant.precision != "fp32":
        raise LoweringError(f"state is kept in fp32 files only, and forward changes {names}: {way_out}")


def refuse_to_build_batch_statistics(captured: Captured, variant: Variant) -> None:
    """Refuse a network whose batch norms are in training mode, which TorchScript alone can express.

    Raises:
        LoweringError: The line, and the way out.
    """
    from exporter.capture.batch_statistics import batch_statistics_of_program

    norm = batch_statistics_of_program(captured.program)
    if norm is not None and variant.format != "torchscript":
        raise LoweringError(
            "a batch norm computes with the statistics of its own batch (training=True), which "
            f"{variant.format} files cannot: give it training=self.training, or compute the mean and the "
            "variance in forward",
            norm.source,
        )


def refuse_complex_in_build_stage(captured: Captured, variant: Variant) -> None:
    """Refuse a format that has no complex outputs for a network that gives them.

    Raises:
        LoweringError: The outputs' names, and the way out.
    """
    names = ", ".join(spec.name for spec in captured.outputs if spec.dtype.startswith("complex"))
    if names and not GIVES_COMPLEX[variant.format]:
        raise LoweringError(
            f"{variant.format} files have no complex outputs, but {names} is complex: return "
            "torch.view_as_real(...) of it, whose last axis is the real and the imaginary part"
        )


TAKES_PIXELS: frozenset[FormatName] = frozenset({"executorch", "onnx", "torchscript"})
"""Formats whose files can take a photo's bytes as uint8."""


def refuse_pixels_in_build_stage(captured: Captured, variant: Variant) -> None:
    """Refuse a format that takes no bytes, for a network with its preprocessing embedded.

    Raises:
        LoweringError: The way out.
    """
    from exporter.capture.embedded_preprocessing import place_of_embedded_preprocessing

    if variant.format in TAKES_PIXELS or place_of_embedded_preprocessing(captured.module) is None:
        return
    raise LoweringError(
        f"{variant.format} files take no uint8 tensors"
        + (": Core ML packages take photos with --image-input" if variant.format == "coreml" else "")
    )


HAS_SIZES: frozenset[FormatName] = frozenset({"coreml", "executorch", "onnx", "torchscript"})
"""Formats whose files can have inputs of several sizes."""


def may_have_ranges_in_build_stage(variant: Variant, picture: bool) -> bool:
    """Tell whether one file of the variant can have ranges of sizes.

    Args:
        variant: What the file is.
        picture: Whether Core ML packages take a picture.
    """
    if variant.backend == "vulkan" or (variant.format == "coreml" and picture):
        return False
    return variant.format in HAS_SIZES


def refuse_sizes_in_build_stage(captured: Captured, variant: Variant) -> None:
    """Refuse a format whose files have one size, for a network that is exported with ranges of sizes.

    Raises:
        LoweringError: Why, and the way out.
    """
    if not captured.ranges or may_have_ranges_in_build_stage(variant, captured.image is not None):
        return
    reasons = {
        "coreml": "a Core ML package that takes a picture is made for one size here",
        "executorch": "Vulkan's shaders are prepared for one size",
    }
    why = reasons.get(variant.format, f"{variant.format} files are compiled for one size")
    raise LoweringError(f"{why}: list the sizes, as {{224,320}}, to get a file for each")


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
