"""Labels of detectors: COCO's JSON, or YOLO's text file per photo."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

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
    label_source_images,
    label_source_photos,
    unusable_labels,
)
from exporter.records import Array, Preprocessing
from exporter.verify.tasks.read_boxes import SCORES

EXPECTED = (
    "a COCO JSON with a `bbox` per annotation, a folder in YOLO's layout (images/*.jpg, labels/*.txt with "
    "`class x y width height` in shares of the photo), or an .npz with `boxes` and `labels`"
)
MOST_BYTES = 16 << 20
"""A larger text file is no photo's boxes."""
CUT = 0.25
"""A box of which the crop leaves a smaller share does not count, neither when found nor when missed."""


def recognises_box_labels(source: Path) -> bool:
    """Return whether this is COCO's JSON with boxes, or a folder of photos with a text file each."""
    return coco.coco_holds(source, "bbox") or _box_label_folder(source) is not None


def _box_label_folder(source: Path) -> Path | None:
    if not source.is_dir():
        return None
    for folder in (source / "labels", source):
        if folder.is_dir() and any(
            path.suffix == ".txt" and _are_yolo_box_labels(path) for path in folder.iterdir()
        ):
            return folder
    return None


def _are_yolo_box_labels(path: Path) -> bool:
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return False
        lines = [line.split() for line in path.read_text("utf-8").splitlines() if line.strip()]
        return bool(lines) and all(len(line) >= 5 and line[0].isdecimal() for line in lines)
    except (OSError, UnicodeDecodeError):
        return False


def read_box_labels(source: Path, model: Model) -> Labelled:
    """Read COCO's JSON or YOLO's folder; boxes become corners in pixels of the input."""
    photo_set_input(source, model.inputs, model.preprocessing)
    if coco.find_coco(source) is not None:
        return _coco_box_labels(source, model)
    folder = _box_label_folder(source)
    if folder is None:
        raise unusable_labels(
            "boxes", f"{source} holds neither one JSON file nor text files of boxes", EXPECTED
        )
    return _yolo_box_labels(source, folder, model)


def box_label_class_count(model: Model) -> int | None:
    """Return how many classes the model gives scores for; None where it gives class numbers."""
    for spec in model.outputs:
        if any(word in spec.name.lower() for word in ("label", "categor")):
            return None
    for spec in model.outputs:
        if any(word in spec.name.lower() for word in SCORES) and len(spec.shape) == 3:
            return spec.shape[2]
    joint = next((spec for spec in model.outputs if len(spec.shape) == 3), None)
    return min(joint.shape[1:]) - 4 if joint is not None and len(model.outputs) == 1 else None


def _coco_box_labels(source: Path, model: Model) -> Labelled:
    content = coco.read_coco("boxes", source)
    path = coco.find_coco(source)
    assert path is not None
    numbers, note = coco.coco_classes(content, model, box_label_class_count(model))
    annotations = coco.coco_by_image(content)
    pairs = []
    for image in content["images"]:
        photo = label_source_file("boxes", path, str(image["file_name"]), EXPECTED)
        own = annotations.get(image["id"], [])
        try:
            boxes = np.array([a["bbox"] for a in own], np.float64).reshape(-1, 4)
            crowd = np.array([bool(a.get("iscrowd", 0)) for a in own], bool)
            known = np.array([numbers[int(a["category_id"])] for a in own], np.int64)
        except (KeyError, TypeError, ValueError) as error:
            raise unusable_labels(
                "boxes", f"an annotation of image {image['id']} lacks {error}", EXPECTED
            ) from None
        boxes[:, 2:] += boxes[:, :2]
        pairs.append(
            (
                photo,
                _box_label(
                    label_placement(photo, _how_box_labels_are_written(model)),
                    boxes,
                    known,
                    crowd,
                    model,
                ),
            )
        )
    return label_source_photos("boxes", source, model, pairs, (f"Labels: {note}",))


def _yolo_box_labels(source: Path, folder: Path, model: Model) -> Labelled:
    paths = label_source_images(source)
    pairs = []
    for path in paths:
        text = folder / f"{path.stem}.txt"
        rows = _yolo_box_label_rows(text) if text.is_file() else np.zeros((0, 5))
        count = box_label_class_count(model)
        if count is not None and len(rows) and rows[:, 0].max() >= count:
            raise unusable_labels(
                "boxes", f"{text.name} has class {int(rows[:, 0].max())}, the model {count}", EXPECTED
            )
        where = label_placement(path, _how_box_labels_are_written(model))
        corners = np.concatenate([rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2], axis=1)
        if where is not None:
            corners = corners * _photo_size_for_box_labels(where, path, model)
        crowd = np.zeros(len(rows), bool)
        pairs.append((path, _box_label(where, corners, rows[:, 0].astype(np.int64), crowd, model)))
    stray = sorted(
        {t.stem for t in folder.glob("*.txt") if _are_yolo_box_labels(t)} - {path.stem for path in paths}
    )
    if stray:
        raise unusable_labels("boxes", f"{folder} holds {stray[0]}.txt without its photo", EXPECTED)
    return label_source_photos(
        "boxes", source, model, pairs, ("Labels: class numbers of YOLO's text files.",)
    )


def _photo_size_for_box_labels(where: Placement, path: Path, model: Model) -> Array:
    from exporter.data import photos

    sizes = photos.placed_photo_size(path, _how_box_labels_are_written(model))
    assert sizes is not None
    return np.array([*sizes[0], *sizes[0]], np.float64)


def _yolo_box_label_rows(path: Path) -> Array:
    try:
        rows = np.array([line.split()[:5] for line in path.read_text().splitlines() if line.strip()], float)
    except ValueError as error:
        raise unusable_labels("boxes", f"{path}: {error}", EXPECTED) from None
    rows = rows.reshape(-1, 5)
    if not np.isfinite(rows).all():
        raise unusable_labels("boxes", f"{path} holds a number that is not finite", EXPECTED)
    if len(rows) and (rows[:, 1:].min() < 0 or rows[:, 1:].max() > 1):
        raise unusable_labels("boxes", f"{path} holds {rows[:, 1:].max():g}", EXPECTED)
    return rows


def _how_box_labels_are_written(model: Model) -> Preprocessing:
    assert model.preprocessing is not None
    return model.preprocessing


def _box_label(
    where: Placement | None, boxes: Array, classes: Array, crowd: Array, model: Model
) -> Mapping[str, Array]:
    """Move boxes into the input and cut them at its edges; what the crop nearly removes is ignored."""
    if where is None:  # The photo cannot be decoded, and does not count.
        return {"boxes": np.zeros((0, 4)), "classes": classes[:0], "ignored": crowd[:0]}
    moved = where.points(boxes.reshape(-1, 2)).reshape(-1, 4)
    height, width = _how_box_labels_are_written(model).crop
    inside = np.clip(moved, 0, [width, height, width, height])
    kept = _box_label_areas(inside) > 0
    ignored = crowd | (_box_label_areas(inside) < CUT * _box_label_areas(moved))
    return {"boxes": inside[kept], "classes": classes[kept], "ignored": ignored[kept]}


def _box_label_areas(boxes: Array) -> Array:
    areas: Array = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas


def box_labels_from_arrays(arrays: Arrays, model: Model) -> list[Mapping[str, Array]]:
    """Read `boxes` [samples, most, 4], corners in pixels of the input, and `labels` [samples, most].

    A label of -1 fills the rows of samples with fewer boxes.
    """
    boxes, labels = arrays.get("boxes"), arrays.get("labels")
    if boxes is None or labels is None or boxes.ndim != 3 or boxes.shape[2] != 4:
        raise ValueError("it holds no `boxes` [samples, most, 4] and `labels` [samples, most]")
    if labels.shape != boxes.shape[:2] or labels.dtype.kind not in "iu":
        raise ValueError(f"`labels` is {labels.dtype} {list(labels.shape)}")
    count = box_label_class_count(model)
    if count is not None and labels.size and labels.max() >= count:
        raise ValueError(f"`labels` has class {int(labels.max())}, the model {count} classes")
    return [
        _box_label_row(own, numbers) for own, numbers in zip(boxes.astype(np.float64), labels, strict=True)
    ]


def _box_label_row(boxes: Array, numbers: Array) -> Mapping[str, Array]:
    there = numbers >= 0
    return {"boxes": boxes[there], "classes": numbers[there], "ignored": np.zeros(int(there.sum()), bool)}
