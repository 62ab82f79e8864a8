"""The stages of what is measured on request: accuracy on labelled samples, and how many to calibrate on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from exporter import accuracy, cache, curve, jobs, labelled, predict
from exporter.context import TORCH, Context, Run, Source, preload_of
from exporter.errors import CalibrationError, VerificationError
from exporter.formats import FORMATS
from exporter.records import Accuracy, Array, Artifact, CurvePoint, Evaluation, MixedPoint
from exporter.stages import CheckedArtifact, captured
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


@dataclass(frozen=True)
class Answers:
    """What was answered to the labelled samples. Name -> answers, or why there are none."""

    found: Mapping[str, predict.Ranked] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)


def accurate(
    context: Context,
    source: Source,
    built: Sequence[jobs.Built],
    checked: Mapping[str, CheckedArtifact],
    labels: predict.Labels,
    known: Answers,
    artifacts: Sequence[Artifact],
    extras: Extras,
) -> tuple[tuple[Artifact, ...], Extras]:
    """Run float32 and every artifact that runs here on the labelled samples; fail what lost too much.

    What is `known` is not run again.
    """
    ran = runnable(built, checked)
    found = _evaluated(context, labels, answer(context, source, context.folders.out, ran, context.run, known))
    rows = judged(artifacts, found)
    unsure = doubt(rows, found.evaluation)
    warnings = (*extras.warnings, unsure) if unsure else extras.warnings
    return rows, replace(extras, evaluation=found.evaluation, warnings=warnings)


def runnable(built: Sequence[jobs.Built], checked: Mapping[str, CheckedArtifact]) -> tuple[jobs.Built, ...]:
    """What was made and ran here when it was verified."""
    return tuple(b for b in built if b.file and checked[b.variant.name].verdict.comparison is not None)


def _evaluated(context: Context, labels: predict.Labels, answers: Answers) -> Evaluated:
    import numpy as np

    arrays = _arrays(labels, answers)
    np.savez_compressed(context.folders.out / PREDICTIONS, **arrays)  # type: ignore[arg-type]
    counts = counted(arrays, labels.classes)
    unread = len(labels.labels) - counts[FLOAT].count
    notes = (
        *labels.notes,
        *([f"{unread} labelled photo(s) cannot be decoded and do not count."] * bool(unread)),
    )
    evaluation = Evaluation(labels.kind, labels.classes, context.request.max_drop, counts.pop(FLOAT), notes)
    return Evaluated(evaluation, counts, answers.failures)


def drops(labels: predict.Labels, answers: Answers) -> dict[str, float]:
    """Artifact name -> points of top-1 that it lost against float32."""
    counts = counted(_arrays(labels, answers), labels.classes)
    return {name: accuracy.drop(found) for name, found in counts.items() if name != FLOAT}


def _arrays(labels: predict.Labels, answers: Answers) -> dict[str, Array]:
    """As `PREDICTIONS` holds them."""
    import numpy as np

    ranked = {name: found.array() for name, found in answers.found.items()}
    return {LABELS: np.array(labels.labels, np.int64)} | ranked


def answer(
    context: Context,
    source: Source,
    folder: Path,
    ran: Sequence[jobs.Built],
    run: Run,
    known: Answers,
) -> Answers:
    """What float32 and artifacts answer to the labelled samples; the cache's answers where it has them.

    Args:
        context: Of the run; its work folder holds the labelled samples.
        source: With or without the captured model.
        folder: Where the artifacts lie.
        ran: The artifacts to run.
        run: What runs the jobs, as `Context.run`.
        known: Answers that need not be made again; float32's above all.

    Returns:
        `known` with all that were added.

    Raises:
        CalibrationError: Too few of the samples can be read.
    """
    keys = _keys(context, source, folder, [b for b in ran if b.variant.name not in known.failures])
    keys = {name: key for name, key in keys.items() if name not in known.found}
    kept = {name: context.cache.get("answers", key, predict.Ranked) for name, key in keys.items()}
    found = dict(known.found) | {name: answers for name, answers in kept.items() if answers is not None}
    missing = keys.keys() - found.keys()
    work = [_job(context, source, folder, b) for b in ran if b.variant.name in missing]
    if FLOAT in missing:
        source = captured(context, source)
        work.insert(0, _float_job(context, source))
    failures = dict(known.failures)

    def on_outcome(outcome: Outcome) -> None:
        name = outcome.job.label
        if outcome.error is None:
            found[name] = outcome.value
            context.cache.put("answers", keys[name], outcome.value)
        else:
            failures[name] = f"It does not run on the labelled samples: {outcome.error}"

    for outcome in run("accuracy", work, on_outcome) if work else []:
        if outcome.job.label == FLOAT:
            outcome.result()
    _check_read(found[FLOAT], context.request.max_drop)
    return Answers(found, failures)


def _check_read(floats: predict.Ranked, max_drop: float) -> None:
    read = sum(row[0] != accuracy.UNREAD for row in floats.rows)
    if read == 0:
        raise CalibrationError("--eval: none of its photos can be decoded.")
    accuracy.check_enough(read, max_drop)


def _keys(context: Context, source: Source, folder: Path, ran: Sequence[jobs.Built]) -> dict[str, str]:
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
    keys = {b.variant.name: _key(folder, b, data) for b in ran}
    model = facts.digest or source.key  # the graph and its weights, or what they were read from
    return keys | {FLOAT: cache.key("float32", model, data) if model else ""}


def _key(folder: Path, built: jobs.Built, data: tuple[object, ...]) -> str:
    return cache.key(built.variant, cache.digest_path(folder / str(built.file)), data)


def _float_job(context: Context, source: Source) -> Job:
    output = labelled.answers(source.facts.outputs)
    return Job(FLOAT, predict.predict_float, (context.folders.work, output), preload=TORCH, cost_s=8)


def _job(context: Context, source: Source, folder: Path, built: jobs.Built) -> Job:
    return Job(
        built.variant.name,
        predict.predict_artifact,
        (
            folder / str(built.file),
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
