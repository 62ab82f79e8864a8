"""Turn a folder's image processor into our record of preprocessing, and check that both make the same input.

The record is what the app's code is generated from. Where the two differ on test photos, none is given.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from exporter.data import photo_preprocessing
from exporter.records import Array, Preprocessing

if TYPE_CHECKING:
    from PIL import Image

INTERPOLATIONS: Mapping[int, Literal["nearest", "bilinear", "bicubic"]] = {
    0: "nearest",
    2: "bilinear",
    3: "bicubic",
}
"""Pillow's numbers of the ways to resize."""
TEST_SIZES = ((400, 300), (330, 520))
"""(width, height) of the photos on which the processor and the record are compared."""
MEAN_GREYS, MAX_GREYS = 0.5, 4.0
"""The two may differ by so many of 255 greys: rounding after the resize does that."""


def load_image_processor(transformers: Any, folder: Path) -> Any | None:
    """Load the folder's image processor; None where there is none that this transformers knows.

    No code of the folder runs.
    """
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return transformers.AutoImageProcessor.from_pretrained(
                str(folder.resolve()), local_files_only=True, use_fast=False, trust_remote_code=False
            )
    except Exception:  # it refuses in many ways; without it, the record is unknown
        return None


def size_by_image_processor(processor: Any) -> tuple[int, int] | None:
    """Return (height, width) of what the processor makes of every photo; None where that varies."""
    shapes = {
        made.shape[-2:]
        for size in TEST_SIZES
        if (made := _photo_by_image_processor(processor, _test_photo_for_image_processor(size))) is not None
    }
    return (int(shapes.copy().pop()[0]), int(shapes.pop()[1])) if len(shapes) == 1 else None


def preprocessing_of_image_processor(
    processor: Any, size: tuple[int, int], channels: int
) -> tuple[Preprocessing | None, str]:
    """Return the record for photos of `size` (height, width), and a note; None where the inputs differ.

    Args:
        processor: The folder's image processor; None where there is none.
        size: Height and width of the network's input.
        channels: Channels of the network's input.
    """
    if processor is None:
        return None, "the folder has no image processor that can be read: give --preprocess, --mean and --std"
    name = type(processor).__name__
    try:
        record = _record_of_image_processor(processor.to_dict(), size, channels)
        same = record is not None and all(
            _is_image_processor_matched(processor, record, wanted)
            for wanted in _even_sizes_of_image_processor(record)
        )
    except (ArithmeticError, MemoryError, TypeError, ValueError):  # settings that are no numbers or too large
        record, same = None, False
    if record is None or not same:
        return None, (
            f"{name} prepares photos in steps that are not known here: calibrate with arrays that it made, "
            "or give --preprocess, --mean and --std"
        )
    return record, (f"photos are prepared as the folder's {name} does, compared with it on test photos")


def _record_of_image_processor(
    settings: Mapping[str, Any], size: tuple[int, int], channels: int
) -> Preprocessing | None:
    resize, squash = _resize_of_image_processor(settings, size)
    resample = settings.get("resample", 2)
    interpolation = INTERPOLATIONS.get(int(resample)) if isinstance(resample, int) else None
    normalised = settings.get("do_normalize")
    mean = _values_of_image_processor(settings.get("image_mean") if normalised else 0.0, channels)
    std = _values_of_image_processor(settings.get("image_std") if normalised else 1.0, channels)
    if resize is None or interpolation is None or not mean or not std or min(std) <= 0:
        return None
    factor = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale") else 1.0
    shift = 1.0 if settings.get("rescale_offset") else 0.0
    white = round(float(factor) * 255, 6)
    shifted = tuple(value + shift for value in mean)
    if settings.get("include_top"):  # EfficientNet's classifiers divide by the deviation twice
        std = tuple(value * value for value in std)
    return Preprocessing(resize, size, shifted, std, interpolation, squash, white)


def _resize_of_image_processor(settings: Mapping[str, Any], size: tuple[int, int]) -> tuple[int | None, bool]:
    """Return the side that photos are resized to (None without a resize), and whether both sides get it."""
    wanted = settings.get("size")
    if not settings.get("do_resize") or not isinstance(wanted, Mapping):
        return None, False
    edge = wanted.get("shortest_edge")
    share = settings.get("crop_pct")
    if type(edge) is int and isinstance(share, float) and share > 0:
        # ConvNeXt leaves a border on small photos and squashes large ones.
        return (edge, True) if edge >= 384 else (int(edge / share), False)
    if type(edge) is int:
        return edge, False
    height, width = wanted.get("height"), wanted.get("width")
    return (height, True) if type(height) is int and height == width else (None, False)


def _values_of_image_processor(value: Any, channels: int) -> tuple[float, ...] | None:
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * channels
    plain = len(values) == channels and all(isinstance(v, int | float) for v in values)
    return tuple(float(v) for v in values) if plain else None


def _even_sizes_of_image_processor(record: Preprocessing) -> tuple[tuple[int, int], ...]:
    """Return sizes of photos that are halved exactly, so that no crop begins at half a pixel."""
    side = record.resize
    return ((2 * side, 2 * side + 80), (2 * side + 120, 2 * side))


def _is_image_processor_matched(processor: Any, record: Preprocessing, size: tuple[int, int]) -> bool:
    """Tell whether the processor and the record make the same input of a test photo."""
    image = _test_photo_for_image_processor(size)
    theirs = _photo_by_image_processor(processor, image)
    ours = photo_preprocessing.preprocess_photo(
        image.convert("L") if len(record.mean) == 1 else image, record
    )
    if theirs is None or theirs.shape != (1, *ours.shape):
        return False
    grey = record.scale / 255 / np.asarray(record.std, np.float32)[:, None, None]
    difference = np.abs(theirs[0] - ours) / grey
    return bool(difference.mean() <= MEAN_GREYS and difference.max() <= MAX_GREYS)


def _photo_by_image_processor(processor: Any, image: Image.Image) -> Array | None:
    try:
        made = processor(images=image, return_tensors="np")["pixel_values"]
    except Exception:  # a processor that needs more than a photo
        return None
    array: Array = np.asarray(made)
    return array if array.ndim == 4 else None


def _test_photo_for_image_processor(size: tuple[int, int]) -> Image.Image:
    """Make a smooth picture with other colours everywhere, so that every crop and flip shows."""
    from PIL import Image

    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
