"""The stages of what is measured on request: accuracy on labelled samples, and how many to calibrate on."""

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
    """What the stage found. Artifact name -> its counts, or why it could not be run on the samples."""

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
    found: results.Labels = outcome.result()
    return found


def accurate(
    context: Context,
    source: Source,
    built: Sequence[results.Built],
    checked: Mapping[str, CheckedArtifact],
    labels: results.Labels,
    known: predictions.Answers,
    artifacts: Sequence[Artifact],
    extras: Extras,
) -> tuple[tuple[Artifact, ...], Extras]:
    """Run float32 and every artifact that runs here on the labelled samples; fail what lost too much.

    What is `known` is not run again.
    """
    ran = predictions.runnable(built, checked)
    answers = predictions.answer(context, source, labels, context.folders.out, ran, context.run, known)
    found = _evaluated(context, labels, answers)
    rows = judged(artifacts, found)
    unsure = doubt(rows, found.evaluation)
    warnings = (*extras.warnings, unsure) if unsure else extras.warnings
    return rows, replace(extras, evaluation=found.evaluation, warnings=warnings)


def _evaluated(context: Context, labels: results.Labels, found: predictions.Answers) -> Evaluated:
    import numpy as np

    arrays = predictions.arrays(labels, found)
    np.savez_compressed(context.folders.out / PREDICTIONS, **arrays)  # type: ignore[arg-type]
    counts = predictions.counted(arrays, labels.classes)
    floats = counts.pop(predictions.FLOAT)
    unread = len(labels.labels) - floats.count
    notes = (
        *labels.notes,
        *([f"{unread} labelled photo(s) cannot be decoded and do not count."] * bool(unread)),
    )
    evaluation = Evaluation(labels.kind, labels.classes, context.request.max_drop, floats, notes)
    return Evaluated(evaluation, counts, found.failures)


def counted_file(path: Path, classes: int) -> dict[str, Accuracy]:
    """As `answering.counted`, from the file that lies in OUT.

    Raises:
        VerificationError: It is not such a file.
    """
    from exporter.verify import reference_io

    found = reference_io.arrays(path)
    try:
        return predictions.counted(found, classes)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise VerificationError(f"{path.name} holds no answers to labelled samples: {error!r}.") from None


def judged(artifacts: Sequence[Artifact], found: Evaluated) -> tuple[Artifact, ...]:
    """The artifacts with what they got right; one that passed fails when it lost too much."""
    return tuple(_judged(artifact, found) for artifact in artifacts)


def _judged(artifact: Artifact, found: Evaluated) -> Artifact:
    name = artifact.variant.name
    counts, reason = found.accuracies.get(name), found.failures.get(name, "")
    if counts is not None:
        reason = accuracy.reason(counts, found.evaluation.max_drop)
    artifact = replace(artifact, accuracy=counts)
    if artifact.status == "passed" and reason:
        return replace(artifact, status="failed", reason=reason)
    return artifact


def doubt(artifacts: Sequence[Artifact], evaluation: Evaluation) -> str:
    """What the samples cannot tell; fp32 artifacts are left out, which were proven equal in other ways."""
    counts = {
        a.variant.name: a.accuracy
        for a in artifacts
        if a.accuracy is not None and a.variant.precision != "fp32"
    }
    return accuracy.doubt(counts, evaluation.max_drop)
