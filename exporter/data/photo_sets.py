"""A folder of photos, split by scenes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from exporter.data import photo_preprocessing, photos, scenes
from exporter.data.edge_inputs import is_edge_input_photo
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
from exporter.records import Array, Preprocessing, Purpose, Sample, TensorSpec

TITLES: dict[Purpose, str] = {
    "calibration": "Calibration",
    "choice": "The search's choice",
    "verification": "Verification",
}


def load_photo_sets(
    source: Path,
    inputs: tuple[TensorSpec, ...],
    preprocessing: Preprocessing | None,
    count: int,
    seed: int,
    choosing: bool,
) -> Data:
    """Get `count` samples for each purpose, crops included; see `exporter.data.load_data`.

    Raises:
        CalibrationError: The model takes no photos, or the folder holds fewer than two scenes.
    """
    spec, how = photo_set_input(source, inputs, preprocessing)
    batch, channels = spec.shape[0], photo_preprocessing.preprocessed_photo_colours(spec, how)
    paths = photos.find_photos(source)
    each = count * batch
    wanted = (3 if choosing else 2) * each
    distinct, notes, problems = photos.read_distinct_photos(paths, wanted, how, channels)
    if len(distinct) < 2:
        raise CalibrationError(
            f"{source} holds {len(paths)} picture file(s), {len(distinct)} of them usable and different; "
            f"calibration and verification each need their own. {' '.join(problems[:3])}".rstrip(),
            f"Give a folder with at least two different photos; {MORE}.",
            code="EM-FEW-SAMPLES",
        )
    names = [photo.name for photo in distinct]
    grouping = several_scenes_in_sample_sets(scenes.group_photos_into_scenes(distinct), str(source), names)
    parts = scenes.split_scenes(grouping, choosing, each)
    views = {
        purpose: _photo_set_views(
            distinct, _photo_sets_of_whole_batches(part, batch), each, how, seed + index
        )
        for index, (purpose, part) in enumerate(parts.items())
    }
    owners = {
        purpose: [shown[i : i + batch] for i in range(0, len(shown), batch)]
        for purpose, (shown, _) in views.items()
    }
    samples = {purpose: _photo_set_samples(images, spec) for purpose, (_, images) in views.items()}
    scene_of, counts = scene_fields_of_sample_sets(grouping, names, owners)
    constant = [photo.name for photo in distinct if photo.contrast < photos.MIN_CONTRAST]
    return Data(
        samples["calibration"],
        samples["verification"],
        "photos",
        (
            *notes,
            *note_on_grouped_sample_sets(grouping, names),
            *(
                _describe_photo_sets(TITLES[p], [names[i] for i in part], each)
                for p, part in parts.items()
                if part
            ),
        ),
        (
            *problems,
            *flat_sample_sets(constant, len(distinct), "photos"),
            *copies_in_sample_sets_warning(len(notes), len(distinct), wanted),
        ),
        {photo.digest: Origin(photo.name, photo.size) for photo in distinct},
        samples["choice"],
        scene_of,
        counts,
        tuple(distinct[i].path for i in (*parts["calibration"], *parts["choice"])),
    )


def photo_set_input(
    source: Path, inputs: tuple[TensorSpec, ...], preprocessing: Preprocessing | None
) -> tuple[TensorSpec, Preprocessing]:
    """Check that photos can be this model's input at all."""
    shapes = ", ".join(f"{spec.name} {list(spec.shape)} {spec.dtype}" for spec in inputs)
    hint = "Give an .npz file with an array per input instead."
    if preprocessing is not None and preprocessing.pixels:
        return inputs[0], preprocessing
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
    if spec.shape[2:] != preprocessing.crop or not is_edge_input_photo(spec, preprocessing):
        result = f"{len(preprocessing.mean)} channel(s) of {preprocessing.crop[0]}x{preprocessing.crop[1]}"
        raise CalibrationError(
            f"The preprocessing makes {result}, but the model's input is {shapes}.",
            "Change --preprocess, --mean and --std, or --input-shape.",
            code="EM-PREPROCESSING",
        )
    return spec, preprocessing


def _photo_sets_of_whole_batches(part: Sequence[int], batch: int) -> Sequence[int]:
    """Leave out the photos after the last whole batch, so that the same ones share a batch in every round."""
    return part[: len(part) - len(part) % batch] if len(part) >= batch else part


def _photo_set_views(
    distinct: Sequence[photos.Photo], part: Sequence[int], wanted: int, how: Preprocessing, seed: int
) -> tuple[list[int], list[Array]]:
    """Return which photo each of `wanted` images shows, and the images: the photos, then crops of each."""
    if not part:
        return [], []
    shown = list(itertools.islice(itertools.cycle(part), wanted))
    generator = np.random.default_rng(seed)
    crops = {i: photos.photo_crops(distinct[i], how, generator) for i in part}
    images = [distinct[i].whole for i in shown[: len(part)]]
    return shown, [*images, *(next(crops[i]) for i in shown[len(part) :])]


def _photo_set_samples(images: list[Array], spec: TensorSpec) -> tuple[Sample, ...]:
    batch = spec.shape[0]
    return tuple((np.stack(images[i : i + batch]),) for i in range(0, len(images), batch))


def _describe_photo_sets(purpose: str, names: Sequence[str], images: int) -> str:
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    crops = f" and {images - len(names)} crops of them" if images > len(names) else ""
    return f"{purpose}: {min(len(names), images)} photo(s){crops} ({shown})."
