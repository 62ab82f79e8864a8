"""Accuracy in `manifest.json`: counts, and figures derived from them, which are checked on reading."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from exporter.records import Accuracy as AccuracyRecord
from exporter.records import Count
from exporter.records import Evaluation as EvaluationRecord
from exporter.report.manifest.checked_values import Fraction, Part
from exporter.verify import accuracy

DERIVED = 1e-9
"""How far a written share may differ from its counts."""


class Accuracy(Part):
    """An artifact's accuracy on labelled samples. Shares are 0 to 1, drops are points, intervals are 95 %."""

    count: Annotated[int, Field(gt=0)]
    right: Count
    right5: Count | None
    lost: Count
    gained: Count
    same: Count
    top1: Fraction
    top5: Fraction | None
    top1_interval: tuple[Fraction, Fraction]
    drop_points: float
    drop_interval_points: tuple[float, float]

    @model_validator(mode="after")
    def _follows(self) -> Accuracy:
        record = self.record()
        if max(record.right, record.right5 or 0, record.right + record.lost, record.same) > record.count:
            raise ValueError("counts more than there are samples")
        expected = derive_manifest_accuracy(record)
        for name in ("top1", "top5", "drop_points"):
            claimed, true = getattr(self, name), expected[name]
            if (claimed is None) != (true is None) or abs((claimed or 0) - (true or 0)) > DERIVED:
                raise ValueError(f"{name} is {claimed}, but the counts give {true}")
        return self

    def record(self) -> AccuracyRecord:
        return AccuracyRecord(self.count, self.right, self.right5, self.lost, self.gained, self.same)


class Evaluation(Part):
    """The labelled data, and eager float32's accuracy on them."""

    kind: Literal["photos", "arrays"]
    classes: Count
    max_drop_points: float
    float32: Accuracy
    notes: tuple[str, ...] = ()

    def record(self) -> EvaluationRecord:
        return EvaluationRecord(
            self.kind, self.classes, self.max_drop_points, self.float32.record(), self.notes
        )


def derive_manifest_accuracy(record: AccuracyRecord) -> dict[str, Any]:
    """Compute the figures that follow from the counts."""
    return {
        "top1": accuracy.accuracy_share(record.right, record.count),
        "top5": None if record.right5 is None else accuracy.accuracy_share(record.right5, record.count),
        "top1_interval": accuracy.accuracy_interval(record.right, record.count),
        "drop_points": accuracy.accuracy_drop(record),
        "drop_interval_points": accuracy.accuracy_drop_interval(record),
    }


def dump_manifest_accuracy(record: AccuracyRecord) -> dict[str, Any]:
    counts = {name: getattr(record, name) for name in ("count", "right", "right5", "lost", "gained", "same")}
    return counts | derive_manifest_accuracy(record)


def dump_manifest_accuracy_evaluation(evaluation: EvaluationRecord) -> dict[str, Any]:
    return {
        "kind": evaluation.kind,
        "classes": evaluation.classes,
        "max_drop_points": evaluation.max_drop,
        "float32": dump_manifest_accuracy(evaluation.reference),
        "notes": evaluation.notes,
    }
