"""Share of labelled points that are found (PCK), and COCO's similarity of keypoints (OKS)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from exporter.records import Array
from exporter.verify.scores.scored_sample import (
    Label,
    Measures,
    Rows,
    ScoredSample,
    Tables,
    ratio_of_sample_scores,
)
from exporter.verify.tasks.keypoint_task import NAMES

NEAR = 0.05
"""A point is found within this share of the longer side of the object's box."""
NORMALISED = 2.0
SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
"""COCO's, for its 17 points of a body, https://cocodataset.org/#keypoints-eval."""
OTHER_SIGMA = 0.05


def score_keypoints(view: ScoredSample, label: Label) -> Rows:
    """Return (found) for every labelled point, and (similarity) for the object."""
    wanted, visible = label["points"][:, :2], label["points"][:, 2] > 0
    y = scored_keypoints(view)
    if y.shape != wanted.shape:
        raise ValueError(f"the model gives {len(y)} points, the label {len(wanted)}")
    squares = ((y - wanted) ** 2).sum(axis=1)[visible]
    near = np.sqrt(squares) <= NEAR * float(label["extent"])
    sigmas = SIGMAS if len(wanted) == len(SIGMAS) else np.full(len(wanted), OTHER_SIGMA)
    exponents = squares / (2 * sigmas[visible]) ** 2 / (2 * float(label["area"]) + np.spacing(1))
    return {"points": [[float(n)] for n in near], "objects": [[float(np.exp(-exponents).mean())]]}


def scored_keypoints(view: ScoredSample) -> Array:
    """Return [points, 2]: x and y in pixels of the input, from coordinates or from the peaks of heatmaps."""
    index = view.find(*NAMES)
    y = view.first_float(2) if index is None else view.outputs[index].astype(np.float64)
    height, width = view.size
    if y.ndim >= 3 and y.shape[-1] not in {2, 3}:
        maps = y.reshape(-1, y.shape[-2] * y.shape[-1])
        rows, columns = np.unravel_index(maps.argmax(axis=1), y.shape[-2:])
        scale = np.array([width / y.shape[-1], height / y.shape[-2]])
        peaks: Array = np.stack([columns, rows], axis=1) * scale
        return peaks
    listed = y.ndim >= 3 and y.shape[-1] in {2, 3}
    places: Array = y.reshape(-1, y.shape[-1])[:, :2] if listed else y.reshape(-1, 2)
    return places * np.array([width, height]) if places.max() <= NORMALISED else places


def measures_of_scored_keypoints(tables: Tables, count: int) -> Measures:
    """Return PCK and the mean OKS."""
    found, similar = (ratio_of_sample_scores(tables, name, 0, None, count) for name in ("points", "objects"))

    def value(weights: Array) -> Mapping[str, float]:
        return {f"PCK@{NEAR}": found(weights), "OKS": similar(weights)}

    return value
