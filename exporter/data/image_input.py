"""Pictures of 8 bits as the input: how `--image-input` prepares them, and samples that are such pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from exporter.data.edge_inputs import is_edge_input_photo
from exporter.data.sample_sets import Data
from exporter.errors import CalibrationError, UsageError
from exporter.records import Array, ImageInput, Preprocessing, Sample, TensorSpec

WHITE = 255
BEYOND = 1.0
"""How many levels beyond black and white a value may be: a resampled picture overshoots by less."""


def image_input_of(inputs: Sequence[TensorSpec], preprocessing: Preprocessing | None) -> ImageInput:
    """Return how a picture becomes the model's input.

    Raises:
        UsageError: The model has other inputs than one picture, or its preprocessing is not known.
    """
    shapes = ", ".join(f"{spec.name} {list(spec.shape)} {spec.dtype}" for spec in inputs)
    if preprocessing is None:
        raise UsageError(
            "--image-input folds the preprocessing into Core ML packages, and none is known for this model.",
            "Give --preprocess, or --mean and --std.",
            code="EM-IMAGE-INPUT",
        )
    spec = inputs[0]
    if len(inputs) > 1 or spec.dtype != "float32" or not is_edge_input_photo(spec, preprocessing):
        raise UsageError(
            f"--image-input needs one float32 input of a picture, 1xCxHxW with 1 or 3 channels and a mean "
            f"and std for each; the model takes {shapes}.",
            "Leave --image-input out, or give --mean and --std for the channels.",
            code="EM-IMAGE-INPUT",
        )
    if spec.shape[0] != 1:
        raise UsageError(
            f"--image-input is one picture a call; the model takes {spec.shape[0]} at once ({shapes}).",
            f"Give --input-shape 1x{'x'.join(map(str, spec.shape[1:]))}.",
            code="EM-IMAGE-INPUT",
        )
    return _image_input_of_channels(preprocessing, spec.shape[1])


def _image_input_of_channels(preprocessing: Preprocessing, channels: int) -> ImageInput:
    mean, std = (
        values * channels if len(values) == 1 else values
        for values in (preprocessing.mean, preprocessing.std)
    )
    scale = [preprocessing.scale / WHITE / s for s in std]
    bias = [-m / s for m, s in zip(mean, std, strict=True)]
    # As a file stores them, so that they can be compared with what it has.
    stored = (np.array(values, np.float32).tolist() for values in (scale, bias))
    return ImageInput(*(tuple(values) for values in stored))


def image_inputs_of_data(data: Data, image: ImageInput) -> Data:
    """Return the data with every sample a picture of 8 bits; photos are, and stay as they are.

    Raises:
        CalibrationError: A sample has values that no picture gives.
    """
    return replace(
        data,
        calibration=_image_inputs_of_samples(data.calibration, image, data.kind),
        verification=_image_inputs_of_samples(data.verification, image, data.kind),
        choice=_image_inputs_of_samples(data.choice, image, data.kind),
    )


def _image_inputs_of_samples(samples: Sequence[Sample], image: ImageInput, kind: str) -> tuple[Sample, ...]:
    return tuple((_nearest_image_input(array, image, kind),) for (array,) in samples)


def _nearest_image_input(array: Array, image: ImageInput, kind: str) -> Array:
    if image.shows(array):
        return array
    levels = image.levels(array)
    if kind == "arrays" and (levels.min() < -BEYOND or levels.max() > WHITE + BEYOND):
        raise CalibrationError(
            f"--image-input: a row of the calibration data has values of {array.min():.4g} to "
            f"{array.max():.4g}, which are pixels of {levels.min():.0f} to {levels.max():.0f} by the "
            "preprocessing; a picture has 0 to 255.",
            "Give rows that are prepared as --preprocess, --mean and --std say, or a folder of photos.",
            code="EM-PREPROCESSING",
        )
    whole = levels.round().clip(0, WHITE)
    scale, bias = (np.array(values)[:, None, None] for values in (image.scale, image.bias))
    nearest: Array = np.ascontiguousarray(whole * scale + bias, dtype=array.dtype)
    return nearest
