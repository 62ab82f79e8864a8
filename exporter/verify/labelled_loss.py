"""Judges what an artifact lost on labelled samples, by classes that are right or by a task's measure. Pure.

What was measured to be worse than allowed fails, whatever its interval: it never passes for lack of samples.
What was measured to be good enough may still be unproven, where the interval reaches beyond the limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from exporter.records import Accuracy, Score, TaskAccuracy
from exporter.verify import accuracy, intervals
from exporter.verify.scores import compare_scores

LabelledFigures = Accuracy | TaskAccuracy
"""One model's figures on the labelled samples."""


def labelled_loss(figures: LabelledFigures) -> Score:
    """Return the measure that decides, with what was lost of it: top-1, or the first of the task's."""
    if isinstance(figures, TaskAccuracy):
        return compare_scores.deciding_score(figures)
    share = accuracy.accuracy_share(figures.right, figures.count)
    interval = accuracy.accuracy_drop_interval(figures)
    return Score(accuracy.TOP1, share, accuracy.accuracy_drop(figures), interval)


def labelled_loss_reason(figures: LabelledFigures, max_drop: float) -> str:
    """Return why an artifact fails on labelled samples; an empty string when it does not."""
    score = labelled_loss(figures)
    if math.isfinite(score.value) and score.lost <= max_drop:
        return ""
    interval = f"95 % interval {_labelled_loss_range(score)}"
    if isinstance(figures, Accuracy):
        return (
            f"It loses {score.lost:.2g} points of top-1 ({figures.lost} lost, {figures.gained} gained "
            f"of {figures.count}; {interval}); {max_drop:g} may be lost."
        )
    return (
        f"Its {score.name} is {score.value:.4g}, {score.lost:.3g} {compare_scores.score_unit(score)} worse "
        f"than float32's on {figures.count} labelled samples ({interval}); {max_drop:g} may be lost."
    )


def unproven_labelled_loss(figures: LabelledFigures, max_drop: float) -> str:
    """Return why the samples are too few to prove that the loss is within the limit; empty when they do."""
    score = labelled_loss(figures)
    if score.lost > max_drop or score.interval[1] <= max_drop:
        return ""
    more = intervals.more_scenes_for_interval(
        score.lost, max_drop, figures.count, score.interval, "labelled sample"
    )
    return (
        f"{figures.count} labelled samples cannot decide: it loses {score.lost:.2g} "
        f"{compare_scores.score_unit(score)} of {score.name} (95 % interval {_labelled_loss_range(score)}); "
        f"{max_drop:g} may be lost. {more}"
    )


def labelled_loss_doubt(figures: Mapping[str, LabelledFigures], max_drop: float) -> str:
    """Return a sentence on the artifacts whose interval holds the limit; empty without any."""
    losses = {name: labelled_loss(own) for name, own in figures.items()}
    unsure = {name: s for name, s in losses.items() if s.interval[0] < max_drop < s.interval[1]}
    if not unsure:
        return ""
    name, first = next(iter(unsure.items()))
    shown = ", ".join(f"{name} {s.lost:.2g} ({_labelled_loss_range(s)})" for name, s in unsure.items())
    unit = f"{max_drop:g} {compare_scores.score_unit(first)}".replace("points", "point(s)").rstrip()
    return (
        f"{figures[name].count} labelled samples cannot tell for certain if more than {unit} of {first.name} "
        f"are lost; the measured loss and its 95 % interval: {shown}. More samples narrow it."
    )


def _labelled_loss_range(score: Score) -> str:
    return f"{score.interval[0]:.2g} to {score.interval[1]:.2g}"
