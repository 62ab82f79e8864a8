"""Labelled samples for `--eval`: a folder of photos with a folder per class, or an .npz with `labels`."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from exporter import data, files
from exporter.data import npz, photo_preprocessing, photos
from exporter.errors import CalibrationError
from exporter.records import Array, Preprocessing, Sample, TaskName, TensorSpec

CLASSES_FILE = "classes.txt"
SHOWN = 5


@dataclass(frozen=True, eq=False)
class Labelled:
    """Where the samples are; photos are decoded when they are needed, one batch at a time."""

    kind: Literal["photos", "arrays"]
    classes: int
    labels: Array
    """int64 [samples]: the class of each."""
    inputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing | None
    paths: tuple[Path, ...] = ()
    rows: tuple[Sample, ...] = ()
    notes: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    """The sha256 of each photo, empty for one that cannot be opened; or of the file that holds the rows."""
    task: TaskName = ""
    """The task whose labels these are; empty for classes."""
    truths: tuple[Mapping[str, Array], ...] = ()
    """The label of each sample of a task, arrays by name; empty for classes."""

    @property
    def digest(self) -> str:
        """Return a hash of the samples, their order, and a task's labels."""
        content = hashlib.sha256("\n".join(self.digests).encode())
        for truth in self.truths:
            for name, array in sorted(truth.items()):
                content.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        return content.hexdigest()

    def batches(self) -> Iterator[tuple[Sample, list[bool]]]:
        """Yield the inputs of one call after the other, and which of its rows could be read.

        Zeros fill a last batch that is not full, and stand for photos that cannot be read.

        Raises:
            CalibrationError: A photo changed since it was found.
        """
        if self.kind == "arrays":
            yield from ((row, [True] * row[0].shape[0]) for row in self.rows)
            return
        spec, how = self.inputs[0], self.preprocessing
        assert how is not None
        batch, channels = spec.shape[0], photo_preprocessing.preprocessed_photo_colours(spec, how)
        pairs = list(zip(self.paths, self.digests, strict=True))
        for first in range(0, len(pairs), batch):
            images = [photos.read_whole_photo(p, how, channels, d) for p, d in pairs[first : first + batch]]
            images += [None] * (batch - len(images))
            blank = np.zeros(spec.shape[1:], spec.dtype)
            stacked = np.stack([blank if image is None else image for image in images])
            yield (stacked,), [image is not None for image in images]


def find_labelled(
    source: Path,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    preprocessing: Preprocessing | None,
    names: Sequence[str],
) -> Labelled:
    """Find the labelled samples and give each its class.

    Args:
        source: A folder of photos with a folder per class, or an `.npz` with an array per input and `labels`.
        inputs: The model's inputs.
        outputs: The model's outputs; the first of shape [batch, classes] says the class.
        preprocessing: How photos become inputs; needed for photos.
        names: The model's own class names, where it has them.

    Raises:
        CalibrationError: The source cannot be used: what was seen, what was expected, what to try.
    """
    classes = outputs[index_of_labelled_output(outputs)].shape[1]
    if source.is_dir():
        return _read_labelled_photos(source, inputs, preprocessing, names, classes)
    if source.suffix.lower() == ".npz" and source.is_file():
        return _read_labelled_arrays(source, inputs, classes)
    seen = "is neither" if source.exists() else "does not exist"
    raise CalibrationError(
        f"--eval: {source} {seen}; expected a folder with a folder of photos per class, or an .npz file."
    )


def index_of_labelled_output(outputs: Sequence[TensorSpec]) -> int:
    """Return the index of the output that says the class: the first of shape [batch, classes].

    Raises:
        CalibrationError: None has that shape.
    """
    for index, spec in enumerate(outputs):
        if len(spec.shape) == 2 and spec.shape[1] > 1 and spec.dtype.startswith("float"):
            return index
    shapes = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in outputs)
    raise CalibrationError(
        f"--eval judges classifiers, whose output is [batch, classes]; this model's are {shapes}.",
        "Leave --eval out: outputs are still compared one by one.",
    )


def _read_labelled_arrays(source: Path, inputs: tuple[TensorSpec, ...], classes: int) -> Labelled:
    digest = files.digest_file(source)
    rows, notes = npz.read_npz(source, inputs)
    labels = npz.read_npz_labels(source)
    data.check_data_unchanged(source, digest)
    batch = inputs[0].shape[0] if inputs[0].shape else 1
    if labels.size != len(rows) * batch:
        raise CalibrationError(
            f"{source.name}: {labels.size} labels for {len(rows) * batch} samples.",
            "Give one label for each sample.",
        )
    _check_label_range(source, labels, classes)
    ignored = tuple(note for note in notes if "'labels'" not in note)
    return Labelled(
        "arrays", classes, labels, inputs, None, rows=tuple(rows), notes=ignored, digests=(digest,)
    )


def _check_label_range(source: Path, labels: Array, classes: int) -> None:
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise CalibrationError(
            f"{source.name}: {wrong.size} label(s) are outside the model's {classes} classes "
            f"(0 to {classes - 1}); the first is {int(wrong[0])}.",
            "Labels count from 0." if int(labels.max()) == classes and int(labels.min()) == 1 else "",
            code="EM-CLASSES",
        )


def _read_labelled_photos(
    source: Path,
    inputs: tuple[TensorSpec, ...],
    preprocessing: Preprocessing | None,
    names: Sequence[str],
    classes: int,
) -> Labelled:
    _, how = data.photo_set_input(source, inputs, preprocessing)
    folders = sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise CalibrationError(
            f"--eval: {source} holds no folders; expected one per class, its photos inside.",
            "Use the layout of torchvision's ImageFolder: DIR/cat/1.jpg, DIR/dog/2.jpg.",
        )
    chosen, note = match_label_folders(source, [folder.name for folder in folders], names, classes)
    by_folder = {folder: photos.find_photos(folder) for folder in folders}
    if empty := [folder.name for folder, paths in by_folder.items() if not paths]:
        raise CalibrationError(
            f"--eval: {_some_labels(empty)} hold(s) no photos.",
            "Fill the folder, or remove it if the class is absent.",
        )
    paths = [path for folder in folders for path in by_folder[folder]]
    labels = [chosen[folder.name] for folder in folders for _ in by_folder[folder]]
    return Labelled(
        "photos",
        classes,
        np.array(labels),
        inputs,
        how,
        paths=tuple(paths),
        notes=(note,),
        digests=tuple(photos.photo_file_digest(path) for path in paths),
    )


def match_label_folders(
    source: Path, folders: Sequence[str], names: Sequence[str], classes: int
) -> tuple[dict[str, int], str]:
    """Return which class each folder holds, and a sentence on how that was decided.

    `classes.txt` next to the folders (a name per line, in the model's order) decides; else folders named by
    class number, else the model's own names, else sorted order when there are as many folders as classes.

    Raises:
        CalibrationError: Nothing fits all folders.
    """
    listed = _read_label_names(source / CLASSES_FILE, classes)
    if listed:
        return _labels_by_name(folders, listed, CLASSES_FILE), f"Labels: folders are named in {CLASSES_FILE}."
    if all(name.isdecimal() and name.isascii() and int(name) < classes for name in folders):
        return {name: int(name) for name in folders}, "Labels: folders are named by class number."
    if (
        names
        and len(names) == classes
        and any(_plain_label(name) in _label_places(names) for name in folders)
    ):
        return _labels_by_name(
            folders, names, "the model's classes"
        ), "Labels: folders bear the model's class names."
    if len(folders) == classes:
        return (
            {name: index for index, name in enumerate(folders)},
            f"Labels: the {classes} folders, sorted, are classes 0 to {classes - 1}, as in torchvision.",
        )
    raise CalibrationError(
        f"--eval: {source} holds {len(folders)} folders ({_some_labels(folders)}); "
        f"the model has {classes} classes{' without known names' if not names else ''}, "
        "so folders cannot be mapped to classes.",
        f"Name the folders by class number, or list {classes} names, one a line, in {CLASSES_FILE} there.",
        code="EM-CLASSES",
    )


def _labels_by_name(folders: Sequence[str], names: Sequence[str], where: str) -> dict[str, int]:
    places = _label_places(names)
    if missing := [name for name in folders if _plain_label(name) not in places]:
        raise CalibrationError(
            f"--eval: {_some_labels(missing)} is not among {where} ({_some_labels(names)}).",
            code="EM-CLASSES",
        )
    if twice := [name for name in folders if len(places[_plain_label(name)]) > 1]:
        raise CalibrationError(
            f"--eval: {_some_labels(twice)} names more than one of {where}.",
            "Name that folder by its class number.",
            code="EM-CLASSES",
        )
    return {name: places[_plain_label(name)][0] for name in folders}


def _label_places(names: Sequence[str]) -> Mapping[str, list[int]]:
    places: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        places.setdefault(_plain_label(name), []).append(index)
    return places


def _plain_label(name: str) -> str:
    """Normalise a class name: case is ignored, and an underscore is a blank, as in names of folders."""
    return unicodedata.normalize("NFC", name).casefold().replace("_", " ").strip()


def _read_label_names(path: Path, classes: int) -> list[str]:
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"--eval: {path} cannot be read: {error}.") from None
    names = [line.strip() for line in lines if line.strip()]
    if len(names) != classes:
        raise CalibrationError(
            f"--eval: {path} lists {len(names)} classes, the model has {classes}.", code="EM-CLASSES"
        )
    return names


def _some_labels(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def check_labelled_apart(evaluation: Labelled, used: Mapping[bytes, data.Origin], calibration: Path) -> None:
    """Refuse an evaluation set that shares samples with the calibration data.

    Raises:
        CalibrationError: A picture or row of the evaluation set is among the calibration data, whatever its
            name and encoding.
    """
    shared = list(_shared_labelled(evaluation, used))
    if shared:
        pairs = ", ".join(f"{mine} = {theirs}" for mine, theirs in shared[:SHOWN])
        more = f" and {len(shared) - SHOWN} more" if len(shared) > SHOWN else ""
        raise CalibrationError(
            f"{len(shared)} sample(s) of --eval are also in {calibration} ({pairs}{more}): accuracy on "
            "calibration data proves nothing.",
            "Remove them from one of the two.",
            code="EM-SHARED-SAMPLES",
        )


def _shared_labelled(evaluation: Labelled, used: Mapping[bytes, data.Origin]) -> Iterator[tuple[str, str]]:
    for index, row in enumerate(evaluation.rows):
        if (origin := used.get(data.npz_row_digest(row))) is not None:
            yield f"row {index}", origin.name
    sizes = {origin.size for origin in used.values()}
    how = evaluation.preprocessing
    channels = (
        photo_preprocessing.preprocessed_photo_colours(evaluation.inputs[0], how)
        if evaluation.paths and how
        else 0
    )
    for path in evaluation.paths:
        # Only pictures of the same size can be equal: the others need not be decoded.
        if not sizes.isdisjoint(photos.photo_sizes(path)):
            digest = photos.photo_digest(path, channels)
            if digest is not None and digest in used:
                yield f"{path.parent.name}/{path.name}", used[digest].name
