"""The measure of each task on labelled samples, one file per task, listed in `SCORES`. Pure.

A task's file turns one sample's outputs and label into rows of numbers (`rows`), and the rows of all samples
into its measures (`measures`). Samples are weighted, so that one function serves the figure itself (every
weight is 1) and the bootstrap that gives its interval (`exporter.verify.scores.compare_scores`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from exporter.verify.scores import (
    scored_boxes,
    scored_embeddings,
    scored_images,
    scored_keypoints,
    scored_masks,
    scored_regression,
    scored_sequences,
)
from exporter.verify.scores.scored_sample import Label, Measures, Rows, ScoredSample, Tables


@dataclass(frozen=True)
class Scorer:
    """How one task is scored."""

    rows: Callable[[ScoredSample, Label], Rows]
    """Returns what one sample contributes: table name -> rows of numbers."""
    measures: Callable[[Tables, int], Measures]
    """Returns a function from the weights of so many samples to the measures, the deciding one first."""


SCORES: Mapping[str, Scorer] = {
    "boxes": Scorer(scored_boxes.score_boxes, scored_boxes.measures_of_scored_boxes),
    "masks": Scorer(scored_masks.score_masks, scored_masks.measures_of_scored_masks),
    "keypoints": Scorer(scored_keypoints.score_keypoints, scored_keypoints.measures_of_scored_keypoints),
    "images": Scorer(scored_images.score_images, scored_images.measures_of_scored_images),
    "embeddings": Scorer(scored_embeddings.score_embeddings, scored_embeddings.measures_of_scored_embeddings),
    "sequences": Scorer(scored_sequences.score_sequences, scored_sequences.measures_of_scored_sequences),
    "regression": Scorer(scored_regression.score_regression, scored_regression.measures_of_scored_regression),
}
