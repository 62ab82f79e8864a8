"""The predictions of float32 and of every artifact on labelled samples."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from exporter import files
from exporter.data import labelled
from exporter.errors import CalibrationError
from exporter.pipeline import cache, results
from exporter.pipeline.context import TORCH, Context, Run, Source, preload_of
from exporter.pipeline.read import ensure_captured
from exporter.pipeline.results import CheckedArtifact, Facts, Labels, Ranked
from exporter.pipeline.steps import Step, cached
from exporter.pipeline.workers.pool import Job
from exporter.records import Accuracy, Array, Sample, Variant
from exporter.verify import accuracy

FLOAT = "float32"
LABELS = "labels"


@dataclass(frozen=True)
class Answers:
    """What was answered to the labelled samples. Name -> answers, or why there are none."""

    found: Mapping[str, results.Ranked] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)


def merged(known: Answers, more: Mapping[str, Answers]) -> Answers:
    """`known`, and of each of `more` what it holds of the artifact it is named after."""
    found, failures = dict(known.found), dict(known.failures)
    for name, answers in more.items():
        found |= {name: answers.found[name]} if name in answers.found else {}
        failures |= {name: answers.failures[name]} if name in answers.failures else {}
    return Answers(found, failures)


def runnable(
    built: Sequence[results.Built], checked: Mapping[str, CheckedArtifact]
) -> tuple[results.Built, ...]:
    """What was made and ran here when it was verified."""
    return tuple(b for b in built if b.file and checked[b.variant.name].verdict.comparison is not None)


def answer(
    context: Context,
    source: Source,
    labels: Labels,
    folder: Path,
    ran: Sequence[results.Built],
    run: Run,
    known: Answers,
) -> Answers:
    """What float32 and artifacts answer to the labelled samples; the cache's answers where it has them.

    Args:
        context: Of the run; its work folder holds the labelled samples.
        source: The checkpoint.
        labels: Of the labelled samples.
        folder: Where the artifacts lie.
        ran: The artifacts to run.
        run: What runs the jobs, as `Context.run`.
        known: Answers that need not be made again; float32's above all.

    Returns:
        `known` with all that were added.

    Raises:
        CalibrationError: Too few of the samples can be read.
    """
    new = [b for b in ran if b.variant.name not in known.found.keys() | known.failures.keys()]
    if FLOAT in known.found and not new:
        return known
    keys = _keys(source, labels, folder, new)
    jobs = {b.variant.name: _job(context, source, folder, b) for b in new}
    if FLOAT not in known.found:
        jobs = {FLOAT: _float_job(context, source)} | jobs
    steps = [
        Step(
            "predictions",
            keys[name],
            results.Ranked,
            functools.partial(_given, job),
            failed=functools.partial(_failure, name),
        )
        for name, job in jobs.items()
    ]

    def prepare() -> None:
        if FLOAT in jobs:
            ensure_captured(context, source)

    answers = dict(zip(jobs, cached(run, context.cache, "accuracy", steps, prepare), strict=True))
    found = {name: a for name, a in answers.items() if not isinstance(a, str)} | dict(known.found)
    failures = dict(known.failures) | {name: a for name, a in answers.items() if isinstance(a, str)}
    _check_read(found[FLOAT], context.request.max_drop)
    return Answers(found, failures)


def _given(job: Job, _: object) -> Job:
    return job


def _failure(name: str, error: Exception) -> str:
    """Why an artifact has no predictions; without float32's there is nothing to compare with."""
    if name == FLOAT or isinstance(error, CalibrationError):  # the samples were changed
        raise error
    return f"It does not run on the labelled samples: {error}"


def _check_read(floats: results.Ranked, max_drop: float) -> None:
    read = sum(row[0] != accuracy.UNREAD for row in floats.rows)
    if read == 0:
        raise CalibrationError("--eval: none of its photos can be decoded.")
    accuracy.check_enough(read, max_drop)


def _keys(source: Source, labels: Labels, folder: Path, ran: Sequence[results.Built]) -> dict[str, str]:
    """Cache keys: of the samples, how they become inputs, and what runs on them."""
    facts = source.facts
    data = (
        cache.toolchain(),
        labels.digest,
        facts.inputs,
        facts.outputs,
        facts.preprocessing,
        facts.labels,
    )
    keys = {b.variant.name: _key(folder, b, data) for b in ran}
    model = facts.digest or source.key  # the graph and its weights, or what they were read from
    return keys | {FLOAT: cache.key("float32", model, data) if model else ""}


def _key(folder: Path, built: results.Built, data: tuple[object, ...]) -> str:
    return cache.key(built.variant, files.digest_path(folder / str(built.file)), data)


def _float_job(context: Context, source: Source) -> Job:
    output = labelled.answers(source.facts.outputs)
    return Job(FLOAT, predict_float, (context.folders.work, output), preload=TORCH, cost_s=8)


def _job(context: Context, source: Source, folder: Path, built: results.Built) -> Job:
    return Job(
        built.variant.name,
        predict_artifact,
        (
            folder / str(built.file),
            built.variant,
            context.folders.work,
            labelled.answers(source.facts.outputs),
        ),
        preload=preload_of(built.variant),
        cost_s=built.variant.cost_s,
        read_only=True,
    )


def arrays(labels: results.Labels, answers: Answers) -> dict[str, Array]:
    """Labels and answers by name: as they are kept, and counted from."""
    ranked = {name: found.array() for name, found in answers.found.items()}
    return {LABELS: np.array(labels.labels, np.int64)} | ranked


def counted(kept: Mapping[str, object], classes: int) -> dict[str, Accuracy]:
    """Name -> counts of everything in `arrays`, float32 among them."""
    labels = np.asarray(kept[LABELS])
    answers = {name: accuracy.Predictions(np.asarray(a)) for name, a in kept.items() if name != LABELS}
    return {name: accuracy.count(labels, found, answers[FLOAT], classes) for name, found in answers.items()}


def drops(labels: results.Labels, answers: Answers) -> dict[str, float]:
    """Artifact name -> points of top-1 that it lost against float32."""
    counts = counted(arrays(labels, answers), labels.classes)
    return {name: accuracy.drop(found) for name, found in counts.items() if name != FLOAT}


LABELLED = "labelled.pkl"
"""In the work folder."""


def find_labelled(
    evaluation: Path, calibration: Path | None, samples: int, max_drop: float, facts: Facts, work: Path
) -> Labels:
    """Find the labelled samples, check that they may judge, and leave them in the work folder.

    Args:
        evaluation: What `--eval` names.
        calibration: What `--calibration` names; none of it may be in the evaluation.
        samples: Calibration samples asked for.
        max_drop: Points that must be measurable.
        facts: The model's inputs, outputs, preprocessing and class names.
        work: Where `LABELLED` is written.

    Raises:
        CalibrationError: The data cannot be used, is too little, or was calibrated on.
    """
    from exporter import data
    from exporter.data import labelled
    from exporter.verify import accuracy

    found = labelled.find(evaluation, facts.inputs, facts.outputs, facts.preprocessing, facts.labels)
    accuracy.check_enough(len(found.labels), max_drop)
    if calibration is not None:
        used = data.load(calibration, facts.inputs, facts.preprocessing, samples)
        labelled.check_apart(found, used.origins, calibration)
    (work / LABELLED).write_bytes(pickle.dumps(found))
    labels = tuple(int(label) for label in found.labels)
    return Labels(found.kind, found.classes, labels, found.notes, found.digest)


def predict_float(work: Path, output: int) -> Ranked:
    """What the captured model answers, in eager float32.

    Args:
        work: Holds the captured model and `LABELLED`.
        output: Position of the output that says the class.
    """
    from exporter.capture import program
    from exporter.capture.calls import runner

    run = runner(program.load(work).module)
    return _ranked(lambda sample: run(sample)[output], work)


def predict_artifact(path: Path, variant: Variant, work: Path, output: int) -> Ranked:
    """What the written file answers in its own runtime."""
    from exporter.formats import FORMATS

    run, _ = FORMATS[variant.format].load(path, variant, 1)
    return _ranked(lambda sample: run(sample)[output], work)


def _ranked(run: Callable[[Sample], Array], work: Path) -> Ranked:
    from exporter.verify import accuracy

    found = pickle.loads((work / LABELLED).read_bytes())  # our own file, in our own folder
    rows: list[tuple[int, ...]] = []
    for sample, read in found.batches():
        for ranked, usable in zip(accuracy.rank(run(sample)), read, strict=True):
            rows.append(tuple(int(c) if usable else accuracy.UNREAD for c in ranked))
    return Ranked(tuple(rows[: len(found.labels)]))
