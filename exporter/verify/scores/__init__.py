"""The measure of each task on labelled samples, one file per task, listed in `SCORES`. Pure.

A task's file turns one sample's outputs and label into rows of numbers (`rows`), and the rows of all samples
into its measures (`measures`). Samples are weighted, so that one function serves the figure itself (every
weight is 1) and the bootstrap that gives its interval (`exporter.verify.scores.compare_scores`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from exporter.verify.scores import boxes, embeddings, images, keypoints, masks, regression, sequences
from exporter.verify.scores.scored_sample import Label, Measures, Rows, ScoredSample, Tables


@dataclass(frozen=True)
class Scorer:
    """How one task is scored."""

    rows: Callable[[ScoredSample, Label], Rows]
    """Returns what one sample contributes: table name -> rows of numbers."""
    measures: Callable[[Tables, int], Measures]
    """Returns a function from the weights of so many samples to the measures, the deciding one first."""


SCORES: Mapping[str, Scorer] = {
    "boxes": Scorer(boxes.score_boxes, boxes.measures_of_boxes),
    "masks": Scorer(masks.score_masks, masks.measures_of_masks),
    "keypoints": Scorer(keypoints.score_keypoints, keypoints.measures_of_keypoints),
    "images": Scorer(images.score_images, images.measures_of_images),
    "embeddings": Scorer(embeddings.score_embeddings, embeddings.measures_of_embeddings),
    "sequences": Scorer(sequences.score_sequences, sequences.measures_of_sequences),
    "regression": Scorer(regression.score_regression, regression.measures_of_regression),
}
