"""What all tasks' readers share: the model, files that become inputs, JSON and tables, and the errors."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter import data, files
from exporter.data import npz, photos
from exporter.data.labelled import Labelled
from exporter.errors import CalibrationError
from exporter.records import Array, Preprocessing, Sample, TaskName, TensorSpec

Arrays = Mapping[str, Array]
Label = Mapping[str, Array]
MOST_BYTES = 2**30
"""A larger file of labels is not read."""
SHOWN = 3
TABLES = (".csv", ".tsv", ".jsonl")
"""Suffixes of tables with a file in every row."""


@dataclass(frozen=True)
class Model:
    """The model that labels must fit."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing | None
    names: tuple[str, ...] = ()
    """Its class names or tokens, where it has them."""


def unusable_labels(task: TaskName, seen: str, expected: str, hint: str = "") -> CalibrationError:
    """Return the error for labels that do not fit the task."""
    return CalibrationError(
        f"--eval: {seen}; expected {expected}.",
        hint or f"Labels of other tasks are read with another --task; this one is {task}.",
        code="EM-LABELS",
    )


def label_source_images(source: Path) -> list[Path]:
    """Return the photos of a folder's `images/`, or of the folder itself."""
    return photos.find_photos(source / "images" if (source / "images").is_dir() else source)


def label_source_partners(
    task: TaskName, paths: Sequence[Path], folder: Path, suffixes: Sequence[str], expected: str
) -> list[Path]:
    """Return, for each photo, the file of the same name in another folder.

    Raises:
        CalibrationError: A photo has no such file.
    """
    names = {path.stem: path for path in _child_files_of_label_source(folder, suffixes)}
    if missing := [path.name for path in paths if path.stem not in names]:
        raise unusable_labels(task, f"{folder} holds nothing for {some_label_names(missing)}", expected)
    return [names[path.stem] for path in paths]


def label_source_photos(
    task: TaskName, source: Path, model: Model, pairs: Sequence[tuple[Path, Label]], notes: Sequence[str] = ()
) -> Labelled:
    """Make labelled samples of photos.

    Raises:
        CalibrationError: The model takes no photos, or there are none.
    """
    _, how = data.photo_set_input(source, model.inputs, model.preprocessing)
    paths = tuple(path for path, _ in pairs)
    return Labelled(
        "photos",
        0,
        np.zeros(len(paths), np.int64),
        model.inputs,
        how,
        paths=paths,
        notes=tuple(notes),
        digests=tuple(photos.photo_file_digest(path) for path in paths),
        task=task,
        truths=tuple(label for _, label in pairs),
    )


def label_source_files(
    task: TaskName, source: Path, model: Model, pairs: Sequence[tuple[Path, Label]], notes: Sequence[str] = ()
) -> Labelled:
    """Make labelled samples of photos, or of `.npy` files with an input each.

    Raises:
        CalibrationError: A file is neither, or does not fit the model.
    """
    if not all(path.suffix.lower() == ".npy" for path, _ in pairs):
        return label_source_photos(task, source, model, pairs, notes)
    if len(model.inputs) != 1 or model.inputs[0].shape[:1] != (1,):
        raise unusable_labels(
            task,
            f"{source} lists .npy files, but the model has {len(model.inputs)} input(s) in batches",
            "a model with one input and a batch of 1, or an .npz file with an array per input",
        )
    digests = tuple(files.digest_file_or_folder(path) for path, _ in pairs)
    rows = tuple((npz.read_npz_input_row(path, model.inputs[0]),) for path, _ in pairs)
    return _label_source_of_rows(task, model, rows, [label for _, label in pairs], tuple(notes), digests)


def truths_of_label_source(
    task: TaskName, source: Path, model: Model, label: Callable[[Arrays, Model], list[Label]]
) -> Labelled:
    """Make labelled samples of an `.npz`: an array per input, and the task's labels beside them."""
    digest = files.digest_file(source)
    rows, _ = npz.read_npz(source, model.inputs)
    truths = label(npz.load_npz(source), model)
    data.check_data_unchanged(source, digest)
    batch = model.inputs[0].shape[0] if model.inputs[0].shape else 1
    if len(truths) != len(rows) * batch:
        raise ValueError(f"it holds {len(truths)} labels for {len(rows) * batch} samples")
    return _label_source_of_rows(task, model, tuple(rows), truths, (), (digest,))


def _label_source_of_rows(
    task: TaskName,
    model: Model,
    rows: tuple[Sample, ...],
    truths: Sequence[Label],
    notes: tuple[str, ...],
    digests: tuple[str, ...],
) -> Labelled:
    return Labelled(
        "arrays",
        0,
        np.zeros(len(truths), np.int64),
        model.inputs,
        None,
        rows=rows,
        notes=notes,
        digests=digests,
        task=task,
        truths=tuple(truths),
    )


@dataclass(frozen=True)
class Placement:
    """Where a photo's pixels are in the model's input: x times `scale` minus `offset`."""

    scale: tuple[float, float]
    """The factor of x, and that of y."""
    offset: tuple[int, int]

    def points(self, points: Array) -> Array:
        """Move points [n, 2] of the photo into the input."""
        moved: Array = points * np.array(self.scale) - np.array(self.offset)
        return moved


def label_placement(path: Path, preprocessing: Preprocessing) -> Placement | None:
    """Return where a photo's pixels are in the input; None when it cannot be decoded."""
    sizes = photos.placed_photo_size(path, preprocessing)
    if sizes is None:
        return None
    (width, height), (wide, high), offset = sizes
    return Placement((wide / width, high / height), offset)


def read_label_source_json(task: TaskName, path: Path, expected: str) -> Any:
    """Read a JSON file.

    Raises:
        CalibrationError: The file is not JSON.
    """
    try:
        return json.loads(_label_source_text(task, path, expected))
    except (ValueError, RecursionError) as error:
        raise unusable_labels(task, f"{path} is not JSON: {str(error)[:120]}", expected) from None


def read_label_source_table(task: TaskName, path: Path, expected: str) -> list[dict[str, str]]:
    """Read a `.csv` or `.tsv` with a line of names, or a `.jsonl`, as rows by name.

    Raises:
        CalibrationError: The file is none of these, or a row lacks `file`.
    """
    content = _label_source_text(task, path, expected)
    try:
        if path.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in content.splitlines() if line.strip()]
        else:
            rows = list(csv.DictReader(content.splitlines(), delimiter=_label_source_delimiter(path)))
    except (ValueError, csv.Error, RecursionError) as error:
        raise unusable_labels(task, f"{path} cannot be read: {str(error)[:120]}", expected) from None
    if not rows or not all(isinstance(row, dict) and row.get("file") for row in rows):
        seen = f"columns {sorted(map(str, rows[0]))}" if rows and isinstance(rows[0], dict) else "no rows"
        raise unusable_labels(task, f"{path} holds {seen}, and not in every row a `file`", expected)
    return rows


def find_label_table(task: TaskName, source: Path, expected: str) -> tuple[Path, list[dict[str, str]]]:
    """Return the table that `source` is or holds, and its rows.

    Raises:
        CalibrationError: There is no table or more than one, or it cannot be read.
    """
    path = single_label_source(source, *TABLES)
    if path is None:
        raise unusable_labels(task, f"{source} is no table and holds not exactly one", expected)
    return path, read_label_source_table(task, path, expected)


def is_label_table(
    task: TaskName, source: Path, expected: str, is_label: Callable[[Path, Mapping[str, Any]], bool]
) -> bool:
    """Tell whether `source` is or holds one table, and every row of it is a label of the task."""
    try:
        path, rows = find_label_table(task, source, expected)
        return all(is_label(path, row) for row in rows)
    except Exception:  # the reader of the task that is chosen says what is wrong with it
        return False


def _label_source_delimiter(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","


def _label_source_text(task: TaskName, path: Path, expected: str) -> str:
    try:
        if not path.is_file():
            raise unusable_labels(task, f"{path} is no file", expected)
        if path.stat().st_size > MOST_BYTES:
            raise unusable_labels(task, f"{path} is larger than {MOST_BYTES:,} bytes", expected)
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise unusable_labels(task, f"{path} cannot be read: {error}", expected) from None


def label_source_file(task: TaskName, source: Path, name: str, expected: str) -> Path:
    """Return the file that a table or JSON names, beside it or in `images/` beside it.

    Raises:
        CalibrationError: It does not exist, or is outside the folder.
    """
    folders = folders_of_label_source(source)
    for folder in (folders[0], folders[0] / "images", *folders[1:]):
        path = folder / name
        if any(path.resolve().is_relative_to(allowed) for allowed in folders) and path.is_file():
            return path
    seen = f"{source.name} names {name!r}, which is not beside it, in images/ or in ../images/"
    raise unusable_labels(task, seen, expected)


def folders_of_label_source(source: Path) -> tuple[Path, ...]:
    """Return the folders that a table or JSON may name files in: its own, and `images/` beside that."""
    root = source.parent.resolve()
    return root, (root.parent / "images").resolve()


def is_label_source_listing(source: Path) -> bool:
    """Tell whether `source` is a file that names other files, which must be readable with it."""
    return source.suffix.lower() in {".json", ".jsonl", ".csv", ".tsv"}


def single_label_source(source: Path, *suffixes: str) -> Path | None:
    """Return `source`, or the only file of a folder, that has one of the suffixes; None if there is none."""
    if source.is_file():
        return source if source.suffix.lower() in suffixes else None
    if not source.is_dir():
        return None
    candidates = _child_files_of_label_source(source, suffixes)
    return candidates[0] if len(candidates) == 1 else None


def _child_files_of_label_source(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return a folder's files with one of the suffixes; a pipe, which would block for ever, is none."""
    return [p for p in sorted(folder.iterdir()) if p.suffix.lower() in suffixes and p.is_file()]


def some_label_names(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:SHOWN]) + (
        f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    )
