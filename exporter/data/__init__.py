"""Inputs to calibrate on, to choose candidates with, and to verify with: never of the same scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from exporter import files
from exporter.data import npz_rows, photo_sets, photos, scenes
from exporter.data.edge_inputs import edge_inputs
from exporter.data.npz_rows import npz_row_digest as npz_row_digest
from exporter.data.photo_sets import photo_set_input
from exporter.data.sample_sets import Data, Origin, scene_fields_of_sample_sets
from exporter.errors import CalibrationError
from exporter.records import Codes, EarlierPart, Preprocessing, Purpose, SampleReader, TensorSpec

__all__ = [
    "Data", "Origin", "data_after_earlier_part", "edge_inputs", "load_data", "npz_row_digest",
    "photo_set_input",
]  # fmt: skip

SYNTHETIC_WARNING = (
    "No --calibration given: int8 is calibrated on synthetic inputs, and is not selected unless asked for. "
    "Give a folder of photos (or an .npz of arrays) like those the model will see."
)


def load_data(
    source: Path | None,
    inputs: tuple[TensorSpec, ...],
    preprocessing: Preprocessing | None,
    count: int = 64,
    seed: int = 0,
    choosing: bool = False,
    *,
    codes: Mapping[str, Codes] = MappingProxyType({}),
    reader: SampleReader | None = None,
) -> Data:
    """Get up to `count` samples for each purpose.

    Args:
        source: A folder of photos, an `.npz` of arrays, what `reader` reads, or None for synthetic inputs.
        inputs: The model's inputs; every sample has an array per input, in its shape and dtype, C-contiguous.
        preprocessing: How photos become inputs; needed for photos.
        count: Samples per purpose. Photos that are too few are cropped to reach it; array rows are not.
        seed: Decides crops and synthetic inputs; equal arguments give equal data.
        choosing: Whether candidates will be chosen among, with samples that neither calibrate nor verify.
        codes: Legal values of inputs of whole numbers, by name.
        reader: Reads texts or recordings, where the model comes with what makes inputs of them.

    Raises:
        CalibrationError: The source cannot be used: what was seen, what was expected, what to try.
    """
    preprocessing = preprocessing and preprocessing.taken
    if source is None:
        return _synthetic_data(inputs, preprocessing, count, seed, choosing, codes)
    wanted = (3 if choosing else 2) * count
    if reader is not None and (read := reader(source, inputs, wanted)) is not None:
        return npz_rows.split_npz_rows(source, *read, count, choosing)
    if reader is None and source.suffix.lower() in (".txt", ".jsonl", ".wav"):
        raise CalibrationError(
            f"{source.name} is text or sound, and nothing here makes the network's inputs of it.",
            "Give the folder that save_pretrained wrote, or an .npz of arrays.",
        )
    if source.is_dir():
        return photo_sets.load_photo_sets(source, inputs, preprocessing, count, seed, choosing)
    if source.suffix.lower() == ".npz" and source.is_file():
        return npz_rows.load_npz_rows(source, inputs, count, choosing)
    seen = "is neither" if source.exists() else "does not exist"
    raise CalibrationError(
        f"Calibration data: {source} {seen}; expected a folder of photos or an .npz file of arrays."
    )


def data_after_earlier_part(data: Data, earlier: EarlierPart) -> Data:
    """Return the samples as the earlier part hands them on."""
    calibration, verification, choice = (
        tuple(earlier.run(sample) for sample in samples)
        for samples in (data.calibration, data.verification, data.choice)
    )
    return replace(data, calibration=calibration, verification=verification, choice=choice)


def check_data_unchanged(source: Path | None, digest: str) -> None:
    """Refuse data that changed since it was hashed.

    Raises:
        CalibrationError: It changed.
    """
    if source is not None and files.digest_file_or_folder(source) != digest:
        raise CalibrationError(f"{source} was changed while it was read.", photos.UNCHANGED)


def _synthetic_data(
    inputs: tuple[TensorSpec, ...],
    preprocessing: Preprocessing | None,
    count: int,
    seed: int,
    choosing: bool,
    codes: Mapping[str, Codes],
) -> Data:
    from exporter.data import synthetic

    generator = np.random.default_rng(seed)
    samples = [
        synthetic.synthetic_sample(inputs, preprocessing, codes, generator, whole=index % count == 0)
        for index in range((3 if choosing else 2) * count)
    ]
    owners: dict[Purpose, list[list[int]]] = {
        "calibration": [[i] for i in range(count)],
        "choice": [[i] for i in range(2 * count, len(samples))],
        "verification": [[i] for i in range(count, 2 * count)],
    }
    names = [f"synthetic {i}" for i in range(len(samples))]
    scene_of, counts = scene_fields_of_sample_sets(scenes.scenes_apart(len(samples)), names, owners)
    return Data(
        tuple(samples[:count]),
        tuple(samples[count : 2 * count]),
        "synthetic",
        (),
        (SYNTHETIC_WARNING,),
        {},
        tuple(samples[2 * count :]),
        scene_of,
        counts,
    )
