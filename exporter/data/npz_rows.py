"""Rows of an `.npz` file, split by scenes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from exporter.data import npz, scenes
from exporter.data.sample_sets import (
    MORE,
    Data,
    Origin,
    copies_in_sample_sets_warning,
    flat_sample_sets,
    note_on_grouped_sample_sets,
    scene_fields_of_sample_sets,
    several_scenes_in_sample_sets,
)
from exporter.errors import CalibrationError
from exporter.records import Sample, TensorSpec

FEW = 16
"""A row of fewer values may be nearly constant by chance."""
MIN_ROW_CONTRAST = 0.05
"""An array row whose standard deviation is below this fraction of all rows' is nearly constant.

For photos the same line is drawn at 5 of a typical 50 to 60 greys, see `photos.MIN_CONTRAST`."""


def load_npz_rows(source: Path, inputs: tuple[TensorSpec, ...], count: int, choosing: bool) -> Data:
    """Get up to `count` rows for each purpose; see `exporter.data.load_data`.

    Raises:
        CalibrationError: The file cannot be used, or its rows are of fewer than two scenes.
    """
    return split_npz_rows(source, *npz.read_npz(source, inputs), count, choosing)


def split_npz_rows(
    source: Path, rows: Sequence[Sample], notes: tuple[str, ...], count: int, choosing: bool
) -> Data:
    """Give every purpose up to `count` of the rows, of scenes of its own.

    Raises:
        CalibrationError: They are of fewer than two scenes.
    """
    # Before they are split: a copy would count twice in the ranges, or verify what calibrated.
    distinct = _distinct_npz_rows(rows)
    if len(distinct) < 2:
        raise CalibrationError(
            f"{source.name} holds {len(rows)} sample(s), {len(distinct)} of them different: "
            "calibration and verification each need their own.",
            f"Give at least two different samples; {MORE}.",
            code="EM-FEW-SAMPLES",
        )
    copies = len(rows) - len(distinct)
    if copies:
        notes += (f"Left out {copies} sample(s) equal to an earlier one.",)
    used = _npz_rows_of_both_halves(distinct, count, choosing)
    names = [f"row {index}" for index, _ in used]
    grouping = several_scenes_in_sample_sets(
        scenes.group_rows_into_scenes([row for _, row in used]), source.name, names
    )
    parts = scenes.split_scenes(grouping, choosing, count)
    scene_of, counts = scene_fields_of_sample_sets(
        grouping, names, {p: [[i] for i in part] for p, part in parts.items()}
    )
    samples = {purpose: tuple(used[i][1] for i in part) for purpose, part in parts.items()}
    return Data(
        samples["calibration"],
        samples["verification"],
        "arrays",
        (*notes, *note_on_grouped_sample_sets(grouping, names)),
        (
            *_too_few_npz_rows(len(samples["calibration"]), count),
            *_flat_npz_rows(used),
            *copies_in_sample_sets_warning(copies, len(distinct), 2 * count),
        ),
        {npz_row_digest(row): Origin(name) for name, (_, row) in zip(names, used, strict=True)},
        samples["choice"],
        scene_of,
        counts,
    )


def npz_row_digest(row: Sample) -> bytes:
    """Hash a sample's values: equal rows have equal hashes."""
    return hashlib.sha256(b"".join(array.tobytes() for array in row)).digest()


def _npz_rows_of_both_halves(
    rows: list[tuple[int, Sample]], count: int, choosing: bool
) -> list[tuple[int, Sample]]:
    """Return no more rows than can serve, the first ones of either half."""
    middle = (len(rows) + 1) // 2
    return [*rows[:middle][:count], *rows[middle:][: 2 * count if choosing else count]]


def _distinct_npz_rows(rows: Sequence[Sample]) -> list[tuple[int, Sample]]:
    """Return each row's number in the file and the row, without those equal to an earlier one."""
    first: dict[bytes, tuple[int, Sample]] = {}
    for index, row in enumerate(rows):
        first.setdefault(npz_row_digest(row), (index, row))
    return list(first.values())


def _flat_npz_rows(rows: Sequence[tuple[int, Sample]]) -> tuple[str, ...]:
    """Warn about rows whose float inputs hardly vary in comparison with all rows."""
    places = [i for i, array in enumerate(rows[0][1]) if array.dtype.kind == "f" and array.size >= FEW]
    if not places:
        return ()
    overall = {i: float(np.std([row[i] for _, row in rows])) for i in places}
    constant = [
        f"row {index}"
        for index, row in rows
        if all(float(row[i].std()) < MIN_ROW_CONTRAST * overall[i] for i in places)
    ]
    return flat_sample_sets(constant, len(rows), "rows")


def _too_few_npz_rows(have: int, count: int) -> tuple[str, ...]:
    if have >= min(count, 16):
        return ()
    return (f"Only {have} calibration sample(s): int8 ranges come out too narrow. Give 16 or more.",)
