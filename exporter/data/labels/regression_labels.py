"""Labels of networks that predict numbers: a table of files and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporter.data.labelled import Labelled
from exporter.data.labels.label_source import (
    Arrays,
    Model,
    find_label_table,
    is_label_table,
    label_source_file,
    label_source_files,
    unusable_labels,
)
from exporter.records import Array

EXPECTED = (
    "a .csv, .tsv or .jsonl with `file` (a photo or .npy beside it) and a column for each number that the "
    "model gives, in its order, or an .npz with `labels` [samples, numbers]"
)


def recognises_regression_labels(source: Path) -> bool:
    """Return whether this is a table of numbers."""
    return is_label_table(
        "regression", source, EXPECTED, lambda path, row: bool(_regression_labels_numbers(path, row))
    )


def read_regression_labels(source: Path, model: Model) -> Labelled:
    """Read the table; every column but `file` is a number that the model predicts."""
    path, rows = find_label_table("regression", source, EXPECTED)
    pairs = []
    for row in rows:
        numbers = np.array(_regression_labels_numbers(path, row))
        if fault := _regression_labels_fault(numbers, model):
            raise unusable_labels("regression", f"{path.name}, {row['file']}: {fault}", EXPECTED)
        photo = label_source_file("regression", path, str(row["file"]), EXPECTED)
        pairs.append((photo, {"numbers": numbers}))
    return label_source_files("regression", source, model, pairs)


def _regression_labels_numbers(path: Path, row: Mapping[str, Any]) -> list[float]:
    values = [value for name, value in row.items() if name != "file"]
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    try:
        return [float(item) for item in flat]
    except (TypeError, ValueError):
        raise unusable_labels("regression", f"{path.name}, {row['file']}: {flat!r:.80}", EXPECTED) from None


def _regression_labels_fault(numbers: Array, model: Model) -> str:
    spec = next((spec for spec in model.outputs if spec.dtype.startswith("float")), None)
    count = math.prod(spec.shape[1:]) if spec else 0
    if numbers.size != count:
        return f"{numbers.size} number(s), the model gives {count}"
    return "" if np.isfinite(numbers).all() else "a number that is not finite"


def regression_labels_from_arrays(arrays: Arrays, model: Model) -> list[Mapping[str, Array]]:
    """Read `labels` [samples, numbers], or [samples] for a single number."""
    labels = arrays.get("labels")
    if labels is None or labels.ndim == 0:
        raise ValueError("it holds no `labels` [samples, numbers]")
    rows = labels.reshape(len(labels), -1).astype(np.float64)
    if len(rows) and (fault := _regression_labels_fault(rows[0], model)):
        raise ValueError(f"`labels` has {fault} a sample")
    if not np.isfinite(rows).all():
        raise ValueError("`labels` has a number that is not finite")
    return [{"numbers": row} for row in rows]
