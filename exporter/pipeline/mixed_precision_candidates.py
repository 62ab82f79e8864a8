"""Makes a candidate of `--search`, or takes it from the cache; verifies, times and evaluates it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from exporter import files
from exporter.config.request import Request
from exporter.pipeline import (
    build_stage,
    cache,
    int8_stage,
    labelled_predictions,
    read_stage,
    search_evidence,
    stage_results,
    verify_stage,
)
from exporter.pipeline.cached_steps import Step, cached_steps
from exporter.pipeline.context import Context, Event, Source
from exporter.pipeline.host_latency import (
    File,
    measure_host_latencies_beside,
    measure_host_latencies_together,
)
from exporter.pipeline.int8_stage import edges_for_int8_stage, run_program_in_int8_stage
from exporter.pipeline.stage_results import CheckedArtifactResult
from exporter.pipeline.workers.jobs import Job
from exporter.quantize.operator_ranking import RankedMix
from exporter.records import SHIPPABLE, Latency, MixedPoint, Preprocessing, Variant, Verdict

Measurer = Callable[[Path, Variant], Latency | None]
"""Times a file in the runtime that the search is for; None where it cannot."""


@dataclass(frozen=True, eq=False)
class MixedCandidate:
    """One way to keep operators in float, as artifacts of the mixed variants that need one."""

    float_ops: tuple[str, ...]
    folder: Path
    built: tuple[stage_results.BuildResult, ...]
    checked: Mapping[str, CheckedArtifactResult]
    latencies: Mapping[str, Latency]
    points: tuple[MixedPoint, ...]
    answers: labelled_predictions.ArtifactPredictions = field(
        default_factory=labelled_predictions.ArtifactPredictions
    )
    """Predictions of its artifacts, of int8 and of float32."""

    def artifact(self, name: str) -> stage_results.BuildResult:
        """Return the artifact of that name, which the candidate was made for."""
        return next(item for item in self.built if item.variant.name == name)

    def point(self, name: str) -> MixedPoint | None:
        """Return the point of the artifact of that name, if it was made, ran, and was timed."""
        return next((point for point in self.points if point.variant == name), None)

    def file(self, name: str) -> File:
        """Return the file of the artifact of that name, and its variant."""
        item = self.artifact(name)
        return self.folder / str(item.file), item.variant

    def timed(self, name: str, latency: Latency) -> MixedCandidate:
        """Return the candidate with another latency of the artifact of that name."""
        points = tuple(
            replace(point, p50_ms=latency.p50_ms) if point.variant == name else point for point in self.points
        )
        return replace(self, latencies={**self.latencies, name: latency}, points=points)

    def passed(self, name: str) -> bool:
        point = self.point(name)
        return point is not None and point.passed


@dataclass(frozen=True, eq=False)
class CandidateJudge:
    """The parts of a search that every candidate shares."""

    context: Context
    source: Source
    labels: stage_results.LabelsResult | None
    measure: Measurer | None
    bases: Mapping[str, tuple[File, Latency]] = field(default_factory=dict)
    """Format -> its int8 artifact, which candidates are timed beside, and its latency in this run."""

    def answers(
        self,
        folder: Path,
        built: Sequence[stage_results.BuildResult],
        checked: Mapping[str, CheckedArtifactResult],
        existing: labelled_predictions.ArtifactPredictions,
    ) -> labelled_predictions.ArtifactPredictions:
        """Add the predictions of the artifacts in `folder` to `existing`; none without labelled samples."""
        if self.labels is None:
            return existing
        ran = stage_results.stage_results_run_here(built, checked)
        return labelled_predictions.labelled_predictions_of_artifacts(
            self.context, self.source, self.labels, folder, ran, self.context.run_silently, existing
        )

    def points(
        self,
        folder: Path,
        built: Sequence[stage_results.BuildResult],
        checked: Mapping[str, CheckedArtifactResult],
        latencies: Mapping[str, Latency],
        answers: labelled_predictions.ArtifactPredictions,
        float_ops: tuple[str, ...],
    ) -> tuple[MixedPoint, ...]:
        """Return the points of every artifact that ran and was timed."""
        drops = (
            labelled_predictions.drops_of_labelled_predictions(self.labels, answers) if self.labels else {}
        )
        points = []
        for item in stage_results.stage_results_run_here(built, checked):
            name = item.variant.name
            verdict, drop = checked[name].verdict, drops.get(name)
            if verdict.comparison is None or name not in latencies:
                continue
            points.append(
                MixedPoint(
                    variant=name,
                    float_ops=float_ops,
                    sqnr_db=verdict.comparison.sqnr_db,
                    agreement=verdict.comparison.agreement,
                    p50_ms=latencies[name].p50_ms,
                    size_bytes=(folder / str(item.file)).stat().st_size,
                    passed=is_mixed_precision_candidate_good_enough(self.context.request, verdict, drop),
                    drop=drop,
                )
            )
        return tuple(points)

    def latencies(
        self,
        folder: Path,
        built: Sequence[stage_results.BuildResult],
        checked: Mapping[str, CheckedArtifactResult],
    ) -> dict[str, Latency]:
        """Time the artifacts in `folder` that ran; by name, without those that cannot be timed."""
        latencies = {
            item.variant.name: self._time(folder / str(item.file), item.variant)
            for item in stage_results.stage_results_run_here(built, checked)
        }
        return {name: latency for name, latency in latencies.items() if latency is not None}

    def _time(self, path: Path, variant: Variant) -> Latency | None:
        if self.measure:
            return self.measure(path, variant)
        (latency,) = self.beside_int8([(path, variant)])
        return latency

    def beside_int8(self, files: Sequence[File]) -> tuple[Latency | None, ...]:
        """Time files of one runtime here, in turn with each other and with its int8 artifact."""
        base = self.bases.get(files[0][1].format)
        return (
            measure_host_latencies_beside(self.context, *base, files)
            if base
            else measure_host_latencies_together(self.context, files)
        )


def is_mixed_precision_candidate_good_enough(request: Request, verdict: Verdict, drop: float | None) -> bool:
    """Tell whether an artifact reaches every limit of the search.

    Args:
        request: With the limits; its labelled samples bound what may be lost.
        verdict: The artifact's.
        drop: Points of top-1 that it lost on the labelled samples; None where it gave no answers.
    """
    comparison = verdict.comparison
    if verdict.status not in SHIPPABLE or comparison is None:
        return False
    agrees = comparison.agreement is None or comparison.agreement >= request.limits.int8_min_agreement
    return (
        comparison.sqnr_db >= request.min_sqnr_db
        and agrees
        and excess_of_mixed_precision_candidate(request, drop) <= 0
    )


def excess_of_mixed_precision_candidate(request: Request, drop: float | None) -> float:
    """Return the points of top-1 lost beyond what may be lost; 0 without labelled samples."""
    if request.evaluation is None:
        return 0.0
    return math.inf if drop is None else max(0.0, drop - request.max_drop)


def mixes_for_mixed_precision_candidates(context: Context, source: Source) -> tuple[RankedMix, ...]:
    """Return operators to keep in float, the fewest first; from the cache where it has them.

    Raises:
        LoweringError: There is no int8 program.
    """

    def prepare() -> None:
        _ensure_mixed_precision_candidate_program(context, source)
        context.observer(Event("search", "measuring what each activation costs", 0, 0))

    arguments = (context.folders.work,)
    job = Job(
        "what each activation costs",
        list_mixed_precision_candidates,
        arguments,
        preload=int8_stage.QUANTIZERS,
    )
    step = Step("mixes", int8_stage.int8_stage_key(context, source), tuple[RankedMix, ...], lambda _: job)
    (found_mixes,) = cached_steps(context.run_silently, context.cache, "search", [step], prepare)
    return cast("tuple[RankedMix, ...]", found_mixes)


def make_mixed_precision_candidate(
    judge: CandidateJudge,
    variants: Sequence[Variant],
    existing: labelled_predictions.ArtifactPredictions,
    float_ops: tuple[str, ...],
    number: int,
) -> MixedCandidate:
    """Make the candidate's artifacts in a folder of its own; verify, time and evaluate them.

    Args:
        judge: The judge of the search.
        variants: The mixed variants that still need an artifact.
        existing: Predictions of int8 and float32 for the labelled samples.
        float_ops: Names of the operators in float.
        number: The candidate's number.
    """
    context = judge.context
    folder = context.folders.work / f"mixed-{number}"
    folder.mkdir()
    shutil.copy2(search_evidence.make_search_evidence(context, judge.source), folder)
    built = _built_mixed_precision_candidate(judge, variants, float_ops, folder)
    expected = verify_stage.expected_by_verify_stage(context, judge.source)
    files_made = [(item.variant, item.file) for item in built if item.file]
    checked = verify_stage.verify_files_in_stage(
        folder, files_made, expected, context.run_silently, context.cache
    )
    latencies = judge.latencies(folder, built, checked)
    answers = judge.answers(folder, built, checked, existing)
    points = judge.points(folder, built, checked, latencies, answers, float_ops)
    return MixedCandidate(float_ops, folder, built, checked, latencies, points, answers)


def _built_mixed_precision_candidate(
    judge: CandidateJudge, variants: Sequence[Variant], float_ops: tuple[str, ...], folder: Path
) -> tuple[stage_results.BuildResult, ...]:
    """Return the artifacts, from the cache where it has them."""
    context = judge.context
    names = tuple(variant.name for variant in variants)
    arguments = (context.folders.work, float_ops, names, folder, judge.source.facts.preprocessing)
    prepare = Job(folder.name, mix_precision_of_candidate, arguments, preload=int8_stage.QUANTIZERS)
    steps = [
        build_stage.artifact_step_of_build_stage(
            context,
            judge.source,
            variant,
            prepare,
            folders=(folder, folder),
            key=lambda key: cache.cache_key(key, float_ops),
            extra_files=(
                files.lowering_file("mixed", variant.name),
                lowering_file_of_mixed_precision_candidate(variant.name),
            ),
        )
        for variant in variants
    ]
    return tuple(
        cached_steps(
            context.run_silently,
            context.cache,
            "search",
            steps,
            lambda: _ensure_mixed_precision_candidate_program(context, judge.source),
        )
    )


def _ensure_mixed_precision_candidate_program(context: Context, source: Source) -> None:
    read_stage.ensure_read_stage_ran(context, source)
    int8_stage.ensure_int8_program_in_stage(context)


def list_mixed_precision_candidates(work: Path) -> tuple[RankedMix, ...]:
    """List the operators to keep in float, candidate by candidate, the fewest first."""
    from exporter.quantize import int8_recipe, operator_ranking

    quantized = int8_recipe.load_int8_recipe(work).without_corrections()
    samples = [
        int8_recipe.int8_recipe_tensors(sample) for sample in stage_results.load_stage_data(work).calibration
    ]
    activations, prices = operator_ranking.measure_for_operator_ranking(
        quantized.module, quantized.float_weights, samples
    )
    return operator_ranking.rank_operators(activations, prices)


def lowering_file_of_mixed_precision_candidate(name: str) -> str:
    """Return where a candidate's folder has the program's outputs on the scenes that judge it if chosen."""
    return f"final-{files.lowering_file('mixed', name)}"


def mix_precision_of_candidate(
    work: Path,
    float_ops: tuple[str, ...],
    names: tuple[str, ...],
    folder: Path,
    preprocessing: Preprocessing | None,
) -> None:
    """Put operators of the int8 program back into float.

    Args:
        work: Of the run.
        float_ops: Names of the operators.
        names: Of the artifacts that are made from it.
        folder: What `build` and `verify` need lands here.
        preprocessing: How photos become the model's input, where they do.
    """
    from exporter.capture.captured_program import load_captured_program, save_captured_program
    from exporter.quantize import int8_recipe, mixed_precision
    from exporter.verify import reference_io

    quantized = int8_recipe.load_int8_recipe(work).without_corrections()
    module = mixed_precision.keep_float_in_mixed_precision(
        quantized.module, quantized.float_weights, float_ops
    )
    int8_recipe.save_int8_recipe(replace(quantized, module=module), folder)
    save_captured_program(load_captured_program(work), folder)
    data, edges = stage_results.load_stage_data(work), edges_for_int8_stage(work, preprocessing)
    to_choose, to_judge = (
        run_program_in_int8_stage(module, samples, edges) for samples in (data.choice, data.verification)
    )
    for name in names:
        reference_io.save_reference_io_lowering(to_choose, folder / files.lowering_file("mixed", name))
        reference_io.save_reference_io_lowering(
            to_judge, folder / lowering_file_of_mixed_precision_candidate(name)
        )
