"""Compares a model's scores on labelled samples with float32's. Pure.

Both models see the same samples, so the interval of their difference is a paired bootstrap: samples are drawn
with replacement, and both models are scored on each draw (Efron and Tibshirani 1993, chapter 13).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from exporter.errors import CalibrationError
from exporter.records import Array, Score, TaskAccuracy, TaskName
from exporter.verify.scores import SCORES
from exporter.verify.scores.scored_sample import Tables

DRAWS = 400
SEED = 0
FEWEST = 10
"""The fewest samples whose draws say something about other samples."""


@dataclass(frozen=True)
class Measure:
    """What a measure's values mean."""

    unit: Literal["points", "dB", ""]
    """The unit of what is lost: points are hundredths; without a unit the measure's own numbers."""
    better: Literal[1, -1] = 1
    """1 where larger is better, -1 where smaller is."""
    chance: float = 0.0
    """A model that is no better than this cannot read the labels, or the labels cannot be its own."""


MEASURES: Mapping[str, Measure] = {
    "mAP@0.5:0.95": Measure("points", chance=0.005),
    "mAP@0.5": Measure("points", chance=0.005),
    "mIoU": Measure("points", chance=0.005),
    "PCK@0.05": Measure("points", chance=0.005),
    "OKS": Measure("points", chance=0.005),
    "CER": Measure("points", -1, chance=1.0),
    "token accuracy": Measure("points", chance=0.005),
    "whole sequences": Measure("points"),
    "R2": Measure("points", chance=0.0),
    "MAE": Measure("", -1, chance=math.inf),
    "PSNR": Measure("dB", chance=5.0),
    "recall@1": Measure("points", chance=0.005),
    "rank agreement": Measure("points", chance=0.0),
}


@dataclass(frozen=True, eq=False)
class Scored:
    """One model's rows for all samples that could be read."""

    count: int
    tables: Tables


def compare_scores(
    task: TaskName, reference: Scored, models: Mapping[str, Scored]
) -> dict[str, TaskAccuracy]:
    """Return each model's measures, and what they lost against float32 with 95 % intervals.

    Args:
        task: The labels' task.
        reference: Float32's rows.
        models: Name -> rows on the same samples.
    """
    floats = _score_values(task, reference)
    return {
        name: _score_accuracy(_score_values(task, scored), floats, scored.count)
        for name, scored in models.items()
    }


def plain_scores(task: TaskName, scored: Scored) -> TaskAccuracy:
    """Return one model's measures without anything to compare them with."""
    values = SCORES[task].measures(scored.tables, scored.count)(np.ones(scored.count))
    return TaskAccuracy(scored.count, tuple(Score(name, value) for name, value in values.items()))


def _score_values(task: TaskName, scored: Scored) -> dict[str, Array]:
    """Return measure -> its value for every draw; the first is of the samples as they are."""
    measures = SCORES[task].measures(scored.tables, scored.count)
    rows = [measures(weights) for weights in _score_draws(scored.count)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _score_draws(count: int) -> Iterator[Array]:
    """Yield how often each sample counts: once at first, then as drawn with replacement."""
    yield np.ones(count)
    generator = np.random.default_rng(SEED)
    for _ in range(DRAWS):
        yield np.bincount(generator.integers(0, count, count), minlength=count).astype(float)


def _score_accuracy(values: Mapping[str, Array], floats: Mapping[str, Array], count: int) -> TaskAccuracy:
    scores = []
    for name, own in values.items():
        factor = MEASURES[name].better * (100 if MEASURES[name].unit == "points" else 1)
        lost = factor * (floats[name] - own) + 0.0  # a zero without a sign
        drawn = lost[1:][np.isfinite(lost[1:])]
        low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (-math.inf, math.inf)
        scores.append(Score(name, float(own[0]), float(lost[0]), (float(low), float(high))))
    return TaskAccuracy(count, tuple(scores))


def deciding_score(accuracy: TaskAccuracy) -> Score:
    """Return the measure that the gate looks at: the first."""
    return accuracy.scores[0]


def check_reference_scores(task: TaskName, accuracy: TaskAccuracy) -> None:
    """Refuse labels by which float32 itself is no better than chance: nothing could be lost.

    Raises:
        CalibrationError: The labels say nothing about this model.
    """
    score = deciding_score(accuracy)
    measure = MEASURES[score.name]
    if not math.isfinite(score.value) or measure.better * (score.value - measure.chance) <= 0:
        raise CalibrationError(
            f"--eval: float32's {score.name} is {score.value:.4g} on {accuracy.count} labelled samples, no "
            f"better than chance; expected labels of {task} that the model itself meets.",
            "Check that classes are numbered as the model numbers them, that coordinates are the photo's, "
            "and that the preprocessing is the model's.",
            code="EM-LABELS",
        )


def check_enough_scores(count: int) -> None:
    """Refuse so few samples that their draws give no interval.

    Raises:
        CalibrationError: There are fewer than `FEWEST`.
    """
    if count < FEWEST:
        raise CalibrationError(
            f"--eval has {count} labelled sample(s) that can be read; expected {FEWEST} or more.",
            "A hundred or more make the interval useful.",
            code="EM-FEW-SAMPLES",
        )


def score_unit(score: Score) -> str:
    """Return the unit of what a measure lost; top-1, which counts classes, is lost in points."""
    return MEASURES[score.name].unit if score.name in MEASURES else "points"
