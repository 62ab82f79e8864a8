"""Labels of networks that give a class per pixel: an image of class numbers for each photo."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter.data import photo_preprocessing, photo_set_input, photos
from exporter.data.labelled import Labelled
from exporter.data.labels.label_source import (
    Arrays,
    Model,
    label_source_images,
    label_source_partners,
    label_source_photos,
    unusable_labels,
)
from exporter.records import Array, Preprocessing
from exporter.verify.scores.scored_masks import IGNORED

if TYPE_CHECKING:
    from PIL import Image

EXPECTED = (
    "photos in images/ with PNG masks of the same names in masks/ (or .jpg photos and .png masks side by "
    "side), one channel of class numbers, 255 for pixels that do not count; or an .npz with `labels`"
)
FOLDERS = ("masks", "annotations", "SegmentationClass")


def recognises_mask_labels(source: Path) -> bool:
    """Return whether this is a folder with images/ and masks/, or with a .png beside each .jpg."""
    return source.is_dir() and (_mask_label_folder(source) is not None or bool(_mask_labels_beside(source)))


def _mask_label_folder(source: Path) -> Path | None:
    return next((source / name for name in FOLDERS if any((source / name).glob("*.png"))), None)


def _mask_labels_beside(source: Path) -> list[Path]:
    """Return the .jpg photos of a folder in which each has a .png, and nothing else is a photo."""
    paths = [path for path in photos.find_photos(source) if path.suffix.lower() != ".png"]
    masks = {path.stem for path in source.glob("*.png")}
    return paths if paths and {path.stem for path in paths} == masks else []


def read_mask_labels(source: Path, model: Model) -> Labelled:
    """Read a mask per photo; masks are resized (nearest) and cropped as their photos are."""
    if not source.is_dir():
        raise unusable_labels("masks", f"{source} is no folder", EXPECTED)
    _, how = photo_set_input(source, model.inputs, model.preprocessing)
    folder = _mask_label_folder(source)
    paths = label_source_images(source) if folder else _mask_labels_beside(source)
    if not paths:
        raise unusable_labels("masks", f"{source} holds no photos with masks", EXPECTED)
    files = label_source_partners("masks", paths, folder or source, (".png",), EXPECTED)
    masks = [_read_mask_label(path) for path in files]
    count = mask_label_class_count(model)
    masks, note = number_mask_labels(masks, count)
    for path, photo, mask in zip(files, paths, masks, strict=True):
        _check_mask_label(path, photo, mask, count)
    pairs = [(photo, {"mask": place_mask_label(mask, how)}) for photo, mask in zip(paths, masks, strict=True)]
    return label_source_photos("masks", source, model, pairs, (f"Labels: {note}",))


def mask_label_class_count(model: Model) -> int | None:
    """Return how many classes a pixel may have; None where the model gives class numbers."""
    spec = next((spec for spec in model.outputs if len(spec.shape) >= 3), None)
    if spec is None or not spec.dtype.startswith("float"):
        return None
    return max(spec.shape[1], 2) if len(spec.shape) == 4 else 2


def number_mask_labels(masks: list[Array], count: int | None) -> tuple[list[Array], str]:
    """Return masks of class numbers: black and white ones of two classes are 0 and 1."""
    values = set(np.unique(np.concatenate([np.unique(mask) for mask in masks]))) if masks else set()
    if count == 2 and values == {0, IGNORED}:
        return [(mask > 0).astype(np.int64) for mask in masks], "black is class 0, white is class 1."
    return masks, f"masks hold class numbers; pixels of {IGNORED} do not count."


def _read_mask_label(path: Path) -> Array:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("PNG",)) as image:
                fault = _mask_label_pixel_fault(image)
                pixels = np.zeros(0) if fault else np.asarray(image).astype(np.int64)
    except Exception as error:  # Pillow's decoders raise whatever the hostile bytes led them to
        raise unusable_labels("masks", f"{path}: {str(error)[:120]}", EXPECTED) from None
    if fault:
        raise unusable_labels("masks", f"{path} {fault}", EXPECTED)
    return pixels


def _mask_label_pixel_fault(image: Image.Image) -> str:
    if image.width * image.height > photos.MAX_PIXELS:
        return f"has {image.width}x{image.height} pixels"
    single = image.mode in {"1", "L", "P"} or image.mode.startswith("I")
    return "" if single else f"has pixels of several channels ({image.mode})"


def _check_mask_label(path: Path, photo: Path, mask: Array, count: int | None) -> None:
    largest = int(mask[mask != IGNORED].max(initial=0))
    if count is not None and largest >= count:
        raise unusable_labels(
            "masks", f"{path.name} has class {largest}, the model {count} classes", EXPECTED
        )
    size = mask.shape[::-1]
    if (sizes := photos.photo_sizes(photo)) and size not in sizes:
        raise unusable_labels(
            "masks", f"{path.name} has {size[0]}x{size[1]} pixels, its photo others", EXPECTED
        )


def place_mask_label(mask: Array, how: Preprocessing) -> Array:
    """Resize a mask to the nearest pixels, and crop it; what sticks out of the photo does not count."""
    (wide, high), (left, top) = photo_preprocessing.preprocessed_photo_placement(
        (mask.shape[1], mask.shape[0]), how
    )
    rows, row_inside = _mask_label_places(how.crop[0], top, high, mask.shape[0])
    columns, column_inside = _mask_label_places(how.crop[1], left, wide, mask.shape[1])
    cut = mask[np.ix_(rows, columns)]
    return np.where(row_inside[:, None] & column_inside[None], cut, IGNORED)


def _mask_label_places(count: int, offset: int, resized: int, side: int) -> tuple[Array, Array]:
    """Return the pixel of the mask that each pixel of the crop shows, and whether there is one."""
    places = np.arange(count) + offset
    inside = (places >= 0) & (places < resized)
    return np.clip(((places + 0.5) * side / resized).astype(int), 0, side - 1), inside


def mask_labels_from_arrays(arrays: Arrays, model: Model) -> list[Mapping[str, Array]]:
    """Read `labels` [samples, height, width], class numbers; 255 for pixels that do not count."""
    labels = arrays.get("labels")
    if labels is None or labels.dtype.kind not in "iub" or labels.ndim not in {3, 4}:
        raise ValueError("it holds no whole numbers `labels` [samples, height, width]")
    masks: Sequence[Array] = [mask.reshape(mask.shape[-2:]).astype(np.int64) for mask in labels]
    count = mask_label_class_count(model)
    for mask in masks:
        largest = int(mask[mask != IGNORED].max(initial=0))
        if count is not None and largest >= count:
            raise ValueError(f"`labels` has class {largest}, the model {count} classes")
    return [{"mask": mask} for mask in masks]
