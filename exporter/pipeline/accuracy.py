"""The accuracy stage: how often float32 and every artifact are right on labelled samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.errors import VerificationError
from exporter.files import PREDICTIONS
from exporter.pipeline import predictions, results
from exporter.pipeline.context import Context, Source
from exporter.pipeline.results import CheckedArtifact, Extras
from exporter.pipeline.workers.pool import Job
from exporter.records import Accuracy, Artifact, Evaluation
from exporter.verify import accuracy


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
    evaluated = _evaluated(context, labels, answers)
    rows = judged(artifacts, evaluated)
    unsure = doubt(rows, evaluated.evaluation)
    warnings = (*extras.warnings, unsure) if unsure else extras.warnings
    return rows, replace(extras, evaluation=evaluated.evaluation, warnings=warnings)


def _evaluated(context: Context, labels: results.Labels, answers: predictions.Answers) -> Evaluated:
    import numpy as np

    arrays = predictions.arrays(labels, answers)
    np.savez_compressed(context.folders.out / PREDICTIONS, **arrays)  # type: ignore[arg-type]
    counts = predictions.counted(arrays, labels.classes)
    floats = counts.pop(predictions.FLOAT)
    unread = len(labels.labels) - floats.count
    notes = (
        *labels.notes,
        *([f"{unread} labelled photo(s) cannot be decoded and do not count."] * bool(unread)),
    )
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
