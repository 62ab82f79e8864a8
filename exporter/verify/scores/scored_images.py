"""Peak signal-to-noise ratio of images against their targets."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from exporter.records import Array
from exporter.verify.scores.scored_sample import Label, Measures, Rows, ScoredSample, Tables
from exporter.verify.tasks.image_task import RANGES

BEST_DB = 100.0
"""What an equal image is said to reach: no file holds an infinity."""


def score_images(view: ScoredSample, label: Label) -> Rows:
    """Return the mean squared error of pixels from 0 to 1, for each range that the output's may have."""
    wanted = label["image"]
    given = view.first_float(3)
    if given.size != wanted.size:
        raise ValueError(f"the output has the shape {list(given.shape)}, the target {list(wanted.shape)}")
    given = given.reshape(wanted.shape)
    return {
        "errors": [[float(np.mean(((given - low) / (high - low) - wanted) ** 2)) for low, high in RANGES]]
    }


def measures_of_scored_images(tables: Tables, count: int) -> Measures:
    """Return the mean PSNR, in the range of pixels that fits all samples best."""
    errors = tables["errors"][:, 1:]
    errors = errors[:, errors.sum(axis=0).argmin()]
    levels = np.minimum(-10 * np.log10(np.maximum(errors, np.finfo(np.float64).tiny)), BEST_DB)

    def value(weights: Array) -> Mapping[str, float]:
        return {"PSNR": float(weights @ levels / weights.sum())}

    return value
