"""How much of the numbers' spread is explained (R²), and the mean absolute error (MAE)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from exporter.records import Array
from exporter.verify.scores.scored_sample import Label, Measures, Rows, ScoredSample, Tables


def score_regression(view: ScoredSample, label: Label) -> Rows:
    """Return the predicted numbers, then the labelled ones."""
    wanted = label["numbers"].reshape(-1)
    given = view.first_float().reshape(-1)
    if len(given) != len(wanted):
        raise ValueError(f"the model gives {len(given)} number(s), the label {len(wanted)}")
    return {"numbers": [[*map(float, given), *map(float, wanted)]]}


def measures_of_scored_regression(tables: Tables, count: int) -> Measures:
    """Return R² and MAE, both averaged over the numbers of a sample."""
    table = tables["numbers"][:, 1:]
    width = table.shape[1] // 2
    given, wanted = table[:, :width], table[:, width:]

    def value(weights: Array) -> Mapping[str, float]:
        total = weights.sum()
        mean = weights @ wanted / total
        spread = weights @ (wanted - mean) ** 2
        varying = spread > 0
        left = weights @ (given - wanted) ** 2
        explained = 1 - left[varying] / spread[varying]
        error = float((weights @ np.abs(given - wanted)).mean() / total)
        return {"R2": float(explained.mean()) if varying.any() else float("nan"), "MAE": error}

    return value
