"""Labels of networks that find points on one object per photo: COCO's JSON of keypoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporter.data import photo_set_input
from exporter.data.labelled import Labelled
from exporter.data.labels import coco
from exporter.data.labels.label_source import (
    Arrays,
    Model,
    Placement,
    label_placement,
    label_source_file,
    label_source_photos,
    unusable_labels,
)
from exporter.records import Array

EXPECTED = (
    "a COCO JSON with `keypoints` (x, y, visibility) and `bbox` per annotation, or an .npz with `labels` "
    "[samples, points, 3] in pixels of the input"
)


def recognises_keypoint_labels(source: Path) -> bool:
    """Return whether this is COCO's JSON with keypoints."""
    return coco.coco_holds(source, "keypoints")


def read_keypoint_labels(source: Path, model: Model) -> Labelled:
    """Read the largest labelled object of every photo; photos without one are left out."""
    photo_set_input(source, model.inputs, model.preprocessing)
    content = coco.read_coco("keypoints", source)
    path = coco.find_coco(source)
    assert path is not None
    assert model.preprocessing is not None
    annotations = coco.coco_by_image(content)
    pairs, several = [], 0
    for image in content["images"]:
        own = [a for a in annotations.get(image["id"], []) if any(a.get("keypoints", [])[2::3])]
        if not own:
            continue
        several += len(own) > 1
        photo = label_source_file("keypoints", path, str(image["file_name"]), EXPECTED)
        pairs.append((photo, _keypoint_label(own, label_placement(photo, model.preprocessing))))
    if not pairs:
        raise unusable_labels("keypoints", f"{path} labels no point in any photo", EXPECTED)
    note = f"Labels: of {several} photo(s) with several objects, the largest counts." if several else ""
    return label_source_photos("keypoints", source, model, pairs, (note,) if note else ())


def _keypoint_label(own: list[dict[str, Any]], where: Placement | None) -> Mapping[str, Array]:
    try:
        largest = max(own, key=lambda a: float(a["bbox"][2]) * float(a["bbox"][3]))
        points = np.array(largest["keypoints"], np.float64).reshape(-1, 3)
        width, height = (float(side) for side in largest["bbox"][2:])
        area = float(largest.get("area", width * height))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise unusable_labels("keypoints", f"an annotation cannot be read: {error!r}", EXPECTED) from None
    where = where or Placement((1.0, 1.0), (0, 0))
    across, down = where.scale
    moved = np.concatenate([where.points(points[:, :2]), points[:, 2:]], axis=1)
    return {
        "points": moved,
        "area": np.array(area * across * down),
        "extent": np.array(max(width * across, height * down)),
    }


def keypoint_labels_from_arrays(arrays: Arrays, model: Model) -> list[Mapping[str, Array]]:
    """Read `labels` [samples, points, 3]: x and y in pixels of the input, 0 for points without a label."""
    labels = arrays.get("labels")
    if labels is None or labels.ndim != 3 or labels.shape[2] != 3:
        raise ValueError("it holds no `labels` [samples, points, 3]")
    return [_keypoint_labels(points.astype(np.float64)) for points in labels]


def _keypoint_labels(points: Array) -> Mapping[str, Array]:
    labelled = points[points[:, 2] > 0, :2]
    sides = np.ptp(labelled, axis=0) if len(labelled) else np.zeros(2)
    return {"points": points, "area": np.array(sides.prod()), "extent": np.array(sides.max())}
