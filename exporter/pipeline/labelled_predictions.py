"""The predictions of float32 and of every artifact on labelled samples."""

from __future__ import annotations

import functools
import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from exporter import files
from exporter.data import labelled
from exporter.errors import CalibrationError
from exporter.pipeline import cache, stage_results, task_accuracy
from exporter.pipeline.cached_steps import Step, cached_steps
from exporter.pipeline.context import TORCH, Context, Run, Source, preload_of_context
from exporter.pipeline.read_stage import ensure_read_stage_ran
from exporter.pipeline.stage_results import LabelsResult, RankedResult, ReadResult
from exporter.pipeline.workers.jobs import Job
from exporter.records import Array, Runner, TaskName, TensorSpec, Variant
from exporter.verify import accuracy, labelled_loss
from exporter.verify.labelled_loss import LabelledFigures
from exporter.verify.scores import compare_scores

FLOAT = "float32"
LABELS = "labels"


Answer = stage_results.RankedResult | stage_results.ScoredRows
"""One model's predictions: the likeliest classes, or what a task's measures are made of."""


@dataclass(frozen=True)
class ArtifactPredictions:
    """Predictions for the labelled samples. Name -> predictions, or why there are none."""

    ranked: Mapping[str, Answer] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)


def merge_labelled_predictions(
    existing: ArtifactPredictions, more: Mapping[str, ArtifactPredictions]
) -> ArtifactPredictions:
    """Add to `existing` the predictions of the artifact that each entry of `more` is named after."""
    ranked, failures = dict(existing.ranked), dict(existing.failures)
    for name, answers in more.items():
        ranked |= {name: answers.ranked[name]} if name in answers.ranked else {}
        failures |= {name: answers.failures[name]} if name in answers.failures else {}
    return ArtifactPredictions(ranked, failures)


def labelled_predictions_of_artifacts(
    context: Context,
    source: Source,
    labels: LabelsResult,
    folder: Path,
    ran: Sequence[stage_results.BuildResult],
    run: Run,
    existing: ArtifactPredictions,
) -> ArtifactPredictions:
    """Return the predictions of float32 and artifacts on the labelled samples, cached ones where possible.

    Args:
        context: The run; its work folder holds the labelled samples.
        source: The checkpoint.
        labels: The labelled samples.
        folder: Where the artifacts are.
        ran: The artifacts to run.
        run: Runs the jobs, as `Context.run`.
        existing: Predictions that need not be made again; float32's above all.

    Returns:
        `existing` with all that were added.

    Raises:
        CalibrationError: Too few of the samples can be read.
    """
    new = [b for b in ran if b.variant.name not in existing.ranked.keys() | existing.failures.keys()]
    if FLOAT in existing.ranked and not new:
        return existing
    keys = _labelled_prediction_keys(source, labels, folder, new)
    jobs = {b.variant.name: _labelled_prediction_job(context, source, folder, b) for b in new}
    if FLOAT not in existing.ranked:
        jobs = {FLOAT: _float_labelled_prediction_job(context, source)} | jobs
    steps = [
        Step(
            "predictions",
            keys[name],
            stage_results.ScoredRows if labels.task else stage_results.RankedResult,
            functools.partial(_given_labelled_predictions, job),
            failed=functools.partial(_labelled_prediction_failure, name),
        )
        for name, job in jobs.items()
    ]

    def prepare() -> None:
        if FLOAT in jobs:
            ensure_read_stage_ran(context, source)

    answers = dict(zip(jobs, cached_steps(run, context.cache, "accuracy", steps, prepare), strict=True))
    ranked = {name: a for name, a in answers.items() if not isinstance(a, str)} | dict(existing.ranked)
    failures = dict(existing.failures) | {name: a for name, a in answers.items() if isinstance(a, str)}
    _check_labelled_predictions_read(ranked[FLOAT], labels.task, context.request.max_drop)
    return ArtifactPredictions(ranked, failures)


def _given_labelled_predictions(job: Job, _: object) -> Job:
    return job


def _labelled_prediction_failure(name: str, error: Exception) -> str:
    """Return why an artifact has no predictions; without float32's there is nothing to compare with."""
    if name == FLOAT or isinstance(error, CalibrationError):  # the samples were changed
        raise error
    return f"It does not run on the labelled samples: {error}"


def _check_labelled_predictions_read(floats: Answer, task: TaskName, max_drop: float) -> None:
    read = (
        floats.count
        if isinstance(floats, stage_results.ScoredRows)
        else sum(row[0] != accuracy.UNREAD for row in floats.rows)
    )
    if read == 0:
        raise CalibrationError("--eval: none of its photos can be decoded.")
    if isinstance(floats, stage_results.ScoredRows):
        compare_scores.check_enough_scores(read)
        compare_scores.check_reference_scores(task, task_accuracy.plain_task_accuracy(task, floats))
    else:
        accuracy.check_enough_for_accuracy(read, max_drop)


def _labelled_prediction_keys(
    source: Source, labels: LabelsResult, folder: Path, ran: Sequence[stage_results.BuildResult]
) -> dict[str, str]:
    """Return cache keys, of the samples, how they become inputs, and what runs on them."""
    facts = source.facts
    data = (
        cache.cache_toolchain_key(),
        labels.digest,
        facts.inputs,
        facts.outputs,
        facts.preprocessing,
        facts.labels,
        labels.task,
    )
    keys = {b.variant.name: _labelled_prediction_key(folder, b, data) for b in ran}
    model = facts.digest or source.key  # the graph and its weights, or what they were read from
    return keys | {FLOAT: cache.cache_key("float32", model, data) if model else ""}


def _labelled_prediction_key(folder: Path, built: stage_results.BuildResult, data: tuple[object, ...]) -> str:
    return cache.cache_key(built.variant, files.digest_file_or_folder(folder / str(built.file)), data)


def _float_labelled_prediction_job(context: Context, source: Source) -> Job:
    arguments = (context.folders.work, source.facts.outputs)
    return Job(FLOAT, labelled_predictions_of_float, arguments, preload=TORCH, cost_s=8)


def _labelled_prediction_job(
    context: Context, source: Source, folder: Path, built: stage_results.BuildResult
) -> Job:
    path = folder / str(built.file)
    return Job(
        built.variant.name,
        labelled_predictions_by_artifact,
        (path, built.variant, context.folders.work, source.facts.outputs),
        preload=preload_of_context(built.variant),
        cost_s=built.variant.cost_s,
        read_only=True,
    )


def labelled_prediction_arrays(
    labels: stage_results.LabelsResult, answers: ArtifactPredictions
) -> dict[str, Array]:
    """Return labels and predictions by name, as they are stored and counted."""
    if labels.task:
        return task_accuracy.task_accuracy_arrays(
            {
                name: rows
                for name, rows in answers.ranked.items()
                if isinstance(rows, stage_results.ScoredRows)
            }
        )
    ranked = {
        name: a.array() for name, a in answers.ranked.items() if isinstance(a, stage_results.RankedResult)
    }
    return {LABELS: np.array(labels.labels, np.int64)} | ranked


def figures_of_labelled_predictions(
    stored: Mapping[str, object], task: TaskName, classes: int
) -> dict[str, LabelledFigures]:
    """Return name -> figures of everything in `labelled_prediction_arrays`, float32 among them.

    Args:
        stored: The arrays.
        task: The task whose labels these are; empty counts classes.
        classes: Number of the model's classes.
    """
    if task:
        return dict(task_accuracy.task_accuracies(stored, task, FLOAT))
    labels = np.asarray(stored[LABELS])
    answers = {name: accuracy.Predictions(np.asarray(a)) for name, a in stored.items() if name != LABELS}
    return {
        name: accuracy.count_accuracy(labels, predicted, answers[FLOAT], classes)
        for name, predicted in answers.items()
    }


def drops_of_labelled_predictions(
    labels: stage_results.LabelsResult, answers: ArtifactPredictions
) -> dict[str, float]:
    """Return artifact name -> what it lost against float32 of the measure that decides.

    A loss that is no number is none that may be weighed: the artifact has given no usable answer.
    """
    figures = figures_of_labelled_predictions(
        labelled_prediction_arrays(labels, answers), labels.task, labels.classes
    )
    lost = {name: labelled_loss.labelled_loss(own).lost for name, own in figures.items() if name != FLOAT}
    return {name: loss for name, loss in lost.items() if math.isfinite(loss)}


LABELLED = "labelled.pkl"
"""The file of labelled samples in the work folder."""


def samples_for_labelled_predictions(
    evaluation: Path,
    calibration: Path | None,
    samples: int,
    max_drop: float,
    task: TaskName,
    facts: ReadResult,
    work: Path,
) -> LabelsResult:
    """Find the labelled samples, check that they may judge, and leave them in the work folder.

    Args:
        evaluation: What `--eval` names.
        calibration: What `--calibration` names; none of it may be in the evaluation.
        samples: Calibration samples asked for.
        max_drop: Points that must be measurable.
        task: What `--task` names; it decides what the labels are.
        facts: The model's inputs, outputs, preprocessing and class names.
        work: Where `LABELLED` is written.

    Raises:
        CalibrationError: The data cannot be used, is too little, or was calibrated on.
    """
    from exporter import data
    from exporter.data import labelled_siblings, labels
    from exporter.data.labels.label_source import Model

    model = Model(facts.inputs, facts.outputs, facts.preprocessing, facts.labels)
    chosen = labels.task_of_labels(evaluation, model, task)
    if chosen:
        labelled_samples = labels.find_labels(evaluation, model, chosen)
    else:
        labelled_samples = labelled.find_labelled(
            evaluation, facts.inputs, facts.outputs, facts.preprocessing, facts.labels
        )
    _check_enough_for_labelled_predictions(labelled_samples, max_drop)
    if calibration is not None:
        if calibration.suffix.lower() in (".txt", ".jsonl", ".wav"):
            raise CalibrationError(
                f"--eval cannot be compared with {calibration.name}: labels must not be calibrated on.",
                "Give the calibration data as an .npz of arrays, or leave --eval out.",
            )
        used = data.load_data(calibration, facts.inputs, facts.preprocessing, samples)
        labelled.check_labelled_apart(labelled_samples, used.origins, calibration)
        labelled_samples = labelled_siblings.without_labelled_siblings(labelled_samples, used)
        _check_enough_for_labelled_predictions(labelled_samples, max_drop)
    (work / LABELLED).write_bytes(pickle.dumps(labelled_samples))
    return LabelsResult(
        labelled_samples.kind,
        labelled_samples.classes,
        tuple(int(label) for label in labelled_samples.labels),
        labelled_samples.notes,
        labelled_samples.digest,
        chosen,
    )


def _check_enough_for_labelled_predictions(samples: labelled.Labelled, max_drop: float) -> None:
    if samples.task:
        compare_scores.check_enough_scores(len(samples.truths))
    else:
        accuracy.check_enough_for_accuracy(len(samples.labels), max_drop)


def labelled_predictions_of_float(work: Path, outputs: Sequence[TensorSpec]) -> Answer:
    """Predict with the captured model in eager float32.

    Args:
        work: Holds the captured model and `LABELLED`.
        outputs: The model's outputs.
    """
    from exporter.capture import captured_program
    from exporter.capture.calls import call_runner

    return _labelled_predictions(
        call_runner(captured_program.load_captured_program(work).module), work, outputs
    )


def labelled_predictions_by_artifact(
    path: Path, variant: Variant, work: Path, outputs: Sequence[TensorSpec]
) -> Answer:
    """Predict with the written file in its own runtime."""
    from exporter.formats import FORMATS

    run, _ = FORMATS[variant.format].load(path, variant, 1)
    return _labelled_predictions(run, work, outputs)


def _labelled_predictions(run: Runner, work: Path, outputs: Sequence[TensorSpec]) -> Answer:
    samples: labelled.Labelled = pickle.loads((work / LABELLED).read_bytes())  # our own file
    if samples.task:
        return task_accuracy.score_for_task_accuracy(run, samples, outputs)
    output = labelled.index_of_labelled_output(outputs)
    rows: list[tuple[int, ...]] = []
    for sample, read in samples.batches():
        for ranked, usable in zip(accuracy.rank_for_accuracy(run(sample)[output]), read, strict=True):
            rows.append(tuple(int(c) if usable else accuracy.UNREAD for c in ranked))
    return RankedResult(tuple(rows[: len(samples.labels)]))
