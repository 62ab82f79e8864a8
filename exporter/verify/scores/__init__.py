"""The measure of each task on labelled samples, one file per task, listed in `SCORES`. Pure.

A task's file turns one sample's outputs and label into rows of numbers (`rows`), and the rows of all samples
into its measures (`measures`). Samples are weighted, so that one function serves the figure itself (every
weight is 1) and the bootstrap that gives its interval (`exporter.verify.scores.compare`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from exporter.verify.scores import boxes, embeddings, images, keypoints, masks, regression, sequences
from exporter.verify.scores.sample import Label, Measures, Rows, Tables, View


class Scorer(Protocol):
    """A module that scores one task."""

    def rows(self, view: View, label: Label) -> Rows:
        """Return what one sample contributes: table name -> rows of numbers."""
        ...

    def measures(self, tables: Tables, count: int) -> Measures:
        """Return a function from the weights of `count` samples to the measures, the deciding one first."""
        ...


SCORES: Mapping[str, Scorer] = {
    "boxes": boxes,
    "masks": masks,
    "keypoints": keypoints,
    "images": images,
    "embeddings": embeddings,
    "sequences": sequences,
    "regression": regression,
}
