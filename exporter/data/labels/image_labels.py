"""Labels of networks that make images: the image that each photo should become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from exporter.data import photo_set_input, photos
from exporter.data.labelled import Labelled
from exporter.data.labels.label_source import (
    Arrays,
    Model,
    label_source_images,
    label_source_partners,
    label_source_photos,
    unusable_labels,
)
from exporter.records import Array, Preprocessing, TensorSpec

EXPECTED = "photos in images/ with the wanted image of the same name in targets/, or an .npz with `labels`"
FOLDER = "targets"


def recognises_image_labels(source: Path) -> bool:
    """Return whether this is a folder with images/ and targets/."""
    return (source / FOLDER).is_dir() and (source / "images").is_dir()


def read_image_labels(source: Path, model: Model) -> Labelled:
    """Read a target per photo; it is resized and cropped as its photo is, at the output's size."""
    if not recognises_image_labels(source):
        raise unusable_labels("images", f"{source} has no images/ and {FOLDER}/", EXPECTED)
    _, how = photo_set_input(source, model.inputs, model.preprocessing)
    spec = output_for_image_labels(model)
    paths = label_source_images(source)
    targets = label_source_partners("images", paths, source / FOLDER, tuple(photos.SUFFIXES), EXPECTED)
    how = enlarged_image_labels(how, spec)
    pairs = []
    for photo, target in zip(paths, targets, strict=True):
        image = photos.read_whole_photo(target, how, spec.shape[1])
        if image is None:
            raise unusable_labels("images", f"{target} cannot be decoded", EXPECTED)
        pairs.append((photo, {"image": image.astype(np.float64)}))
    return label_source_photos("images", source, model, pairs)


def output_for_image_labels(model: Model) -> TensorSpec:
    """Return the output that is an image.

    Raises:
        CalibrationError: The model has no such output.
    """
    for spec in model.outputs:
        if len(spec.shape) == 4 and spec.shape[1] in {1, 3} and spec.dtype.startswith("float"):
            return spec
    shapes = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in model.outputs)
    raise unusable_labels("images", f"the model's outputs are {shapes}", "one of [N, 1 or 3, height, width]")


def enlarged_image_labels(how: Preprocessing, spec: TensorSpec) -> Preprocessing:
    """Return the preprocessing that makes a target of the output's size, with pixels from 0 to 1."""
    factor = spec.shape[2] / how.crop[0]
    channels = spec.shape[1]
    return replace(
        how,
        resize=round(how.resize * factor),
        crop=(spec.shape[2], spec.shape[3]),
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        scale=1.0,
        pixels="",
    )


def image_labels_from_arrays(arrays: Arrays, model: Model) -> list[Mapping[str, Array]]:
    """Read `labels` [samples, channels, height, width]: numbers from 0 to 1, or bytes."""
    labels = arrays.get("labels")
    if labels is None or labels.ndim != 4:
        raise ValueError("it holds no `labels` [samples, channels, height, width]")
    values = labels.astype(np.float64) / (255.0 if labels.dtype == np.uint8 else 1.0)
    if values.size and (values.min() < 0 or values.max() > 1):
        raise ValueError(f"`labels` ranges from {values.min():g} to {values.max():g}, not from 0 to 1")
    return [{"image": image} for image in values]
