"""COCO's JSON of images and annotations, for boxes and keypoints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exporter.data.labels.label_source import (
    Model,
    read_label_source_json,
    single_label_source,
    unusable_labels,
)
from exporter.records import TaskName

EXPECTED = "a COCO JSON of `images`, `annotations` and `categories` beside its photos"


def find_coco(source: Path) -> Path | None:
    """Return the JSON file: `source`, or the only one in the folder."""
    return single_label_source(source, ".json")


def coco_holds(source: Path, key: str) -> bool:
    """Return whether annotations have a key. A file that cannot be read has none."""
    path = find_coco(source)
    if path is None:
        return False
    try:
        content = read_label_source_json("", path, EXPECTED)
    except Exception:  # the reader of the task that is chosen says what is wrong with it
        return False
    annotations = content.get("annotations") if isinstance(content, dict) else None
    return isinstance(annotations, list) and any(isinstance(a, dict) and key in a for a in annotations)


def read_coco(task: TaskName, source: Path) -> dict[str, Any]:
    """Return the JSON's content, checked as far as its readers rely on.

    Raises:
        CalibrationError: The file is not COCO's JSON.
    """
    path = find_coco(source)
    if path is None:
        raise unusable_labels(task, f"{source} is no JSON file and holds not exactly one", EXPECTED)
    content = read_label_source_json(task, path, EXPECTED)
    keys = sorted(content)[:8] if isinstance(content, dict) else type(content).__name__
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        raise unusable_labels(task, f"{path} holds {keys}", EXPECTED)
    try:
        for image in content["images"]:
            image["id"], str(image["file_name"])
        for annotation in content["annotations"]:
            annotation["image_id"], annotation["category_id"]
    except (KeyError, TypeError) as error:
        raise unusable_labels(task, f"{path} has an image or annotation without {error}", EXPECTED) from None
    return content


def coco_by_image(content: Mapping[str, Any]) -> dict[Any, list[dict[str, Any]]]:
    """Return image id -> its annotations."""
    annotations: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for annotation in content["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    return annotations


def coco_classes(content: Mapping[str, Any], model: Model, count: int | None) -> tuple[dict[int, int], str]:
    """Return category id -> the model's class number, and a sentence on how that was decided.

    The model's own class names decide; else the ids themselves, where the model has a class for each or gives
    class numbers; else the ids in order, when there are as many as the model has classes.

    Args:
        content: The JSON.
        model: The model.
        count: Number of classes that it gives scores for; None where it gives class numbers.

    Raises:
        CalibrationError: None of these rules fits.
    """
    used = {int(annotation["category_id"]) for annotation in content["annotations"]}
    names = {int(c["id"]): str(c.get("name", "")) for c in content.get("categories", ())}
    ids = sorted(names.keys() | used)
    places = {_plain_coco(name): index for index, name in enumerate(model.names)}
    if names and places and all(_plain_coco(name) in places for name in names.values()):
        return {
            i: places[_plain_coco(names[i])] for i in ids if i in names
        }, "Categories are matched by name."
    if count is not None and count == len(ids) and ids != list(range(count)):
        return dict(zip(ids, range(count), strict=True)), (
            f"The {count} category ids, in order, are classes 0 to {count - 1}."
        )
    if count is None or (ids and ids[-1] < count):
        return {i: i for i in ids}, "Category ids are the model's class numbers."
    raise unusable_labels(
        "boxes",
        f"categories {_some_coco_ids(ids)} ({len(ids)}) for a model with {count} classes",
        "as many categories as the model has classes, ids that are its class numbers, or its class names",
    )


def _plain_coco(name: str) -> str:
    return name.casefold().replace("_", " ").strip()


def _some_coco_ids(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids[:5])) + (", …" if len(ids) > 5 else "")
