"""The accuracy stage: how often float32 and every artifact are right on labelled samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from exporter.errors import VerificationError
from exporter.files import PREDICTIONS
from exporter.pipeline import labelled_predictions, stage_results, task_accuracy
from exporter.pipeline.context import Context, Source
from exporter.pipeline.stage_results import CheckedArtifactResult, ExtraResults
from exporter.pipeline.workers.jobs import Job
from exporter.records import SHIPPABLE, Artifact, Evaluation, TaskAccuracy, TaskEvaluation, TaskName
from exporter.verify import labelled_loss, reference_io
from exporter.verify.labelled_loss import LabelledFigures


def samples_for_accuracy_stage(context: Context, source: Source) -> stage_results.LabelsResult | None:
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
        "read",
        [Job("the labelled samples", labelled_predictions.samples_for_labelled_predictions, arguments)],
    )
    labels: stage_results.LabelsResult = outcome.result()
    return labels


def run_accuracy_stage(
    context: Context,
    source: Source,
    built: Sequence[stage_results.BuildResult],
    checked: Mapping[str, CheckedArtifactResult],
    labels: stage_results.LabelsResult,
    existing: labelled_predictions.ArtifactPredictions,
    artifacts: Sequence[Artifact],
    extras: ExtraResults,
) -> tuple[tuple[Artifact, ...], ExtraResults]:
    """Run float32 and every artifact that runs here on the labelled samples; fail those that lose too much.

    Artifacts with `existing` predictions are not run again.
    """
    ran = stage_results.stage_results_run_here(built, checked)
    answers = labelled_predictions.labelled_predictions_of_artifacts(
        context, source, labels, context.folders.out, ran, context.run, existing
    )
    arrays = labelled_predictions.labelled_prediction_arrays(labels, answers)
    np.savez_compressed(context.folders.out / PREDICTIONS, **arrays)  # type: ignore[arg-type]
    figures = labelled_predictions.figures_of_labelled_predictions(arrays, labels.task, labels.classes)
    floats, limit = figures.pop(labelled_predictions.FLOAT), context.request.max_drop
    rows = judge_in_accuracy_stage(artifacts, figures, answers.failures, limit)
    unsure = accuracy_stage_doubt(rows, limit)
    extras = replace(extras, warnings=(*extras.warnings, unsure) if unsure else extras.warnings)
    unread = len(labels.labels) - floats.count
    unread_notes = [f"{unread} labelled photo(s) cannot be decoded and do not count."] if unread else []
    notes = (*labels.notes, *unread_notes)
    if isinstance(floats, TaskAccuracy):
        task_evaluation = TaskEvaluation(labels.task, labels.kind, limit, floats, notes)
        return rows, replace(extras, task_evaluation=task_evaluation)
    return rows, replace(extras, evaluation=Evaluation(labels.kind, labels.classes, limit, floats, notes))


def accuracy_of_file_in_stage(path: Path, task: TaskName, classes: int) -> dict[str, LabelledFigures]:
    """Count or score again the predictions in the file of OUT, as `figures_of_labelled_predictions`.

    Raises:
        VerificationError: It is not such a file.
    """
    arrays = reference_io.read_reference_io_arrays(path)
    try:
        return labelled_predictions.figures_of_labelled_predictions(arrays, task, classes)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise VerificationError(f"{path.name} holds no answers to labelled samples: {error!r}.") from None


def judge_in_accuracy_stage(
    artifacts: Sequence[Artifact],
    figures: Mapping[str, LabelledFigures],
    failures: Mapping[str, str],
    max_drop: float,
) -> tuple[Artifact, ...]:
    """Return the artifacts with their figures: failed when they lost too much, or perhaps inconclusive.

    A quantised artifact is inconclusive where the samples are too few to prove that it did not. As with the
    agreement of verification, fp32 and fp16 need no such proof: rounding decides few answers there.

    Args:
        artifacts: The report's artifacts.
        figures: Name -> figures of those that ran on the samples.
        failures: Name -> why an artifact did not run on them.
        max_drop: What may be lost.
    """
    judged = []
    for artifact in artifacts:
        own, reason = figures.get(artifact.variant.name), failures.get(artifact.variant.name, "")
        if own is not None:
            reason = labelled_loss.labelled_loss_reason(own, max_drop)
        if isinstance(own, TaskAccuracy):
            artifact = replace(artifact, task_accuracy=own)
        else:
            artifact = replace(artifact, accuracy=own)
        judged.append(_apply_judgement_in_accuracy_stage(artifact, reason, max_drop))
    return tuple(judged)


def _apply_judgement_in_accuracy_stage(artifact: Artifact, reason: str, max_drop: float) -> Artifact:
    """Return an artifact with the status that the labelled samples leave it.

    Args:
        artifact: The artifact, with its figures.
        reason: Why it lost too much or did not run; empty when neither is so.
        max_drop: What may be lost.
    """
    if reason and artifact.status in SHIPPABLE:
        return replace(artifact, status="failed", reason=reason)
    own = artifact.task_accuracy or artifact.accuracy
    if own is None or artifact.status != "passed" or artifact.variant.precision in ("fp32", "fp16"):
        return artifact
    doubt = labelled_loss.unproven_labelled_loss(own, max_drop)
    return replace(artifact, status="inconclusive", reason=doubt) if doubt else artifact


def accuracy_stage_doubt(artifacts: Sequence[Artifact], max_drop: float) -> str:
    """Return what the samples cannot decide of artifacts whose status does not say so.

    fp32 artifacts are left out: they are proven equal otherwise.
    """
    rows = {
        a.variant.name: a.task_accuracy or a.accuracy
        for a in artifacts
        if a.variant.precision != "fp32" and a.status != "inconclusive"
    }
    return labelled_loss.labelled_loss_doubt({name: own for name, own in rows.items() if own}, max_drop)


def are_accuracy_stage_results_equal(one: LabelledFigures | None, other: LabelledFigures) -> bool:
    """Tell whether two records have the same counts, or the same scores up to the last digits."""
    if isinstance(one, TaskAccuracy) and isinstance(other, TaskAccuracy):
        return task_accuracy.equal_task_accuracy(one, other)
    return one == other
