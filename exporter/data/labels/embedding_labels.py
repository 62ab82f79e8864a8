"""Labels of networks that give vectors to compare: a folder per identity, or pairs with their similarity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from exporter.data import photo_set_input, photos
from exporter.data.labelled import Labelled
from exporter.data.labels.label_source import (
    Arrays,
    Model,
    label_source_file,
    label_source_photos,
    read_label_source_table,
    single_label_source,
    unusable_labels,
)
from exporter.records import Array
from exporter.verify.scores.scored_embeddings import NONE

EXPECTED = (
    "a folder per identity with two photos or more, a .csv of `file`, `other` and `similarity`, or an .npz "
    "with `labels` [samples], the identity's number"
)

MOST_CHARACTERS = 1 << 16
"""No more of a table's first line is read to recognise it."""


def recognises_embedding_labels(source: Path) -> bool:
    """Return whether this is a table of pairs. Folders of photos are classes without `--task`."""
    path = single_label_source(source, ".csv", ".tsv")
    if path is None:
        return False
    try:
        with path.open(encoding="utf-8-sig") as stream:
            names = stream.readline(MOST_CHARACTERS).strip().replace("\t", ",").split(",")
            return {"file", "other", "similarity"} <= set(names)
    except (OSError, UnicodeDecodeError):
        return False


def read_embedding_labels(source: Path, model: Model) -> Labelled:
    """Read folders of identities, or a table of pairs."""
    photo_set_input(source, model.inputs, model.preprocessing)
    path = single_label_source(source, ".csv", ".tsv")
    return (
        _embedding_label_pairs(source, path, model)
        if path is not None
        else _embedding_label_folders(source, model)
    )


def _embedding_label_folders(source: Path, model: Model) -> Labelled:
    if not source.is_dir():
        raise unusable_labels("embeddings", f"{source} is no folder and no table", EXPECTED)
    folders = sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [(path, number) for number, folder in enumerate(folders) for path in photos.find_photos(folder)]
    alone = [folder.name for i, folder in enumerate(folders) if sum(n == i for _, n in found) < 2]
    if len(folders) < 2 or len(alone) == len(folders):
        seen = f"{source} holds {len(folders)} folders, {len(alone)} of them with fewer than two photos"
        raise unusable_labels("embeddings", seen, EXPECTED)
    pairs = [(path, {"class": np.array(number)}) for path, number in found]
    note = f"{len(alone)} identities with a single photo only serve as others." if alone else ""
    return label_source_photos("embeddings", source, model, pairs, (note,) if note else ())


def _embedding_label_pairs(source: Path, path: Path, model: Model) -> Labelled:
    rows = read_label_source_table("embeddings", path, EXPECTED)
    try:
        names = sorted({str(row[key]) for row in rows for key in ("file", "other")})
        places = {name: number for number, name in enumerate(names)}
        listed = [
            (places[r["file"]], places[r["other"]], _finite_embedding_labels(r["similarity"])) for r in rows
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise unusable_labels(
            "embeddings", f"{path.name} has a row without a usable {error}", EXPECTED
        ) from None
    others: list[list[tuple[int, float]]] = [[] for _ in names]
    for number, other, similarity in listed:
        others[number].append((other, similarity))
    labels = [{"class": np.array(NONE), "pairs": np.array(own).reshape(-1, 2)} for own in others]
    photos_of = [label_source_file("embeddings", path, name, EXPECTED) for name in names]
    return label_source_photos("embeddings", source, model, list(zip(photos_of, labels, strict=True)))


def _finite_embedding_labels(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"similarity, {text!r:.40}")
    return value


def embedding_labels_from_arrays(arrays: Arrays, model: Model) -> list[Mapping[str, Array]]:
    """Read `labels` [samples], the identity's number."""
    labels = arrays.get("labels")
    if labels is None or labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ValueError("it holds no whole numbers `labels` [samples]")
    _, counts = np.unique(labels, return_counts=True)
    if len(counts) < 2 or counts.max() < 2:
        raise ValueError("no two samples are of one identity, or all are")
    return [{"class": np.array(label)} for label in labels]
