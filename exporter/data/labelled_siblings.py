"""Leaves out labelled samples that show what a calibration sample shows: such siblings prove nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from exporter.data import local_features, near_copies, photos, scenes
from exporter.data.labelled import SHOWN, Labelled
from exporter.data.local_features import LocalFeatures
from exporter.data.sample_sets import Data
from exporter.records import Array, Sample

ROWS_AT_ONCE = 500
"""Labelled rows that are compared with the calibration rows and each other at once; it bounds the memory."""


def without_labelled_siblings(evaluation: Labelled, used: Data) -> Labelled:
    """Leave out the labelled samples of a calibration sample's scene, and add a note on them.

    Args:
        evaluation: The labelled samples.
        used: The samples that calibrate or that candidates are chosen by.
    """
    calibrating = (*used.calibration, *used.choice)
    if not calibrating or used.kind == "synthetic":
        return evaluation
    if evaluation.kind == "photos":
        return _without_labelled_photos(evaluation, _features_of_calibration(used, calibrating))
    return _without_labelled_rows(evaluation, used, calibrating)


def _features_of_calibration(used: Data, calibrating: Sequence[Sample]) -> list[LocalFeatures]:
    """Return the features of the calibration photos, or of calibration rows that are pictures."""
    if used.calibrating:
        return [
            local_features.describe_local_features(p) for p in map(photos.open_photo, used.calibrating) if p
        ]
    return scenes.pictures_for_scenes(calibrating)


def _without_labelled_photos(evaluation: Labelled, seen: Sequence[LocalFeatures]) -> Labelled:
    siblings = np.array([_is_labelled_sibling(path, seen) for path in evaluation.paths], bool)
    if not siblings.any():
        return evaluation
    names = [
        f"{evaluation.paths[i].parent.name}/{evaluation.paths[i].name}" for i in np.flatnonzero(siblings)
    ]
    rest = np.flatnonzero(~siblings)
    return replace(
        _without_labels(evaluation, siblings, f"photo(s) show what a calibration photo shows{_shown(names)}"),
        paths=tuple(evaluation.paths[i] for i in rest),
        digests=tuple(evaluation.digests[i] for i in rest),
    )


def _is_labelled_sibling(path: Path, seen: Sequence[LocalFeatures]) -> bool:
    photo = photos.open_photo(path)
    return photo is not None and local_features.is_scene_by_local_features(
        local_features.describe_local_features(photo), seen
    )


def _without_labelled_rows(evaluation: Labelled, used: Data, calibrating: Sequence[Sample]) -> Labelled:
    """Leave out rows of arrays; of rows that are batches, those with any sibling in them."""
    batch = len(evaluation.rows[0][0]) if evaluation.rows and evaluation.rows[0][0].ndim else 1
    seen = [single for row in calibrating for single in _single_labelled_rows(row, batch)]
    every = [single for row in evaluation.rows for single in _single_labelled_rows(row, batch)]
    siblings = _near_labelled_copies(every, seen) | _pictures_of_scene(every, seen, used)
    rows = np.asarray(siblings.reshape(len(evaluation.rows), -1).any(axis=1))
    if not rows.any():
        return evaluation
    names = [f"row {i}" for i in np.flatnonzero(rows)]
    each = rows.repeat(siblings.size // len(rows))
    return replace(
        _without_labels(evaluation, each, f"sample(s) are near copies of calibration samples{_shown(names)}"),
        rows=tuple(evaluation.rows[i] for i in np.flatnonzero(~rows)),
        digests=(*evaluation.digests, f"without {', '.join(names)}"),
    )


def _single_labelled_rows(row: Sample, batch: int) -> Iterator[Sample]:
    """Yield the samples of a row, each with a batch of 1."""
    if all(array.ndim and len(array) == batch for array in row):
        yield from (tuple(array[i : i + 1] for array in row) for i in range(batch))
    else:
        yield row


def _near_labelled_copies(rows: Sequence[Sample], seen: Sequence[Sample]) -> Array:
    """Return which rows are near copies of a calibration row."""
    near = np.zeros(len(rows), bool)
    for first in range(0, len(rows), ROWS_AT_ONCE):
        together = [*seen, *rows[first : first + ROWS_AT_ONCE]]
        for i, j in near_copies.pairs_of_near_copies(together):
            if i < len(seen) <= j:
                near[first + j - len(seen)] = True
    return near


def _pictures_of_scene(rows: Sequence[Sample], seen: Sequence[Sample], used: Data) -> Array:
    """Return which rows are pictures of a calibration picture's scene."""
    known = _features_of_calibration(used, seen)
    pictures = scenes.pictures_for_scenes(rows) if known else []
    if not pictures:
        return np.zeros(len(rows), bool)
    return np.array([local_features.is_scene_by_local_features(picture, known) for picture in pictures])


def _without_labels(evaluation: Labelled, siblings: Array, reason: str) -> Labelled:
    rest = np.flatnonzero(~siblings)
    return replace(
        evaluation,
        labels=evaluation.labels[rest] if len(evaluation.labels) else evaluation.labels,
        truths=tuple(evaluation.truths[i] for i in rest) if evaluation.truths else (),
        notes=(*evaluation.notes, f"{int(siblings.sum())} labelled {reason}."),
    )


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f", and do not count: {', '.join(names[:SHOWN])}{more}"
