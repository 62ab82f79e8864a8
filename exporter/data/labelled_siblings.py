"""Leaves out labelled photos that show what a calibration photo shows: such siblings prove nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from exporter.data import local_features, photos
from exporter.data.labelled import SHOWN, Labelled


def without_labelled_siblings(evaluation: Labelled, calibrating: Sequence[Path]) -> Labelled:
    """Leave out the labelled photos of a calibration photo's scene, and add a note on them.

    Args:
        evaluation: The labelled samples; rows of arrays stay as they are.
        calibrating: The photos that calibrate or that candidates are chosen by.
    """
    if not evaluation.paths or not calibrating:
        return evaluation
    seen = [local_features.describe_local_features(p) for p in map(photos.open_photo, calibrating) if p]
    siblings = [_is_labelled_sibling(path, seen) for path in evaluation.paths]
    left_out = [path for path, sibling in zip(evaluation.paths, siblings, strict=True) if sibling]
    if not left_out:
        return evaluation
    rows = np.flatnonzero(~np.array(siblings))
    shown = ", ".join(f"{path.parent.name}/{path.name}" for path in left_out[:SHOWN])
    more = f" and {len(left_out) - SHOWN} more" if len(left_out) > SHOWN else ""
    note = (
        f"{len(left_out)} labelled photo(s) show what a calibration photo shows, and do not count: "
        f"{shown}{more}."
    )
    return replace(
        evaluation,
        labels=evaluation.labels[rows] if len(evaluation.labels) else evaluation.labels,
        paths=tuple(evaluation.paths[i] for i in rows),
        digests=tuple(evaluation.digests[i] for i in rows),
        truths=tuple(evaluation.truths[i] for i in rows) if evaluation.truths else (),
        notes=(*evaluation.notes, note),
    )


def _is_labelled_sibling(path: Path, seen: Sequence[local_features.LocalFeatures]) -> bool:
    photo = photos.open_photo(path)
    return photo is not None and local_features.is_scene_of_any(
        local_features.describe_local_features(photo), seen
    )
