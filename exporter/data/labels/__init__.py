"""Labelled samples of every task for `--eval`, one file per task, listed in `LABELS`.

A task's file reads what people have (COCO's JSON, YOLO's text files, PNG masks, tables, folders, arrays) and
gives each sample a label: arrays by name, in pixels of the model's input, which the task's file of
`exporter.verify.scores` compares outputs with.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from exporter.data import npz
from exporter.data.labelled import Labelled
from exporter.data.labels import (
    box_labels,
    embedding_labels,
    image_labels,
    keypoint_labels,
    mask_labels,
    regression_labels,
    sequence_labels,
)
from exporter.data.labels.label_source import Arrays, Model, truths_of_label_source, unusable_labels
from exporter.errors import CalibrationError
from exporter.records import Array, TaskName


@dataclass(frozen=True)
class LabelFormat:
    """How the labels of one task are recognised and read."""

    expected: str
    """What a source of such labels is, for messages."""
    recognises: Callable[[Path], bool]
    """Tells whether a file or folder can only hold labels of this task."""
    read: Callable[[Path, Model], Labelled]
    """Reads a file or folder. Raises CalibrationError where it holds no such labels, or they do not fit."""
    from_arrays: Callable[[Arrays, Model], list[Mapping[str, Array]]]
    """Returns a label per sample from the arrays of an `.npz`. Raises ValueError with what was seen."""


LABELS: Mapping[TaskName, LabelFormat] = {
    "keypoints": LabelFormat(
        keypoint_labels.EXPECTED,
        keypoint_labels.recognises_keypoint_labels,
        keypoint_labels.read_keypoint_labels,
        keypoint_labels.keypoint_labels_from_arrays,
    ),
    "boxes": LabelFormat(
        box_labels.EXPECTED,
        box_labels.recognises_box_labels,
        box_labels.read_box_labels,
        box_labels.box_labels_from_arrays,
    ),
    "masks": LabelFormat(
        mask_labels.EXPECTED,
        mask_labels.recognises_mask_labels,
        mask_labels.read_mask_labels,
        mask_labels.mask_labels_from_arrays,
    ),
    "images": LabelFormat(
        image_labels.EXPECTED,
        image_labels.recognises_image_labels,
        image_labels.read_image_labels,
        image_labels.image_labels_from_arrays,
    ),
    "sequences": LabelFormat(
        sequence_labels.EXPECTED,
        sequence_labels.recognises_sequence_labels,
        sequence_labels.read_sequence_labels,
        sequence_labels.sequence_labels_from_arrays,
    ),
    "regression": LabelFormat(
        regression_labels.EXPECTED,
        regression_labels.recognises_regression_labels,
        regression_labels.read_regression_labels,
        regression_labels.regression_labels_from_arrays,
    ),
    "embeddings": LabelFormat(
        embedding_labels.EXPECTED,
        embedding_labels.recognises_embedding_labels,
        embedding_labels.read_embedding_labels,
        embedding_labels.embedding_labels_from_arrays,
    ),
}
"""Task -> its labels' reader, the surest to recognise first."""

UNREADABLE = (
    ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError, zipfile.BadZipFile,
)  # fmt: skip
"""What reading raises where a label is of another type, too large, or names what no file can be called."""


def task_of_labels(source: Path, model: Model, named: TaskName) -> TaskName:
    """Return the task whose labels `source` holds; "" for classes, which `exporter.data.labelled` reads.

    Args:
        source: What `--eval` names.
        model: The model's inputs and outputs.
        named: What `--task` names; it decides.
    """
    if named:
        return named
    if source.suffix.lower() == ".npz" and source.is_file():
        return _task_of_label_arrays(source, model)
    return next((task for task, reader in LABELS.items() if reader.recognises(source)), "")


def _task_of_label_arrays(source: Path, model: Model) -> TaskName:
    """Tell a task by the names and shapes of the arrays; class numbers, one a sample, are classes."""
    arrays = npz.load_npz(source)
    labels = arrays.get(npz.LABELS)
    if "boxes" in arrays:
        return "boxes"
    if labels is None or (labels.dtype.kind in "iu" and labels.ndim < 2):
        return ""
    if labels.dtype.kind in "iu":
        maps = labels.ndim >= 3 or any(len(spec.shape) == 4 for spec in model.outputs)
        sequence = labels.shape[1] > 1 and any(len(spec.shape) == 3 for spec in model.outputs)
        return "masks" if maps else "sequences" if sequence else ""
    if labels.ndim == 4:
        return "images"
    return "keypoints" if labels.ndim == 3 and labels.shape[2] == 3 else "regression"


def find_labels(source: Path, model: Model, task: TaskName) -> Labelled:
    """Read the labelled samples of a task.

    Raises:
        CalibrationError: The samples cannot be used; the message says what was seen and expected.
    """
    reader = LABELS[task]
    if not (source.is_file() or source.is_dir()):
        seen = "is neither a file nor a folder" if source.exists() else "does not exist"
        raise CalibrationError(f"--eval: {source} {seen}; expected {reader.expected}.")
    try:
        if source.suffix.lower() == ".npz":
            return truths_of_label_source(task, source, model, reader.from_arrays)
        return reader.read(source, model)
    except UNREADABLE as error:
        reason = error if isinstance(error, ValueError) else repr(error)
        raise unusable_labels(task, f"{source.name}: {str(reason)[:200]}", reader.expected) from error
