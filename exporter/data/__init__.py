"""Inputs to calibrate on and inputs to verify with: never the same ones."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from exporter import files
from exporter.data import npz, photos
from exporter.data.edges import edge_inputs, is_photo
from exporter.errors import CalibrationError
from exporter.records import Array, Preprocessing, Sample, TensorSpec

__all__ = ["Data", "Origin", "edge_inputs", "load", "photo_input", "row_digest"]

FEW = 16
"""A row of fewer values may be nearly constant by chance."""
MIN_ROW_CONTRAST = 0.05
"""An array row whose standard deviation is below this fraction of all rows' is nearly constant.

For photos the same line is drawn at 5 of a typical 50 to 60 greys, see `photos.MIN_CONTRAST`."""
SYNTHETIC_WARNING = (
    "No --calibration given: int8 is calibrated on synthetic inputs, and is not selected unless asked for. "
    "Give a folder of photos (or an .npz of arrays) like those the model will see."
)


@dataclass(frozen=True)
class Origin:
    """Where a sample comes from: a file's name, or "row 3"; and a picture's width and height."""

    name: str
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Data:
    """Samples for the two purposes; no photo or array row serves both."""

    calibration: tuple[Sample, ...]
    verification: tuple[Sample, ...]
    kind: Literal["photos", "arrays", "synthetic"]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    origins: Mapping[bytes, Origin] = field(default_factory=dict)
    """Digest of a picture or row -> its origin, for all that serve for calibration or verification."""


def load(
    source: Path | None,
    inputs: tuple[TensorSpec, ...],
    preprocessing: Preprocessing | None,
    count: int = 64,
    seed: int = 0,
) -> Data:
    """Get up to `count` calibration and `count` verification samples.

    Args:
        source: A folder of photos, an `.npz` file of arrays, or None for synthetic inputs.
        inputs: The model's inputs; every sample has an array per input, in its shape and dtype, C-contiguous.
        preprocessing: How photos become inputs; needed for photos.
        count: Samples per purpose. Photos that are too few are cropped to reach it; array rows are not.
        seed: Decides crops and synthetic inputs; equal arguments give equal data.

    Raises:
        CalibrationError: The source cannot be used: what was seen, what was expected, what to try.
    """
    if source is None:
        return _synthetic(inputs, preprocessing, count, seed)
    if source.is_dir():
        return _from_photos(source, inputs, preprocessing, count, seed)
    if source.suffix.lower() == ".npz" and source.is_file():
        return _from_arrays(source, inputs, count)
    seen = "is neither" if source.exists() else "does not exist"
    raise CalibrationError(
        f"Calibration data: {source} {seen}; expected a folder of photos or an .npz file of arrays."
    )


def check_unchanged(source: Path | None, digest: str) -> None:
    """Refuse data that changed since it was hashed.

    Raises:
        CalibrationError: It changed.
    """
    if source is not None and files.digest_path(source) != digest:
        raise CalibrationError(f"{source} was changed while it was read.", photos.UNCHANGED)


def row_digest(row: Sample) -> bytes:
    """Hash a sample's values: equal rows have equal hashes."""
    return hashlib.sha256(b"".join(array.tobytes() for array in row)).digest()


def _from_arrays(source: Path, inputs: tuple[TensorSpec, ...], count: int) -> Data:
    rows, notes = npz.read(source, inputs)
    # Before they are split: a copy would count twice in the ranges, or verify what calibrated.
    distinct = _distinct(rows)
    if len(distinct) < 2:
        raise CalibrationError(
            f"{source.name} holds {len(rows)} sample(s), {len(distinct)} of them different: "
            "calibration and verification each need their own.",
            "Give at least two different samples; a hundred or more is better.",
            code="EM-FEW-SAMPLES",
        )
    copies = len(rows) - len(distinct)
    if copies:
        notes += (f"Left out {copies} sample(s) equal to an earlier one.",)
    middle = (len(distinct) + 1) // 2
    calibration, verification = distinct[:middle][:count], distinct[middle:][:count]
    return Data(
        tuple(row for _, row in calibration),
        tuple(row for _, row in verification),
        "arrays",
        notes,
        (
            *_too_few(middle, count),
            *_flat_rows([*calibration, *verification]),
            *_copied(copies, len(distinct), 2 * count),
        ),
        {row_digest(row): Origin(f"row {index}") for index, row in distinct},
    )


def _distinct(rows: Sequence[Sample]) -> list[tuple[int, Sample]]:
    """Return each row's number in the file and the row, without those equal to an earlier one."""
    first: dict[bytes, tuple[int, Sample]] = {}
    for index, row in enumerate(rows):
        first.setdefault(row_digest(row), (index, row))
    return list(first.values())


def _flat_rows(rows: Sequence[tuple[int, Sample]]) -> tuple[str, ...]:
    """Warn about rows whose float inputs hardly vary in comparison with all rows."""
    places = [i for i, array in enumerate(rows[0][1]) if array.dtype.kind == "f" and array.size >= FEW]
    if not places:
        return ()
    overall = {i: float(np.std([row[i] for _, row in rows])) for i in places}
    flat = [
        f"row {index}"
        for index, row in rows
        if all(float(row[i].std()) < MIN_ROW_CONTRAST * overall[i] for i in places)
    ]
    return _flat(flat, len(rows), "rows") if flat else ()


def _too_few(have: int, count: int) -> tuple[str, ...]:
    if have >= min(count, 16):
        return ()
    return (f"Only {have} calibration sample(s): int8 ranges come out too narrow. Give 16 or more.",)


def _from_photos(
    source: Path, inputs: tuple[TensorSpec, ...], preprocessing: Preprocessing | None, count: int, seed: int
) -> Data:
    spec, how = photo_input(source, inputs, preprocessing)
    batch, channels = spec.shape[:2]
    paths = photos.find(source)
    each = count * batch
    distinct, notes, problems = photos.read_distinct(paths, 2 * each, how, channels)
    if len(distinct) < 2:
        raise CalibrationError(
            f"{source} holds {len(paths)} picture file(s), {len(distinct)} of them usable and different; "
            f"calibration and verification each need their own. {' '.join(problems[:3])}".rstrip(),
            "Give a folder with at least two different photos; a hundred or more is better.",
            code="EM-FEW-SAMPLES",
        )
    boundary, pair_problem = _boundary(distinct)
    sides = [distinct[:boundary], distinct[boundary:]]
    sets = [_fill(side, each, how, seed + index) for index, side in enumerate(sides)]
    calibration, verification = (_as_samples(images, spec) for images in sets)
    return Data(
        calibration,
        verification,
        "photos",
        (
            *notes,
            *(_describe(p, s, each) for p, s in zip(("Calibration", "Verification"), sides, strict=True)),
        ),
        (*problems, *pair_problem, *_flat_photos(distinct), *_copied(len(notes), len(distinct), 2 * each)),
        {photo.digest: Origin(photo.name, photo.size) for photo in distinct},
    )


def _flat_photos(distinct: Sequence[photos.Photo]) -> tuple[str, ...]:
    flat = [photo.name for photo in distinct if photo.contrast < photos.MIN_CONTRAST]
    return _flat(flat, len(distinct), "photos") if flat else ()


def _flat(names: Sequence[str], total: int, kind: str) -> tuple[str, ...]:
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return (
        f"{len(names)} of {total} {kind} are nearly constant ({shown}): int8 ranges learn little from them, "
        "and agreement on them is easy. Replace them.",
    )


def _copied(copies: int, distinct: int, wanted: int) -> tuple[str, ...]:
    """Warn when copies leave fewer different samples than were asked for."""
    if not copies or distinct >= wanted:
        return ()
    return (
        f"{copies} sample(s) are copies of others and were left out: {distinct} different ones remain of "
        f"the {wanted} requested. Replace the copies.",
    )


def photo_input(
    source: Path, inputs: tuple[TensorSpec, ...], preprocessing: Preprocessing | None
) -> tuple[TensorSpec, Preprocessing]:
    """Check that photos can be this model's input at all."""
    shapes = ", ".join(f"{spec.name} {list(spec.shape)} {spec.dtype}" for spec in inputs)
    hint = "Give an .npz file with an array per input instead."
    if (
        len(inputs) != 1
        or len(inputs[0].shape) != 4
        or inputs[0].shape[1] not in {1, 3}
        or inputs[0].dtype != "float32"
    ):
        raise CalibrationError(
            f"{source} is a folder of photos, but the model's inputs are {shapes}; "
            "expected one float32 [N, 1 or 3, height, width].",
            hint,
            code="EM-PREPROCESSING",
        )
    spec = inputs[0]
    if preprocessing is None:
        raise CalibrationError(
            f"No preprocessing is known for input {shapes}.",
            "Give --mean and --std or --preprocess.",
            code="EM-PREPROCESSING",
        )
    if spec.shape[2:] != preprocessing.crop or not is_photo(spec, preprocessing):
        result = f"{len(preprocessing.mean)} channel(s) of {preprocessing.crop[0]}x{preprocessing.crop[1]}"
        raise CalibrationError(
            f"The preprocessing makes {result}, but the model's input is {shapes}.",
            "Change --preprocess, --mean and --std, or --input-shape.",
            code="EM-PREPROCESSING",
        )
    return spec, preprocessing


def _boundary(distinct: Sequence[photos.Photo]) -> tuple[int, tuple[str, ...]]:
    """Return where calibration ends: the cut nearest to the middle that does not separate look-alikes."""
    middle = (len(distinct) + 1) // 2
    for cut in sorted(range(1, len(distinct)), key=lambda place: abs(place - middle)):
        if not photos.look_alike(distinct[cut - 1], distinct[cut]):
            return cut, ()
    return middle, ("All photos look alike: verification is hardly independent of calibration.",)


def _fill(side: Sequence[photos.Photo], wanted: int, how: Preprocessing, seed: int) -> list[Array]:
    """Return `wanted` images: the photos themselves, then crops of each in turn."""
    images = [photo.whole for photo in side[:wanted]]
    generator = np.random.default_rng(seed)
    views = [photos.crops(photo, how, generator) for photo in side]
    more = (next(view) for view in itertools.cycle(views))
    return [*images, *itertools.islice(more, wanted - len(images))]


def _as_samples(images: list[Array], spec: TensorSpec) -> tuple[Sample, ...]:
    batch = spec.shape[0]
    return tuple((np.stack(images[i : i + batch]),) for i in range(0, len(images), batch))


def _describe(purpose: str, side: Sequence[photos.Photo], images: int) -> str:
    names = ", ".join(photo.name for photo in side[:12]) + (", …" if len(side) > 12 else "")
    crops = f" and {images - len(side)} crops of them" if images > len(side) else ""
    return f"{purpose}: {min(len(side), images)} photo(s){crops} ({names})."


def _synthetic(
    inputs: tuple[TensorSpec, ...], preprocessing: Preprocessing | None, count: int, seed: int
) -> Data:
    from exporter.data import synthetic

    generator = np.random.default_rng(seed)
    samples = [
        tuple(
            synthetic.make(
                spec, preprocessing if preprocessing and is_photo(spec, preprocessing) else None, generator
            )
            for spec in inputs
        )
        for _ in range(2 * count)
    ]
    return Data(tuple(samples[:count]), tuple(samples[count:]), "synthetic", (), (SYNTHETIC_WARNING,))
