"""Describe accuracy on labelled samples in words, for the page and the terminal."""

from __future__ import annotations

from exporter.records import (
    Accuracy,
    Evaluation,
    Report,
    Score,
    TaskEvaluation,
)
from exporter.verify import accuracy
from exporter.verify.scores import compare_scores


def report_accuracy_text(report: Report) -> str:
    """Describe float32 on the labelled samples of an export; an empty string where there were none."""
    if report.evaluation:
        return _labelled_accuracy_text(report.evaluation)
    return _scored_accuracy_text(report.task_evaluation) if report.task_evaluation else ""


def _labelled_accuracy_text(evaluation: Evaluation) -> str:
    """Describe float32's accuracy on the labelled samples, which every artifact is compared with."""
    reference = evaluation.reference
    five = "" if reference.right5 is None else f", top-5 {accuracy_share_text(reference.right5, reference)}"
    low, high = accuracy.accuracy_interval(reference.right, reference.count)
    return (
        f"Float32 is right about {accuracy_share_text(reference.right, reference)} of "
        f"{reference.count} labelled {evaluation.kind} (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
        f"{five}; {evaluation.max_drop:g} point{'' if evaluation.max_drop == 1 else 's'} may be lost."
    )


def _scored_accuracy_text(evaluation: TaskEvaluation) -> str:
    """Describe float32's measures on labelled samples of a task."""
    reference = evaluation.reference
    first, *others = reference.scores
    more = "".join(f", {score.name} {score.value:.4g}" for score in others)
    return (
        f"Float32 has {first.name} {first.value:.4g}{more} on {reference.count} labelled {evaluation.kind} "
        f"({evaluation.task}); {evaluation.max_drop:g} {compare_scores.score_unit(first)} of {first.name} "
        "may be lost."
    )


def lost_accuracy_text(score: Score) -> str:
    """Format how much worse a measure is than float32's, with its unit and 95 % interval."""
    low, high = score.interval
    return f"{score.lost:.3g} {compare_scores.score_unit(score)}".strip() + f" ({low:.2g} to {high:.2g})"


def accuracy_share_text(right: int, measured: Accuracy) -> str:
    return f"{100 * right / measured.count:.1f} %"
