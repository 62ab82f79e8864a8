"""The accuracy stage: how often float32 and every artifact are right on labelled samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.errors import VerificationError
from exporter.files import PREDICTIONS
from exporter.pipeline import predictions, results, task_accuracy
from exporter.pipeline.context import Context, Source
from exporter.pipeline.results import CheckedArtifact, Extras
from exporter.pipeline.workers.pool import Job
from exporter.records import Accuracy, Artifact, Evaluation, TaskEvaluation
from exporter.verify import accuracy
from exporter.verify.scores import compare


@dataclass(frozen=True)
class Evaluated:
    """The stage's result. Artifact name -> its counts, or why it could not be run on the samples."""

    evaluation: Evaluation
    accuracies: Mapping[str, Accuracy]
    failures: Mapping[str, str]


def find(context: Context, source: Source) -> results.Labels | None:
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
    (outcome,) = context.run("read", [Job("the labelled samples", predictions.find_labelled, arguments)])
    labels: results.Labels = outcome.result()
    return labels


def accurate(
    context: Context,
    source: Source,
    built: Sequence[results.Built],
    checked: Mapping[str, CheckedArtifact],
    labels: results.Labels,
    existing: predictions.Answers,
    artifacts: Sequence[Artifact],
    extras: Extras,
) -> tuple[tuple[Artifact, ...], Extras]:
    """Run float32 and every artifact that runs here on the labelled samples; fail those that lose too much.

    Artifacts with `existing` predictions are not run again.
    """
    ran = predictions.runnable(built, checked)
    answers = predictions.answer(context, source, labels, context.folders.out, ran, context.run, existing)
    if labels.task:
        return _task_accurate(context, labels, answers, artifacts, extras)
    evaluated = _evaluated(context, labels, answers)
    rows = judged(artifacts, evaluated)
    unsure = doubt(rows, evaluated.evaluation)
    warnings = (*extras.warnings, unsure) if unsure else extras.warnings
    return rows, replace(extras, evaluation=evaluated.evaluation, warnings=warnings)


def _task_accurate(
    context: Context,
    labels: results.Labels,
    answers: predictions.Answers,
    artifacts: Sequence[Artifact],
    extras: Extras,
) -> tuple[tuple[Artifact, ...], Extras]:
    """Score float32 and every artifact by the labels' task, as `accurate` counts classes."""
    import numpy as np

    arrays = predictions.arrays(labels, answers)
    np.savez_compressed(context.folders.out / PREDICTIONS, **arrays)  # type: ignore[arg-type]
    scored = task_accuracy.accuracies(arrays, labels.task, predictions.FLOAT)
    floats = scored.pop(predictions.FLOAT)
    limit, unread = context.request.max_drop, len(labels.labels) - floats.count
    evaluation = TaskEvaluation(labels.task, labels.kind, limit, floats, (*labels.notes, *_unread(unread)))
    rows = tuple(task_accuracy.judged(a, scored, answers.failures, limit) for a in artifacts)
    unsure = compare.doubt(
        {a.variant.name: a.task_accuracy for a in rows if a.task_accuracy and a.variant.precision != "fp32"},
        limit,
    )
    warnings = (*extras.warnings, unsure) if unsure else extras.warnings
    return rows, replace(extras, task_evaluation=evaluation, warnings=warnings)


def _unread(count: int) -> tuple[str, ...]:
    return (f"{count} labelled photo(s) cannot be decoded and do not count.",) if count else ()


def _evaluated(context: Context, labels: results.Labels, answers: predictions.Answers) -> Evaluated:
    import numpy as np

    arrays = predictions.arrays(labels, answers)
    np.savez_compressed(context.folders.out / PREDICTIONS, **arrays)  # type: ignore[arg-type]
    counts = predictions.counted(arrays, labels.classes)
    floats = counts.pop(predictions.FLOAT)
    notes = (*labels.notes, *_unread(len(labels.labels) - floats.count))
    evaluation = Evaluation(labels.kind, labels.classes, context.request.max_drop, floats, notes)
    return Evaluated(evaluation, counts, answers.failures)


def counted_file(path: Path, classes: int) -> dict[str, Accuracy]:
    """Count the predictions in the file of OUT, as `predictions.counted`.

    Raises:
        VerificationError: It is not such a file.
    """
    from exporter.verify import reference_io

    arrays = reference_io.arrays(path)
    try:
        return predictions.counted(arrays, classes)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise VerificationError(f"{path.name} holds no answers to labelled samples: {error!r}.") from None


def judged(artifacts: Sequence[Artifact], evaluated: Evaluated) -> tuple[Artifact, ...]:
    """Return the artifacts with their accuracy; one that passed fails when it lost too much."""
    return tuple(_judged(artifact, evaluated) for artifact in artifacts)


def _judged(artifact: Artifact, evaluated: Evaluated) -> Artifact:
    name = artifact.variant.name
    counts, reason = evaluated.accuracies.get(name), evaluated.failures.get(name, "")
    if counts is not None:
        reason = accuracy.reason(counts, evaluated.evaluation.max_drop)
    artifact = replace(artifact, accuracy=counts)
    if artifact.status == "passed" and reason:
        return replace(artifact, status="failed", reason=reason)
    return artifact


def doubt(artifacts: Sequence[Artifact], evaluation: Evaluation) -> str:
    """Return what the samples cannot decide, without fp32 artifacts, which are proven equal otherwise."""
    counts = {
        a.variant.name: a.accuracy
        for a in artifacts
        if a.accuracy is not None and a.variant.precision != "fp32"
    }
    return accuracy.doubt(counts, evaluation.max_drop)
