"""The verify stage: each artifact runs in a worker process and gets a verdict."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter import sandbox
from exporter.capture.unknown_operators import missing_kernel_advice
from exporter.emulated.vulkan.vulkan_tools import ready_vulkan_tools
from exporter.errors import CannotRunHere, LoweringError
from exporter.files import (
    EVIDENCE,
    SIZES,
    default_cache_root,
    digest_file_or_folder,
    lowering_file,
    simulation_file,
)
from exporter.pipeline import stage_results
from exporter.pipeline.cache import Cache, cache_key, cache_toolchain_key
from exporter.pipeline.cached_steps import Step, cached_steps
from exporter.pipeline.context import Context, Run, Source, preload_of_context
from exporter.pipeline.stage_results import CheckedArtifactResult, CheckResult, ExpectedResult
from exporter.pipeline.verify_seconds import seconds_to_verify
from exporter.pipeline.workers.jobs import Job
from exporter.records import SHIPPABLE, Array, Executor, Runner, Sample, Structure, Variant, Verdict

if TYPE_CHECKING:
    from exporter.verify.reference_io import ReferenceIO
    from exporter.verify.several_sizes import SizesIO
    from exporter.verify.standard import Standard

REPEATED = 4
"""Samples that run a second time, in reverse: a runtime must not carry anything from call to call."""
HISTOGRAM_VALUES = 4096


def verify_artifact_in_stage(
    path: Path,
    variant: Variant,
    evidence_path: Path,
    lowering_path: Path | None,
    expected: ExpectedResult,
    simulation_path: Path | None = None,
) -> CheckResult:
    """Read the written file, run it in its own runtime on the references, and judge it.

    A file that crashes its runtime kills only the process this runs in.
    """
    from exporter.formats import FORMATS, stand_for
    from exporter.verify import reference_io, several_sizes

    module = FORMATS[variant.format]
    try:
        structure = module.structure(path, variant)
    except LoweringError as error:
        return CheckResult(None, _failed_verdict_in_verify_stage(f"It cannot be read: {error.cause}"))
    stand = stand_for(variant)
    standard = _standard_of_verify_stage(
        evidence_path, lowering_path, simulation_path, expected, stand.samples if stand else None
    )
    sizes_path = evidence_path.with_name(SIZES)
    sizes = several_sizes.load_several_sizes(sizes_path) if sizes_path.exists() else None
    if problem := _structure_problem_in_verify_stage(
        structure, variant, expected, standard.references, sizes
    ):
        return CheckResult(structure, _failed_verdict_in_verify_stage(problem))
    if structure.image:
        references = reference_io.pictures_of_reference_io(standard.references, structure.image)
        standard = replace(standard, references=references)
    # To read a file may take other programs, to run it does not.
    sandbox.tighten_sandbox(writes=stand is not None and stand.writes)
    try:
        run, runtime = module.load(path, variant, 1)
    except CannotRunHere as error:
        return CheckResult(structure, Verdict("not_run", _reason_verify_stage_did_not_run(error), "", None))
    except Exception as error:
        reason = f"Its runtime refuses it: {error}{missing_kernel_advice(str(error))}"
        return CheckResult(structure, _failed_verdict_in_verify_stage(reason))

    def fresh() -> Runner:
        """The same file as it starts: with the state that it was written with."""
        return module.load(path, variant, 1)[0] if standard.references.state else run

    verdict, values = _run_and_judge_in_verify_stage(run, fresh, runtime, standard, variant)
    if sizes and verdict.status in SHIPPABLE:
        example = standard.references.samples()[0]
        verdict = several_sizes.judge_several_sizes(run, sizes, example, variant, verdict, expected.limits)
    return CheckResult(structure, verdict, values)


def _standard_of_verify_stage(
    evidence_path: Path,
    lowering_path: Path | None,
    simulation_path: Path | None,
    expected: ExpectedResult,
    samples: int | None,
) -> Standard:
    """Read what an artifact is judged by: all verification samples, or as many as its stand-in runs."""
    from exporter.verify import reference_io
    from exporter.verify.standard import Standard, read_programs_of_standard

    references = reference_io.first_of_reference_io(reference_io.load_reference_io(evidence_path), samples)
    lowering, simulation = read_programs_of_standard(lowering_path, simulation_path, samples)
    return Standard(
        references, expected.outputs, expected.limits, lowering, simulation, expected.labels, expected.task
    )


def _structure_problem_in_verify_stage(
    structure: Structure,
    variant: Variant,
    expected: ExpectedResult,
    references: ReferenceIO,
    sizes: SizesIO | None,
) -> str:
    """Return where the file is not what it claims to be; an empty string where it is."""
    from exporter.verify import contract, several_sizes

    at_example = (
        several_sizes.several_sizes_structure_at_example(structure, sizes, expected.inputs, expected.outputs)
        if sizes
        else structure
    )
    return contract.check_structure_by_contract(
        at_example,
        variant,
        expected.inputs,
        expected.outputs,
        expected.matrix_weights,
        expected.limits,
        references.shapes,
        expected.labels,
        expected.image,
    ) or contract.check_epsilons_by_contract(structure, variant.precision, references.epsilons)


def _run_and_judge_in_verify_stage(
    run: Runner, fresh: Callable[[], Runner], runtime: str, standard: Standard, variant: Variant
) -> tuple[Verdict, Array | None]:
    """Run an artifact that was loaded, and judge it.

    Returns:
        The verdict, and values of its first output for the report's histogram; None where it did not run.
    """
    from exporter.formats import stand_for, variant_executor
    from exporter.verify.standard import judge_by_standard, stack_by_standard

    executor = variant_executor(variant)
    try:
        calls = _VerifiedCalls.collect(run, fresh, standard.references, 1 if stand_for(variant) else REPEATED)
    except CannotRunHere as error:
        return Verdict("not_run", _reason_verify_stage_did_not_run(error), runtime, None), None
    except Exception as error:
        reason = f"It does not run on the model's inputs: {error}"
        return _failed_verdict_in_verify_stage(reason, runtime, executor), None
    verdict = judge_by_standard(standard, variant, runtime, calls.samples, calls.edges, executor)
    if verdict.status in SHIPPABLE and (problem := _check_repeats_in_verify_stage(standard, variant, calls)):
        verdict = replace(verdict, status="failed", reason=problem)
    stacked = stack_by_standard(standard, variant, calls.samples)
    return verdict, None if stacked.problem else histogram_values_of_verify_stage(stacked.samples[0])


def histogram_values_of_verify_stage(output: Array) -> Array:
    """Return the finite values that the report's histogram shows; of complex numbers the magnitude."""
    values: Array = output.reshape(-1)[:HISTOGRAM_VALUES]
    values = np.abs(values) if values.dtype.kind == "c" else values
    return values[np.isfinite(values)] if values.dtype.kind == "f" else values


@dataclass(frozen=True, eq=False)
class _VerifiedCalls:
    """An artifact's outputs on the references, as its runtime gave them."""

    samples: Sequence[Sample]
    edges: Sequence[Sample]
    again: Sequence[Sample]
    """The outputs on the first samples, called once more."""

    @classmethod
    def collect(
        cls, run: Runner, fresh: Callable[[], Runner], references: ReferenceIO, repeats: int = REPEATED
    ) -> _VerifiedCalls:
        """Run an artifact on the samples, on the edges, and on some samples again.

        Args:
            run: The artifact as it was loaded.
            fresh: Gives it as it was loaded, before each further sequence of calls.
            references: What it is run on.
            repeats: Samples that are run a second time.

        Raises:
            Exception: Whatever its runtime raises.
        """
        samples, edges = references.samples(), references.edges()
        given = [run(sample) for sample in samples]
        run = fresh()
        on_edges = [run(edge) for edge in edges]
        run = fresh()
        # In reverse: nothing may be carried over, unless the model itself carries it from call to call.
        order = range(repeats) if references.state else reversed(range(repeats))
        repeated = {i: run(samples[i]) for i in order if i < len(samples)}
        return cls(given, on_edges, [repeated[i] for i in sorted(repeated)])


def _check_repeats_in_verify_stage(by: Standard, variant: Variant, calls: _VerifiedCalls) -> str:
    """Return a sentence when the same inputs gave other outputs the second time, else an empty string."""
    from exporter.verify.compare_outputs import compare_repeats
    from exporter.verify.infinite import without_infinite
    from exporter.verify.standard import stack_by_standard

    first = stack_by_standard(by, variant, calls.samples[: len(calls.again)])
    again = stack_by_standard(by, variant, calls.again)
    repeated = without_infinite(first.samples, again.samples)
    return again.problem or compare_repeats(without_infinite(first.samples, first.samples), repeated)


def _reason_verify_stage_did_not_run(why: CannotRunHere) -> str:
    return f"{str(why).rstrip('.')}. Its structure was checked."


def _failed_verdict_in_verify_stage(
    reason: str, runtime: str = "", executor: Executor = "runtime"
) -> Verdict:
    return Verdict("failed", reason, runtime, None, executor=executor)


def run_verify_stage(
    context: Context, source: Source, built: Sequence[stage_results.BuildResult]
) -> Mapping[str, CheckedArtifactResult]:
    """Judge every file that was made, each in a process of its own. Variant name -> finding."""
    if not context.request.verify:
        verdict = Verdict("not_run", "Verification was switched off (--no-verify).", "", None)
        return {b.variant.name: CheckedArtifactResult(None, verdict) for b in built if b.file}
    return verify_files_in_stage(
        context.folders.out,
        [(b.variant, b.file) for b in built if b.file],
        expected_by_verify_stage(context, source),
        context.run,
        context.cache,
    )


def expected_by_verify_stage(context: Context, source: Source) -> stage_results.ExpectedResult:
    """Return what every artifact of this run is checked against."""
    facts = source.facts
    limits = context.request.limits
    return stage_results.ExpectedResult(
        facts.inputs,
        facts.outputs,
        facts.matrix_weights,
        limits,
        facts.labels,
        context.request.task,
        facts.image,
        facts.flops or 0,
    )


def verify_files_in_stage(
    folder: Path,
    files: Sequence[tuple[Variant, str]],
    expected: stage_results.ExpectedResult,
    run: Run,
    cache: Cache,
) -> Mapping[str, CheckedArtifactResult]:
    """Verify files from their folder alone; findings for unchanged ones come from the cache."""
    steps = [
        Step(
            "verdict",
            _verify_stage_key(folder, variant, file, expected),
            CheckedArtifactResult,
            functools.partial(_verify_stage_job, folder, variant, file, expected),
            value=_result_of_verify_stage,
            failed=_crashed_result_of_verify_stage,
        )
        for variant, file in files
    ]
    checked = cached_steps(run, cache, "verify", steps)
    return {variant.name: item for (variant, _), item in zip(files, checked, strict=True)}


def _verify_stage_job(
    folder: Path, variant: Variant, file: str, expected: stage_results.ExpectedResult, _: object
) -> Job:
    from exporter.formats import stand_for

    stand = stand_for(variant)
    lowering, simulation = verify_stage_programs(folder, variant)
    arguments = (
        folder / file,
        variant,
        folder / EVIDENCE,
        lowering if lowering.exists() else None,
        expected,
        simulation if simulation.exists() else None,
    )
    return Job(
        variant.name,
        verify_artifact_in_stage,
        arguments,
        preload=preload_of_context(variant),
        cost_s=variant.cost_s,
        read_only=True,
        scratch=True,
        seconds=stand.seconds if stand else seconds_to_verify(folder, file, expected),
        reads=(*stand.reads, *_vulkan_tools_of_verify_stage(variant)) if stand else (),
    )


def _verify_stage_key(
    folder: Path, variant: Variant, file: str, expected: stage_results.ExpectedResult
) -> str:
    paths = (folder / file, folder / EVIDENCE, folder / SIZES, *verify_stage_programs(folder, variant))
    digests = [digest_file_or_folder(path) for path in paths if path.exists()]
    stand_in = [path.name for path in _vulkan_tools_of_verify_stage(variant)]
    return cache_key(cache_toolchain_key(), variant, digests, expected, stand_in)


def _vulkan_tools_of_verify_stage(variant: Variant) -> tuple[Path, ...]:
    """Return the folder of the libraries that run a Vulkan artifact here; nothing where there are none."""
    ready = ready_vulkan_tools(default_cache_root()) if variant.backend == "vulkan" else None
    return (ready.resolve(),) if ready else ()


def verify_stage_programs(folder: Path, variant: Variant) -> tuple[Path, Path]:
    """Return where the outputs of its quantised program, and of its simulation, would be."""
    names = lowering_file(variant.precision, variant.name), simulation_file(variant.precision)
    return folder / names[0], folder / names[1]


def _result_of_verify_stage(checked: CheckResult) -> CheckedArtifactResult:
    values = () if checked.outputs is None else tuple(float(x) for x in checked.outputs)
    return CheckedArtifactResult(checked.structure, checked.verdict, values)


def _crashed_result_of_verify_stage(error: Exception) -> CheckedArtifactResult:
    """Return the verdict on a file whose runtime crashed."""
    return CheckedArtifactResult(None, Verdict("failed", str(error), "", None))
