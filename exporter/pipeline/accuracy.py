"""The accuracy stage: how often float32 and every artifact are right on labelled samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.errors import VerificationError
from exporter.files import PREDICTIONS
from exporter.pipeline import labelled_predictions, results, task_accuracy
from exporter.pipeline.context import Context, Source
from exporter.pipeline.results import CheckedArtifactResult, ExtraResults
from exporter.pipeline.workers.pool import Job
from exporter.records import SHIPPABLE, Accuracy, Artifact, Evaluation, TaskEvaluation
from exporter.verify import accuracy
from exporter.verify.scores import compare_scores


@dataclass(frozen=True)
class EvaluatedAccuracy:
    """The stage's result. Artifact name -> its counts, or why it could not be run on the samples."""

    evaluation: Evaluation
    accuracies: Mapping[str, Accuracy]
    failures: Mapping[str, str]


def find_samples_for_accuracy(context: Context, source: Source) -> results.LabelsResult | None:
    """Find the labelled samples; None when none were asked for.

    Raises:
        CalibrationError: They cannot be used, are too few, or are among the calibration data.
    """
    request = context.request
    if request.evaluation is None:
        return None
    arguments = (
        request.evaluation,
        request.calibration,
        request.samples,
        request.max_drop,
        request.task,
        source.facts,
        context.folders.work,
    )
    (outcome,) = context.run(
        "read", [Job("the labelled samples", labelled_predictions.find_labelled_for_predictions, arguments)]
    )
    labels: results.LabelsResult = outcome.result()
    return labels


def add_accuracy(
    context: Context,
    source: Source,
    built: Sequence[results.BuildResult],
    checked: Mapping[str, CheckedArtifactResult],
    labels: results.LabelsResult,
    existing: labelled_predictions.ArtifactPredictions,
    artifacts: Sequence[Artifact],
    extras: ExtraResults,
) -> tuple[tuple[Artifact, ...], ExtraResults]:
    """Run float32 and every artifact that runs here on the labelled samples; fail those that lose too much.

    Artifacts with `existing` predictions are not run again.
    """
    ran = results.built_and_run_here(built, checked)
    answers = labelled_predictions.predictions_of_artifacts(
        context, source, labels, context.folders.out, ran, context.run, existing
    )
    if labels.task:
        return _add_task_accuracy(context, labels, answers, artifacts, extras)
    evaluated = _evaluated_accuracy(context, labels, answers)
    rows = judge_accuracy(artifacts, evaluated)
    unsure = accuracy_doubt(rows, evaluated.evaluation)
    warnings = (*extras.warnings, unsure) if unsure else extras.warnings
    return rows, replace(extras, evaluation=evaluated.evaluation, warnings=warnings)


def _add_task_accuracy(
    context: Context,
    labels: results.LabelsResult,
    answers: labelled_predictions.ArtifactPredictions,
    artifacts: Sequence[Artifact],
    extras: ExtraResults,
) -> tuple[tuple[Artifact, ...], ExtraResults]:
    """Score float32 and every artifact by the labels' task, as `add_accuracy` counts classes."""
    import numpy as np

    arrays = labelled_predictions.prediction_arrays(labels, answers)
    np.savez_compressed(context.folders.out / PREDICTIONS, **arrays)  # type: ignore[arg-type]
    scored = task_accuracy.task_accuracies(arrays, labels.task, labelled_predictions.FLOAT)
    floats = scored.pop(labelled_predictions.FLOAT)
    limit, unread = context.request.max_drop, len(labels.labels) - floats.count
    evaluation = TaskEvaluation(
        labels.task, labels.kind, limit, floats, (*labels.notes, *_accuracy_of_unread(unread))
    )
    rows = tuple(task_accuracy.judged_task_accuracy(a, scored, answers.failures, limit) for a in artifacts)
    unsure = compare_scores.score_doubt(
        {a.variant.name: a.task_accuracy for a in rows if a.task_accuracy and a.variant.precision != "fp32"},
        limit,
    )
    warnings = (*extras.warnings, unsure) if unsure else extras.warnings
    return rows, replace(extras, task_evaluation=evaluation, warnings=warnings)


def _accuracy_of_unread(count: int) -> tuple[str, ...]:
    return (f"{count} labelled photo(s) cannot be decoded and do not count.",) if count else ()


def _evaluated_accuracy(
    context: Context, labels: results.LabelsResult, answers: labelled_predictions.ArtifactPredictions
) -> EvaluatedAccuracy:
    import numpy as np

    arrays = labelled_predictions.prediction_arrays(labels, answers)
    np.savez_compressed(context.folders.out / PREDICTIONS, **arrays)  # type: ignore[arg-type]
    counts = labelled_predictions.counted_predictions(arrays, labels.classes)
    floats = counts.pop(labelled_predictions.FLOAT)
    notes = (*labels.notes, *_accuracy_of_unread(len(labels.labels) - floats.count))
    evaluation = Evaluation(labels.kind, labels.classes, context.request.max_drop, floats, notes)
    return EvaluatedAccuracy(evaluation, counts, answers.failures)


def accuracy_of_file(path: Path, classes: int) -> dict[str, Accuracy]:
    """Count the predictions in the file of OUT, as `predictions.counted_predictions`.

    Raises:
        VerificationError: It is not such a file.
    """
    from exporter.verify import reference_io

    arrays = reference_io.read_reference_arrays(path)
    try:
        return labelled_predictions.counted_predictions(arrays, classes)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise VerificationError(f"{path.name} holds no answers to labelled samples: {error!r}.") from None


def judge_accuracy(artifacts: Sequence[Artifact], evaluated: EvaluatedAccuracy) -> tuple[Artifact, ...]:
    """Return the artifacts with their accuracy; one that passed fails when it lost too much."""
    return tuple(_judge_artifact_accuracy(artifact, evaluated) for artifact in artifacts)


def _judge_artifact_accuracy(artifact: Artifact, evaluated: EvaluatedAccuracy) -> Artifact:
    name = artifact.variant.name
    counts, reason = evaluated.accuracies.get(name), evaluated.failures.get(name, "")
    if counts is not None:
        reason = accuracy.accuracy_reason(counts, evaluated.evaluation.max_drop)
    artifact = replace(artifact, accuracy=counts)
    if artifact.status in SHIPPABLE and reason:
        return replace(artifact, status="failed", reason=reason)
    return artifact


def accuracy_doubt(artifacts: Sequence[Artifact], evaluation: Evaluation) -> str:
    """Return what the samples cannot decide, without fp32 artifacts, which are proven equal otherwise."""
    counts = {
        a.variant.name: a.accuracy
        for a in artifacts
        if a.accuracy is not None and a.variant.precision != "fp32"
    }
    return accuracy.accuracy_doubt_sentence(counts, evaluation.max_drop)
