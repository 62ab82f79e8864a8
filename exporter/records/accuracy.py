"""What an artifact reaches on labelled samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from exporter.records.verdict import TaskName


@dataclass(frozen=True)
class Accuracy:
    """How often one model was right about labelled samples, in counts, beside eager float32 on the same."""

    count: int
    """Labelled samples that could be read."""
    right: int
    """Whose label came first."""
    right5: int | None
    """Whose label was among the first five; None with five classes or fewer."""
    lost: int = 0
    """Right in float32, wrong here."""
    gained: int = 0
    """Wrong in float32, right here."""
    same: int = 0
    """Where it answers as float32 does, right or wrong."""


@dataclass(frozen=True)
class Evaluation:
    """What accuracy was measured on, and what is allowed to be lost."""

    kind: Literal["photos", "arrays"]
    classes: int
    max_drop: float
    """Points of top-1 that an artifact may lose against float32."""
    reference: Accuracy
    """Eager float32's own."""
    notes: tuple[str, ...] = ()
    """How labels became classes, and what the figures cannot tell."""


@dataclass(frozen=True)
class Score:
    """One measure of a task on labelled samples ("mIoU"), beside eager float32's on the same samples."""

    name: str
    value: float
    lost: float = 0.0
    """How much worse than float32's, in points (hundredths), dB, or the measure's own numbers."""
    interval: tuple[float, float] = (0.0, 0.0)
    """The 95 % interval of `lost`."""


@dataclass(frozen=True)
class TaskAccuracy:
    """One model's measures on labelled samples of a task."""

    count: int
    """Labelled samples that could be read."""
    scores: tuple[Score, ...]
    """The first decides whether too much was lost."""


@dataclass(frozen=True)
class TaskEvaluation:
    """The labelled samples of a task, and what is allowed to be lost."""

    task: TaskName
    kind: Literal["photos", "arrays"]
    max_drop: float
    """Points (or dB) of the first measure that an artifact may lose against float32."""
    reference: TaskAccuracy
    """Eager float32's own."""
    notes: tuple[str, ...] = ()
    """How labels were read, and what the figures cannot tell."""
