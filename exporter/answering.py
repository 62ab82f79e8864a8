"""Answers to labelled samples, float32's and the artifacts': made once, cached, and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from exporter import accuracy, cache, jobs, labelled, predict
from exporter.context import TORCH, Context, Run, Source, preload_of
from exporter.errors import CalibrationError
from exporter.records import Accuracy, Array
from exporter.stages import CheckedArtifact, ensure_captured
from exporter.workers import Job, Outcome

FLOAT = "float32"
LABELS = "labels"


@dataclass(frozen=True)
class Answers:
    """What was answered to the labelled samples. Name -> answers, or why there are none."""

    found: Mapping[str, predict.Ranked] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)


def merged(known: Answers, more: Mapping[str, Answers]) -> Answers:
    """`known`, and of each of `more` what it holds of the artifact it is named after."""
    found, failures = dict(known.found), dict(known.failures)
    for name, answers in more.items():
        found |= {name: answers.found[name]} if name in answers.found else {}
        failures |= {name: answers.failures[name]} if name in answers.failures else {}
    return Answers(found, failures)


def runnable(built: Sequence[jobs.Built], checked: Mapping[str, CheckedArtifact]) -> tuple[jobs.Built, ...]:
    """What was made and ran here when it was verified."""
    return tuple(b for b in built if b.file and checked[b.variant.name].verdict.comparison is not None)


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
        source: The checkpoint.
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
    keys = _keys(context, source, folder, new)
    kept = {name: context.cache.get("answers", key, predict.Ranked) for name, key in keys.items()}
    found = {name: answers for name, answers in kept.items() if answers is not None} | dict(known.found)
    work = [_job(context, source, folder, b) for b in new if b.variant.name not in found]
    if FLOAT not in found:
        ensure_captured(context)
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
    facts = source.facts
    data = (
        cache.toolchain(),
        context.labelled_digest,
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


def arrays(labels: predict.Labels, answers: Answers) -> dict[str, Array]:
    """Labels and answers by name: as they are kept, and counted from."""
    import numpy as np

    ranked = {name: found.array() for name, found in answers.found.items()}
    return {LABELS: np.array(labels.labels, np.int64)} | ranked


def counted(kept: Mapping[str, object], classes: int) -> dict[str, Accuracy]:
    """Name -> counts of everything in `arrays`, float32 among them."""
    import numpy as np

    labels = np.asarray(kept[LABELS])
    answers = {name: accuracy.Predictions(np.asarray(a)) for name, a in kept.items() if name != LABELS}
    return {name: accuracy.count(labels, found, answers[FLOAT], classes) for name, found in answers.items()}


def drops(labels: predict.Labels, answers: Answers) -> dict[str, float]:
    """Artifact name -> points of top-1 that it lost against float32."""
    counts = counted(arrays(labels, answers), labels.classes)
    return {name: accuracy.drop(found) for name, found in counts.items() if name != FLOAT}
