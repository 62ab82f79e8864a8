"""Turns a decoded photo into a model's input, as torchvision's presets do: resize, crop, scale, normalise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from exporter.records import Array, Preprocessing, TensorSpec

if TYPE_CHECKING:
    from PIL import Image

Resize: TypeAlias = "Callable[[Image.Image, tuple[int, int]], Image.Image]"
"""Resizes an image to a width and height."""


def preprocessed_photo_placement(
    size: tuple[int, int], preprocessing: Preprocessing
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return width and height that a photo is resized to, and the left and top edge of the crop in that."""
    resized = _preprocessed_photo_size(size, preprocessing)
    return resized, _preprocessed_photo_crop_corner(resized, preprocessing.crop)


def preprocess_photo(image: Image.Image, preprocessing: Preprocessing, resize: Resize | None = None) -> Array:
    """Turn an "RGB" or "L" image into the model's input, as torchvision's presets do.

    Args:
        image: The whole photo.
        preprocessing: How it becomes the input; where artifacts resize it, what they take.
        resize: Another resize than Pillow's.

    Returns:
        float32 [C, crop height, crop width], contiguous; where artifacts take pixels, these: uint8
        [crop height, crop width, channels], opaque.
    """
    preprocessing = preprocessing.taken
    image = _crop_preprocessed_photo(
        _resize_preprocessed_photo(image, preprocessing, resize), preprocessing.crop
    )
    pixels = np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, -1)
    if preprocessing.pixels:
        return _preprocess_photo_pixels(pixels, preprocessing)
    values = pixels.transpose(2, 0, 1).astype(np.float32)
    if preprocessing.scale != 255.0:
        values = values / np.float32(255.0) * np.float32(preprocessing.scale)
    return np.ascontiguousarray(
        (values - _preprocessed_photo_per_channel(preprocessing.mean))
        / _preprocessed_photo_per_channel(preprocessing.std)
    )


def _preprocess_photo_pixels(pixels: Array, preprocessing: Preprocessing) -> Array:
    if preprocessing.pixels != "rgba":
        return np.ascontiguousarray(pixels)
    return np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], axis=-1)


def preprocessed_photo_colours(spec: TensorSpec, preprocessing: Preprocessing) -> int:
    """Return how many colours of a photo an input takes: 1 for grey, or 3."""
    return preprocessing.colours if preprocessing.pixels else spec.shape[1]


def _preprocessed_photo_size(stored: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    size = preprocessing.resize
    if preprocessing.squash:
        return size, size
    shorter, longer = sorted(stored)
    other = int(size * longer / shorter)  # truncated, as torchvision does
    return (size, other) if stored[0] <= stored[1] else (other, size)


def _resize_preprocessed_photo(
    image: Image.Image, preprocessing: Preprocessing, resize: Resize | None
) -> Image.Image:
    from PIL import Image

    wanted = _preprocessed_photo_size(image.size, preprocessing)
    method = Image.Resampling[preprocessing.interpolation.upper()]
    if image.size == wanted:
        return image
    return resize(image, wanted) if resize else image.resize(wanted, method)


def _crop_preprocessed_photo(image: Image.Image, crop: tuple[int, int]) -> Image.Image:
    """Cut the middle; what sticks out of the image is black, as in torchvision."""
    left, top = _preprocessed_photo_crop_corner(image.size, crop)
    return image.crop((left, top, left + crop[1], top + crop[0]))


def _preprocessed_photo_crop_corner(size: tuple[int, int], crop: tuple[int, int]) -> tuple[int, int]:
    """Return the left and top edge of the crop; negative where it sticks out of the image."""
    height, width = crop
    padded_width, padded_height = max(width, size[0]), max(height, size[1])
    # torchvision pads first, (wanted - side) // 2 on the left, and then rounds half to even.
    left = round((padded_width - width) / 2) - (padded_width - size[0]) // 2
    top = round((padded_height - height) / 2) - (padded_height - size[1]) // 2
    return left, top


def _preprocessed_photo_per_channel(values: tuple[float, ...]) -> Array:
    return np.asarray(values, dtype=np.float32)[:, None, None]
