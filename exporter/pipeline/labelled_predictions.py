"""The predictions of float32 and of every artifact on labelled samples."""

from __future__ import annotations

import functools
import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from exporter import files
from exporter.data import labelled
from exporter.errors import CalibrationError
from exporter.pipeline import cache, results, task_accuracy
from exporter.pipeline.cached_steps import Step, cached_steps
from exporter.pipeline.context import TORCH, Context, Run, Source, preload_of_context
from exporter.pipeline.read import ensure_model_read
from exporter.pipeline.results import LabelsResult, RankedResult, ReadResult
from exporter.pipeline.workers.pool import Job
from exporter.records import Accuracy, Array, Sample, TaskName, Variant
from exporter.verify import accuracy
from exporter.verify.scores import compare_scores

FLOAT = "float32"
LABELS = "labels"


Answer = results.RankedResult | results.ScoredRows
"""One model's predictions: the likeliest classes, or what a task's measures are made of."""


@dataclass(frozen=True)
class ArtifactPredictions:
    """Predictions for the labelled samples. Name -> predictions, or why there are none."""

    ranked: Mapping[str, Answer] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)


def merged_predictions(
    existing: ArtifactPredictions, more: Mapping[str, ArtifactPredictions]
) -> ArtifactPredictions:
    """Add to `existing` the predictions of the artifact that each entry of `more` is named after."""
    ranked, failures = dict(existing.ranked), dict(existing.failures)
    for name, answers in more.items():
        ranked |= {name: answers.ranked[name]} if name in answers.ranked else {}
        failures |= {name: answers.failures[name]} if name in answers.failures else {}
    return ArtifactPredictions(ranked, failures)


def predictions_of_artifacts(
    context: Context,
    source: Source,
    labels: LabelsResult,
    folder: Path,
    ran: Sequence[results.BuildResult],
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
    keys = _prediction_keys(source, labels, folder, new)
    jobs = {b.variant.name: _prediction_job(context, source, labels, folder, b) for b in new}
    if FLOAT not in existing.ranked:
        jobs = {FLOAT: _float_prediction_job(context, source, labels)} | jobs
    steps = [
        Step(
            "predictions",
            keys[name],
            results.ScoredRows if labels.task else results.RankedResult,
            functools.partial(_given_predictions, job),
            failed=functools.partial(_prediction_failure, name),
        )
        for name, job in jobs.items()
    ]

    def prepare() -> None:
        if FLOAT in jobs:
            ensure_model_read(context, source)

    answers = dict(zip(jobs, cached_steps(run, context.cache, "accuracy", steps, prepare), strict=True))
    ranked = {name: a for name, a in answers.items() if not isinstance(a, str)} | dict(existing.ranked)
    failures = dict(existing.failures) | {name: a for name, a in answers.items() if isinstance(a, str)}
    _check_predictions_read(ranked[FLOAT], labels.task, context.request.max_drop)
    return ArtifactPredictions(ranked, failures)


def _given_predictions(job: Job, _: object) -> Job:
    return job


def _prediction_failure(name: str, error: Exception) -> str:
    """Return why an artifact has no predictions; without float32's there is nothing to compare with."""
    if name == FLOAT or isinstance(error, CalibrationError):  # the samples were changed
        raise error
    return f"It does not run on the labelled samples: {error}"


def _check_predictions_read(floats: Answer, task: TaskName, max_drop: float) -> None:
    read = (
        floats.count
        if isinstance(floats, results.ScoredRows)
        else sum(row[0] != accuracy.UNREAD for row in floats.rows)
    )
    if read == 0:
        raise CalibrationError("--eval: none of its photos can be decoded.")
    if isinstance(floats, results.ScoredRows):
        compare_scores.check_enough_scores(read)
        compare_scores.check_reference_scores(task, task_accuracy.plain_task_accuracy(task, floats))
    else:
        accuracy.check_enough_for_accuracy(read, max_drop)


def _prediction_keys(
    source: Source, labels: LabelsResult, folder: Path, ran: Sequence[results.BuildResult]
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
    keys = {b.variant.name: _prediction_key(folder, b, data) for b in ran}
    model = facts.digest or source.key  # the graph and its weights, or what they were read from
    return keys | {FLOAT: cache.cache_key("float32", model, data) if model else ""}


def _prediction_key(folder: Path, built: results.BuildResult, data: tuple[object, ...]) -> str:
    return cache.cache_key(built.variant, files.digest_file_or_folder(folder / str(built.file)), data)


def _float_prediction_job(context: Context, source: Source, labels: LabelsResult) -> Job:
    work, outputs = context.folders.work, source.facts.outputs
    if labels.task:
        arguments = (work, LABELLED, outputs)
        return Job(FLOAT, task_accuracy.float_task_accuracy, arguments, preload=TORCH, cost_s=8)
    output = labelled.labelled_output_index(source.facts.outputs)
    return Job(FLOAT, predict_float, (context.folders.work, output), preload=TORCH, cost_s=8)


def _prediction_job(
    context: Context, source: Source, labels: LabelsResult, folder: Path, built: results.BuildResult
) -> Job:
    work, outputs = context.folders.work, source.facts.outputs
    file = (folder / str(built.file), built.variant, work)
    return Job(
        built.variant.name,
        task_accuracy.artifact_task_accuracy if labels.task else predict_artifact,
        (*file, LABELLED, outputs) if labels.task else (*file, labelled.labelled_output_index(outputs)),
        preload=preload_of_context(built.variant),
        cost_s=built.variant.cost_s,
        read_only=True,
    )


def prediction_arrays(labels: results.LabelsResult, answers: ArtifactPredictions) -> dict[str, Array]:
    """Return labels and predictions by name, as they are stored and counted."""
    if labels.task:
        return task_accuracy.task_accuracy_arrays(
            {name: rows for name, rows in answers.ranked.items() if isinstance(rows, results.ScoredRows)}
        )
    ranked = {name: a.array() for name, a in answers.ranked.items() if isinstance(a, results.RankedResult)}
    return {LABELS: np.array(labels.labels, np.int64)} | ranked


def counted_predictions(stored: Mapping[str, object], classes: int) -> dict[str, Accuracy]:
    """Return name -> counts of everything in `prediction_arrays`, float32 among them."""
    labels = np.asarray(stored[LABELS])
    answers = {name: accuracy.Predictions(np.asarray(a)) for name, a in stored.items() if name != LABELS}
    return {
        name: accuracy.count_accuracy(labels, predicted, answers[FLOAT], classes)
        for name, predicted in answers.items()
    }


def drops_of_predictions(labels: results.LabelsResult, answers: ArtifactPredictions) -> dict[str, float]:
    """Return artifact name -> points of top-1, or of the task's measure, that it lost against float32."""
    if labels.task:
        scored = task_accuracy.task_accuracies(prediction_arrays(labels, answers), labels.task, FLOAT)
        lost = {
            name: compare_scores.deciding_score(own).lost for name, own in scored.items() if name != FLOAT
        }
        # A loss that is no number is none that may be weighed: the artifact has given no usable answer.
        return {name: loss for name, loss in lost.items() if math.isfinite(loss)}
    counts = counted_predictions(prediction_arrays(labels, answers), labels.classes)
    return {
        name: accuracy.accuracy_drop(counted_right) for name, counted_right in counts.items() if name != FLOAT
    }


LABELLED = "labelled.pkl"
"""The file of labelled samples in the work folder."""


def find_labelled_for_predictions(
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
    from exporter.data import labelled, labels
    from exporter.data.labels.label_source import Model
    from exporter.verify import accuracy

    model = Model(facts.inputs, facts.outputs, facts.preprocessing, facts.labels)
    chosen = labels.task_of_labels(evaluation, model, task)
    if chosen:
        labelled_samples = labels.find_labels(evaluation, model, chosen)
        compare_scores.check_enough_scores(len(labelled_samples.truths))
    else:
        labelled_samples = labelled.find_labelled(
            evaluation, facts.inputs, facts.outputs, facts.preprocessing, facts.labels
        )
        accuracy.check_enough_for_accuracy(len(labelled_samples.labels), max_drop)
    if calibration is not None:
        if calibration.suffix.lower() in (".txt", ".jsonl", ".wav"):
            raise CalibrationError(
                f"--eval cannot be compared with {calibration.name}: labels must not be calibrated on.",
                "Give the calibration data as an .npz of arrays, or leave --eval out.",
            )
        used = data.load_data(calibration, facts.inputs, facts.preprocessing, samples)
        labelled.check_labelled_apart(labelled_samples, used.origins, calibration)
    (work / LABELLED).write_bytes(pickle.dumps(labelled_samples))
    return LabelsResult(
        labelled_samples.kind,
        labelled_samples.classes,
        tuple(int(label) for label in labelled_samples.labels),
        labelled_samples.notes,
        labelled_samples.digest,
        chosen,
    )


def predict_float(work: Path, output: int) -> RankedResult:
    """Predict with the captured model in eager float32.

    Args:
        work: Holds the captured model and `LABELLED`.
        output: Position of the output that says the class.
    """
    from exporter.capture import program
    from exporter.capture.calls import call_runner

    run = call_runner(program.load_program(work).module)
    return _ranked_predictions(lambda sample: run(sample)[output], work)


def predict_artifact(path: Path, variant: Variant, work: Path, output: int) -> RankedResult:
    """Predict with the written file in its own runtime."""
    from exporter.formats import FORMATS

    run, _ = FORMATS[variant.format].load(path, variant, 1)
    return _ranked_predictions(lambda sample: run(sample)[output], work)


def _ranked_predictions(run: Callable[[Sample], Array], work: Path) -> RankedResult:
    from exporter.verify import accuracy

    samples = pickle.loads((work / LABELLED).read_bytes())  # our own file, in our own folder
    rows: list[tuple[int, ...]] = []
    for sample, read in samples.batches():
        for ranked, usable in zip(accuracy.rank_for_accuracy(run(sample)), read, strict=True):
            rows.append(tuple(int(c) if usable else accuracy.UNREAD for c in ranked))
    return RankedResult(tuple(rows[: len(samples.labels)]))
