"""Mean intersection over union of a class per pixel, over all samples together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from exporter.records import Array
from exporter.verify.scores.scored_sample import Label, Measures, Rows, ScoredSample, Tables

IGNORED = 255
"""Pixels of this class do not count, as in Pascal VOC and Cityscapes."""


def score_masks(view: ScoredSample, label: Label) -> Rows:
    """Return (class, pixels shared, pixels of either) for every class of the label or the prediction."""
    predicted = scored_mask_classes(view)
    wanted = _resampled_scored_mask(label["mask"], predicted.shape)
    counts = wanted != IGNORED
    table = []
    for number in np.union1d(np.unique(wanted[counts]), np.unique(predicted[counts])):
        one, other = (wanted == number) & counts, (predicted == number) & counts
        table.append([float(number), float((one & other).sum()), float((one | other).sum())])
    return {"classes": table}


def scored_mask_classes(view: ScoredSample) -> Array:
    """Return a class per pixel: the likeliest, the sign of a single score, or the numbers themselves."""
    index = view.find("mask", "segm")
    named = view.outputs[index] if index is not None and view.outputs[index].ndim >= 3 else None
    y = next((o for o in view.outputs if o.ndim >= 3), None) if named is None else named
    if y is None:
        raise ValueError("no output is a map of classes")
    if y.dtype.kind != "f":
        return y.reshape(y.shape[-2:])
    if y.ndim >= 4 and y.shape[-3] > 1:
        likeliest: Array = y.reshape(y.shape[-3:]).argmax(axis=0)
        return likeliest
    middle = 0.5 if y.min() >= 0 and y.max() <= 1 else 0.0
    return (y.reshape(y.shape[-2:]) > middle).astype(np.int64)


def _resampled_scored_mask(mask: Array, shape: tuple[int, ...]) -> Array:
    """Return the mask at the output's resolution, each pixel from the nearest one."""
    places = [((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(shape, mask.shape, strict=True)]
    nearest: Array = mask[np.ix_(*places)]
    return nearest


def measures_of_scored_masks(tables: Tables, count: int) -> Measures:
    """Return mIoU, over the classes of the labels or the predictions."""
    table = tables["classes"]
    numbers, columns = np.unique(table[:, 1], return_inverse=True)
    sums = np.zeros((2, count, len(numbers)))
    for part in range(2):
        np.add.at(sums[part], (table[:, 0].astype(int), columns), table[:, 2 + part])

    def value(weights: Array) -> Mapping[str, float]:
        shared, either = weights @ sums[0], weights @ sums[1]
        there = either > 0
        return {"mIoU": float((shared[there] / either[there]).mean()) if there.any() else float("nan")}

    return value
