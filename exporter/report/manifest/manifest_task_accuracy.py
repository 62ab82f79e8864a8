"""A task's measures on labelled samples in `manifest.json`; what follows from them is checked on reading."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from exporter.records import SHIPPABLE, TaskName
from exporter.records import Score as ScoreRecord
from exporter.records import TaskAccuracy as TaskAccuracyRecord
from exporter.records import TaskEvaluation as TaskEvaluationRecord
from exporter.report.manifest.checked_values import Part
from exporter.verify.scores.compare_scores import MEASURES

DERIVED = 1e-6
"""How far a written loss may differ from its values."""


class Score(Part):
    """One measure. `lost` is in `unit`: points (hundredths), dB, or the measure's own numbers if empty."""

    name: str
    value: float | None
    """None when it is not finite, as every figure here."""
    lost: float | None
    lost_interval: tuple[float, float] | None
    unit: Literal["points", "dB", ""]

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in MEASURES:
            raise ValueError(f"{name!r} is no measure")
        return name

    def record(self) -> ScoreRecord:
        value, lost = (math.nan if figure is None else figure for figure in (self.value, self.lost))
        return ScoreRecord(self.name, value, lost, self.lost_interval or (-math.inf, math.inf))


class TaskAccuracy(Part):
    """One model's measures on the labelled samples; the first decides."""

    count: Annotated[int, Field(gt=0)]
    scores: Annotated[tuple[Score, ...], Field(min_length=1)]

    def record(self) -> TaskAccuracyRecord:
        return TaskAccuracyRecord(self.count, tuple(score.record() for score in self.scores))


class TaskEvaluation(Part):
    """The labelled samples of a task, and eager float32's measures on them."""

    task: TaskName
    kind: Literal["photos", "arrays"]
    max_drop: float
    float32: TaskAccuracy
    notes: tuple[str, ...] = ()

    def record(self) -> TaskEvaluationRecord:
        return TaskEvaluationRecord(self.task, self.kind, self.max_drop, self.float32.record(), self.notes)


def manifest_task_accuracy_contradiction(
    status: str, own: TaskAccuracy, evaluation: TaskEvaluation | None
) -> str:
    """Return why an artifact's measures cannot be true; empty when they can."""
    if evaluation is None or own.count != evaluation.float32.count:
        return "measures on other samples than float32's"
    floats = {score.name: score.value for score in evaluation.float32.scores}
    if [score.name for score in own.scores] != list(floats):
        return "other measures than float32's"
    for score in own.scores:
        before = floats[score.name]
        if score.value is None or score.lost is None or before is None:
            continue
        measure = MEASURES[score.name]
        lost = measure.better * (100 if measure.unit == "points" else 1) * (before - score.value)
        if abs(lost - score.lost) > DERIVED * max(1, abs(lost)):
            return f"{score.name} lost {score.lost}, but the values give {lost}"
    first = own.scores[0]
    if status in SHIPPABLE and (first.lost is None or first.lost > evaluation.max_drop):
        return f"{status}, but lost {first.lost} {first.unit} of {first.name}"
    return ""


def dump_manifest_task_accuracy(record: TaskAccuracyRecord) -> dict[str, Any]:
    return {"count": record.count, "scores": [_dump_manifest_task_score(score) for score in record.scores]}


def _dump_manifest_task_score(score: ScoreRecord) -> dict[str, Any]:
    finite = all(map(math.isfinite, score.interval))
    return {
        "name": score.name,
        "value": score.value if math.isfinite(score.value) else None,
        "lost": score.lost if math.isfinite(score.lost) else None,
        "lost_interval": score.interval if finite else None,
        "unit": MEASURES[score.name].unit,
    }


def dump_manifest_task_accuracy_evaluation(evaluation: TaskEvaluationRecord) -> dict[str, Any]:
    return {
        "task": evaluation.task,
        "kind": evaluation.kind,
        "max_drop": evaluation.max_drop,
        "float32": dump_manifest_task_accuracy(evaluation.reference),
        "notes": evaluation.notes,
    }
