"""Runs artifacts on a phone's CPU kernels, emulated, and judges their outputs. No time is measured."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from exporter import sandbox
from exporter.config.targets import Target
from exporter.emulated import arm_tools, cores
from exporter.emulated import run as emulated
from exporter.emulated.arm_tools import ArmTools
from exporter.errors import LoweringError, OverBoundsError
from exporter.files import EVIDENCE, digest_file_or_folder
from exporter.pipeline.cache import Cache, cache_key, cache_toolchain_key, default_cache_root
from exporter.pipeline.cached_steps import Step, cached_steps
from exporter.pipeline.context import Context, Run, preload_of_context
from exporter.pipeline.stage_results import BuildResult
from exporter.pipeline.verify_stage import verify_stage_programs
from exporter.pipeline.workers.jobs import Job
from exporter.records import Array, Emulation, Limits, Sample, Variant
from exporter.verify import compare_outputs, judge, reference_io
from exporter.verify.reference_io import Lowering, ReferenceIO
from exporter.verify.simulation_io import Simulation
from exporter.verify.standard import read_programs_of_standard

SAMPLES = 2
"""The first verification samples, which are run: an emulated call takes seconds."""
MOST_FLOPS = 5_000_000_000
"""FLOPs of a call up to which an export emulates. QEMU takes a minute for that many, and longer on a busy
machine: ResNet-50 would take longer there than all other stages together."""
SECONDS = 1200.0
"""Bound on the wall time of one artifact."""


def emulate_artifact_in_stage(
    path: Path,
    variant: Variant,
    evidence_path: Path,
    limits: Limits,
    target: Target,
    ready: ArmTools,
    root: Path,
) -> Emulation:
    """Run one artifact on the emulated target and on this machine, and compare both with the reference.

    It runs in a confined process, which may start QEMU until the artifact has run there.

    Args:
        path: The artifact.
        variant: What it claims to be.
        evidence_path: The inputs, and what the float64 model computes.
        limits: When it counts as equal.
        target: The phone whose core is emulated.
        ready: QEMU and the programs.
        root: What the emulated program sees as /.
    """
    whole = reference_io.load_reference_io(evidence_path)
    # No edge inputs: these test the file, not the kernels.
    references = replace(reference_io.first_of_reference_io(whole, SAMPLES), edge_names=(), edge_floors=())
    samples = references.samples()
    blank = Emulation("failed", "", "", cores.emulated_core_name(target), len(samples))
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        backend = emulated.BACKENDS[variant.backend]
        try:
            answer = emulated.run_emulated(
                ready, root, cores.emulated_core(target), backend, path, samples, scratch
            )
        except LoweringError as error:
            return replace(blank, reason=f"On emulated Arm, {error.cause}")
    sandbox.tighten_sandbox()
    blank = replace(blank, runtime=answer.runtime)
    outputs, problem = reference_io.stack_like_reference_io(
        answer.outputs, references.reference, references.shapes
    )
    if problem:
        return replace(blank, reason=f"On emulated Arm: {problem}")
    lowering, simulation = _programs_on_emulated_samples(evidence_path.parent, variant)
    verdict = judge.judge_artifact(
        variant, answer.runtime, references, outputs, (), lowering, limits, (), simulation, on_device=True
    )
    figures = verdict.comparison
    result = replace(
        blank,
        max_error=_finite_in_emulation_stage(figures.max_error) if figures else None,
        sqnr_db=_finite_in_emulation_stage(figures.sqnr_db) if figures else None,
    )
    if verdict.status == "failed":
        return replace(result, reason=f"On emulated Arm: {verdict.reason}")
    # So few samples may be inconclusive. Where Arm's outputs equal this machine's, its verdict holds.
    difference, problem = _difference_from_host_in_emulation_stage(
        path, variant, samples, outputs, references, limits
    )
    return replace(result, status="failed" if problem else "passed", reason=problem, difference=difference)


def _programs_on_emulated_samples(
    folder: Path, variant: Variant
) -> tuple[Lowering | None, Simulation | None]:
    """Return what the quantised program, and the precision's simulation, give on the samples that are run."""
    of_program, simulated = (p if p.exists() else None for p in verify_stage_programs(folder, variant))
    lowering, simulation = read_programs_of_standard(of_program, simulated, SAMPLES)
    return lowering and replace(lowering, edges={}), simulation and replace(simulation, edges={})


def _finite_in_emulation_stage(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _difference_from_host_in_emulation_stage(
    path: Path,
    variant: Variant,
    samples: Sequence[Sample],
    outputs: Sequence[Array],
    references: ReferenceIO,
    limits: Limits,
) -> tuple[float | None, str]:
    """Return how far Arm's outputs are from this machine's kernels', and why that is too far.

    Both ran the same file: float32 may differ by what rounding does, and a narrower precision by what its
    lowering may.
    """
    from exporter.formats import FORMATS

    run, _ = FORMATS[variant.format].load(path, variant, 1)
    here, problem = reference_io.stack_like_reference_io(
        [run(sample) for sample in samples], references.reference, references.shapes
    )
    if problem:
        return None, ""  # the host's own verdict says so
    pairs = [(a, b) for a, b in zip(here, outputs, strict=True) if a.dtype.kind == "f"]
    errors = [compare_outputs.compare_max_error(a, b) for a, b in pairs]
    worst = max(errors, default=0.0)
    if variant.precision == "fp32":
        limit = max(limits.fp32_max_error, limits.fp32_floor_factor * references.floor)
        wrong = worst > limit
        difference = f"{worst:.2g} of the output's scale, at most {limit:.2g} is rounding"
    else:
        least = limits.fp16_min_sqnr_db if variant.precision == "fp16" else limits.lowering_min_sqnr_db
        noise = min((compare_outputs.compare_sqnr_db(a, b) for a, b in pairs), default=math.inf)
        wrong = noise < least
        difference = f"{noise:.1f} dB, expected at least {least:.0f} dB"
    reason = f"Emulated Arm and this machine compute different outputs from the same file: {difference}."
    return _finite_in_emulation_stage(worst), reason if wrong else ""


def run_emulation_stage(
    folder: Path,
    files: Sequence[tuple[Variant, str]],
    limits: Limits,
    target: Target,
    ready: ArmTools,
    run: Run,
    cache: Cache,
) -> Mapping[str, Emulation]:
    """Run every artifact that has an Arm library, each in a process of its own. Variant name -> result.

    Args:
        folder: OUT.
        files: The artifacts and their files in OUT.
        limits: When an artifact counts as equal.
        target: The phone.
        ready: QEMU and the programs.
        run: Runs the jobs; they must be allowed to read the programs.
        cache: Where the results of unchanged files are kept.
    """
    root = arm_tools.root_of_arm_tools(target, ready)
    chosen = [(variant, file) for variant, file in files if variant.backend in emulated.BACKENDS]
    steps = [
        Step(
            "arm64",
            cache_key(
                cache_toolchain_key(), variant, limits, cores.emulated_core(target), ready.folder.name,
                digest_file_or_folder(folder / file), digest_file_or_folder(folder / EVIDENCE),
                [digest_file_or_folder(p) for p in verify_stage_programs(folder, variant) if p.exists()],
            ),
            Emulation,
            functools.partial(_emulation_stage_job, folder, variant, file, (limits, target, ready, root)),
            failed=functools.partial(_crash_in_emulation_stage, target),
        )
        for variant, file in chosen
    ]  # fmt: skip
    results: list[Emulation] = cached_steps(run, cache, "arm64", steps)
    return {variant.name: item for (variant, _), item in zip(chosen, results, strict=True)}


def run_emulation_stage_of_export(
    context: Context, built: Sequence[BuildResult], flops: int | None
) -> Mapping[str, Emulation]:
    """Emulate what an export built, where the programs are prepared and the target is an Android phone.

    Args:
        context: The run.
        built: What it built.
        flops: FLOPs of a call, where they are known; beyond `MOST_FLOPS` nothing runs.
    """
    ready = arm_tools.ready_arm_tools(default_cache_root())
    if not ready or not context.request.verify or "coreml-fp16" in context.target.runnable:
        return {}
    files = [(item.variant, item.file) for item in built if item.file]
    if flops is not None and flops > MOST_FLOPS:
        result = _not_run_in_emulation_stage(
            context.target,
            f"A call computes {flops / 1e9:.1f} GFLOPs, and an export emulates up to {MOST_FLOPS / 1e9:.0f}: "
            "`export-mobile verify OUT --on arm64` runs it.",
        )
        return {variant.name: result for variant, _ in files if variant.backend in emulated.BACKENDS}
    limits = context.request.limits
    return run_emulation_stage(
        context.folders.out, files, limits, context.target, ready, context.run, context.cache
    )


def _emulation_stage_job(
    folder: Path, variant: Variant, file: str, rest: tuple[Limits, Target, ArmTools, Path], _: object
) -> Job:
    return Job(
        f"{variant.name} on Arm",
        emulate_artifact_in_stage,
        (folder / file, variant, folder / EVIDENCE, *rest),
        preload=preload_of_context(variant),
        cost_s=60.0,
        read_only=True,
        scratch=True,
        seconds=SECONDS,
    )


def _not_run_in_emulation_stage(target: Target, reason: str) -> Emulation:
    return Emulation("not_run", reason, "", cores.emulated_core_name(target), 0)


def _crash_in_emulation_stage(target: Target, error: Exception) -> Emulation:
    """Return the result where the job ended: its time says nothing of the artifact, a crash does."""
    if isinstance(error, OverBoundsError):
        return _not_run_in_emulation_stage(target, f"On emulated Arm: {error}")
    return Emulation("failed", f"On emulated Arm: {error}", "", cores.emulated_core_name(target), SAMPLES)
