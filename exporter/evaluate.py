"""The stages of what is measured on request: accuracy on labelled samples, and how many to calibrate on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exporter import accuracy, cache, curve, jobs, labelled, predict
from exporter.errors import CalibrationError, VerificationError
from exporter.formats import FORMATS
from exporter.records import Accuracy, Artifact, CurvePoint, Evaluation, MixedPoint
from exporter.stages import TORCH, CheckedArtifact, Context, Source, captured, preload_of
from exporter.workers import Job, Outcome

PREDICTIONS = "accuracy.npz"
"""In OUT: the labels, and the five likeliest classes that float32 and every artifact gave for each sample."""
FLOAT = "float32"
LABELS = "labels"


@dataclass(frozen=True)
class Extras:
    """What was measured on request, for the report."""

    evaluation: Evaluation | None = None
    curve: tuple[CurvePoint, ...] = ()
    warnings: tuple[str, ...] = ()
    mixed_points: tuple[MixedPoint, ...] = ()


@dataclass(frozen=True)
class Evaluated:
    """What the stage found. Artifact name -> its counts, or why it could not be run on the samples."""

    evaluation: Evaluation
    accuracies: Mapping[str, Accuracy]
    failures: Mapping[str, str]


def find(context: Context, source: Source) -> predict.Labels | None:
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
    (outcome,) = context.run("read", [Job("the labelled samples", predict.find_labelled, arguments)])
    found: predict.Labels = outcome.result()
    return found


def accurate(
    context: Context,
    source: Source,
    built: Sequence[jobs.Built],
    checked: Mapping[str, CheckedArtifact],
    labels: predict.Labels,
    artifacts: Sequence[Artifact],
    extras: Extras,
) -> tuple[tuple[Artifact, ...], Extras]:
    """Run float32 and every artifact that runs here on the labelled samples; fail what lost too much."""
    found = _run(context, source, built, checked, labels)
    rows = judged(artifacts, found)
    unsure = doubt(rows, found.evaluation)
    warnings = (*extras.warnings, unsure) if unsure else extras.warnings
    return rows, replace(extras, evaluation=found.evaluation, warnings=warnings)


def _run(
    context: Context,
    source: Source,
    built: Sequence[jobs.Built],
    checked: Mapping[str, CheckedArtifact],
    labels: predict.Labels,
) -> Evaluated:
    import numpy as np

    ran = [b for b in built if b.file and checked[b.variant.name].verdict.comparison is not None]
    found, failures = _predictions(context, source, ran)
    arrays = {LABELS: np.array(labels.labels, np.int64)} | {name: r.array() for name, r in found.items()}
    np.savez_compressed(context.folders.out / PREDICTIONS, **arrays)  # type: ignore[arg-type]
    counts = counted(arrays, labels.classes)
    if counts[FLOAT].count == 0:
        raise CalibrationError("--eval: none of its photos can be decoded.")
    accuracy.check_enough(counts[FLOAT].count, context.request.max_drop)
    unread = len(labels.labels) - counts[FLOAT].count
    notes = (
        *labels.notes,
        *([f"{unread} labelled photo(s) cannot be decoded and do not count."] * bool(unread)),
    )
    evaluation = Evaluation(labels.kind, labels.classes, context.request.max_drop, counts.pop(FLOAT), notes)
    return Evaluated(evaluation, counts, failures)


def _predictions(
    context: Context, source: Source, ran: Sequence[jobs.Built]
) -> tuple[dict[str, predict.Ranked], dict[str, str]]:
    """Name -> answers, the cache's where it has them; and name -> why there are none."""
    keys = _keys(context, source, ran)
    kept = {name: context.cache.get("answers", key, predict.Ranked) for name, key in keys.items()}
    found = {name: answers for name, answers in kept.items() if answers is not None}
    if FLOAT not in found:
        source = captured(context, source)
    missing = [b for b in ran if b.variant.name not in found]
    work = ([] if FLOAT in found else [_float_job(context, source)]) + [
        _job(context, source, built) for built in missing
    ]
    failures: dict[str, str] = {}

    def on_outcome(outcome: Outcome) -> None:
        name = outcome.job.label
        if outcome.error is None:
            found[name] = outcome.value
            context.cache.put("answers", keys[name], outcome.value)
        else:
            failures[name] = f"It does not run on the labelled samples: {outcome.error}"

    outcomes = context.run("accuracy", work, on_outcome) if work else []
    for outcome in outcomes:
        if outcome.job.label == FLOAT:
            outcome.result()
    return found, failures


def _keys(context: Context, source: Source, ran: Sequence[jobs.Built]) -> dict[str, str]:
    """Cache keys: of the samples, how they become inputs, and what runs on them."""
    evaluation, facts = context.request.evaluation, source.facts
    assert evaluation is not None
    data = (
        cache.toolchain(),
        cache.digest_path(evaluation),
        facts.inputs,
        facts.outputs,
        facts.preprocessing,
        facts.labels,
    )
    keys = {b.variant.name: _key(context, b, data) for b in ran}
    model = facts.digest or source.key  # the graph and its weights, or what they were read from
    return keys | {FLOAT: cache.key("float32", model, data) if model else ""}


def _key(context: Context, built: jobs.Built, data: tuple[object, ...]) -> str:
    return cache.key(built.variant, cache.digest_path(context.folders.out / str(built.file)), data)


def _float_job(context: Context, source: Source) -> Job:
    output = labelled.answers(source.facts.outputs)
    return Job(FLOAT, predict.predict_float, (context.folders.work, output), preload=TORCH, cost_s=8)


def _job(context: Context, source: Source, built: jobs.Built) -> Job:
    return Job(
        built.variant.name,
        predict.predict_artifact,
        (
            context.folders.out / str(built.file),
            built.variant,
            context.folders.work,
            labelled.answers(source.facts.outputs),
        ),
        preload=preload_of(built.variant),
        cost_s=built.variant.cost_s,
    )


@dataclass(frozen=True)
class Curve:
    """As the cache keeps it."""

    points: tuple[CurvePoint, ...]


def calibration_curve(context: Context, source: Source) -> Extras:
    """Int8 against the number of calibration samples; a warning where it could not be measured."""
    key = cache.key("curve", cache.toolchain(), source.key) if source.key else ""
    if (kept := context.cache.get("curve", key, Curve)) is not None:
        return _curved(kept.points)
    captured(context, source)
    job = Job(
        "calibration samples",
        predict.calibration_curve,
        (context.folders.work, context.evidence),
        preload=(*TORCH, *FORMATS["executorch"].PRELOAD),
    )
    (outcome,) = context.run("curve", [job])
    if outcome.error is not None:
        return Extras(warnings=(f"--calibration-curve could not be measured: {outcome.error}",))
    context.cache.put("curve", key, Curve(outcome.value))
    return _curved(outcome.value)


def _curved(points: tuple[CurvePoint, ...]) -> Extras:
    more = curve.warning(points)
    return Extras(curve=points, warnings=(more,) if more else ())


def counted(arrays: Mapping[str, object], classes: int) -> dict[str, Accuracy]:
    """Name -> counts of everything in `PREDICTIONS`, float32 among them."""
    import numpy as np

    labels = np.asarray(arrays[LABELS])
    answers = {name: accuracy.Predictions(np.asarray(a)) for name, a in arrays.items() if name != LABELS}
    return {name: accuracy.count(labels, found, answers[FLOAT], classes) for name, found in answers.items()}


def counted_file(path: Path, classes: int) -> dict[str, Accuracy]:
    """As `counted`, from the file that lies in OUT.

    Raises:
        VerificationError: It is not such a file.
    """
    from exporter import evidence

    found = evidence.arrays(path)
    try:
        return counted(found, classes)
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
