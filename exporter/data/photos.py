"""Finds photos in a folder, and opens them without trusting them."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter.data.photo_preprocessing import (
    Resize,
    _preprocessed_photo_size,
    preprocess_photo,
    preprocessed_photo_placement,
)
from exporter.errors import CalibrationError
from exporter.files import digest_file
from exporter.records import Array, Preprocessing

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
# Pillow tries all its decoders whatever the suffix; among them is EPS, which starts Ghostscript.
DECODERS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 100_000_000
"""The most pixels of a photo, as stored and as resized; decoded as RGB they take 300 MB."""
UNCHANGED = "Give a copy that nothing writes to."
MAX_FILE_BYTES = 512 << 20
"""The largest file of a photo; a TIFF of `MAX_PIXELS` is smaller."""
CONTRAST_SIZE = (64, 64)
MIN_CONTRAST = 5.0
"""A photo whose 64x64 greys (0 to 255) have a smaller standard deviation is nearly one colour.

Measured: a black frame with sensor noise 0.6 to 1.3, an evenly lit wall 3.2 to 3.4; the flattest photographs
of scikit-image 9.8 (a retina's detail), 12 (the moon) and 17 (bricks, deep space); most have 30 to 80."""
CROP_SCALES = (0.85, 0.7, 0.55, 0.4)
"""Sides of the crops as a share of the largest crop that fits."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photo: what the model gets of it, and what is needed to cut more from it."""

    path: Path
    whole: Array
    """The preprocessed photo, float32 [C, H, W]."""
    reduced: Image.Image
    """Small enough to keep many of, large enough to crop from."""
    size: tuple[int, int]
    """Width and height of the picture as decoded."""
    digest: bytes
    """A hash of the decoded pixels: equal for copies, however they are encoded."""
    contrast: float
    """Standard deviation of its greys, 0 to 128; see `MIN_CONTRAST`."""

    @property
    def name(self) -> str:
        return self.path.name


def find_photos(folder: Path) -> list[Path]:
    """Return every file under `folder` with a photo's suffix, sorted; links to folders are not followed."""

    def refuse(error: OSError) -> None:
        raise CalibrationError(f"Cannot read {error.filename}: {error.strerror}.", "Check its permissions.")

    candidates = (
        Path(root) / name
        for root, _, names in os.walk(folder, onerror=refuse)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES
    )
    return sorted(path for path in candidates if path.is_file())


def read_distinct_photos(
    paths: list[Path], limit: int, preprocessing: Preprocessing, channels: int
) -> tuple[list[Photo], list[str], list[str]]:
    """Decode up to `limit` different photos, spread evenly over `paths`.

    Returns:
        Photos in the order of `paths`; notes (copies left out); warnings (what could not be read, and why).
    """
    photos: dict[Path, Photo] = {}
    seen: dict[bytes, str] = {}
    notes, problems = [], []
    for path in _spread_photos(paths, limit):
        try:
            photo = _read_photo(path, preprocessing, channels)
        except _UnusablePhoto as error:
            problems.append(f"Skipped {path.name!r}: {error}.")
            continue
        if photo.digest in seen:
            notes.append(f"Left out {path.name!r}: the same picture as {seen[photo.digest]!r}.")
            continue
        seen[photo.digest] = path.name
        photos[path] = photo
        if len(photos) == limit:
            break
    return [photos[path] for path in sorted(photos)], notes, problems


def photo_file_digest(path: Path) -> str:
    """Return the sha256 of a photo's file; empty when it cannot be opened or is too large to be one."""
    try:
        return digest_file(path) if path.stat().st_size <= MAX_FILE_BYTES else ""
    except OSError:
        return ""


def read_whole_photo(
    path: Path,
    preprocessing: Preprocessing,
    channels: int,
    sha256: str | None = None,
    resize: Resize | None = None,
) -> Array | None:
    """Read one photo as the model gets it, float32 [C, H, W]; None when it cannot be used.

    Args:
        path: The photo.
        preprocessing: How it becomes the input.
        channels: Number of the input's channels.
        sha256: The result of `photo_file_digest`: the bytes that are decoded must be those that were hashed.
            None accepts any bytes.
        resize: Another resize than Pillow's.

    Raises:
        CalibrationError: The file changed since it was hashed.
    """
    if sha256 == "":
        return None
    content = _photo_bytes(path)
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise CalibrationError(f"{path} was changed while it was read.", UNCHANGED)
    try:
        image = _decode_photo(io.BytesIO(content)).convert("L" if channels == 1 else "RGB")
        _check_photo_size(_preprocessed_photo_size(image.size, preprocessing), "once resized")
        return preprocess_photo(image, preprocessing, resize)
    except _UnusablePhoto:
        return None


def read_photo_pixels(path: Path, channels: int) -> Array | None:
    """Read one photo as it is, upright: uint8 [height, width, channels]; None when it cannot be used."""
    try:
        image = _decode_photo(path).convert("L" if channels == 1 else "RGB")
    except _UnusablePhoto:
        return None
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)


def photo_digest(path: Path, channels: int) -> bytes | None:
    """Hash a photo's decoded pixels, as in `Photo`; None when it cannot be decoded."""
    try:
        return _photo_content(_decode_photo(path).convert("L" if channels == 1 else "RGB"))
    except _UnusablePhoto:
        return None


def open_photo(path: Path) -> Image.Image | None:
    """Decode a photo in colour; None when it cannot be used."""
    try:
        return _decode_photo(path).convert("RGB")
    except _UnusablePhoto:
        return None


def photo_sizes(path: Path) -> set[tuple[int, int]]:
    """Return width and height that a photo may have once decoded, either way round; from its header alone."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=DECODERS) as image:
                return {image.size, (image.height, image.width)}
    except Exception:  # whatever hostile bytes lead Pillow to
        return set()


def placed_photo_size(
    path: Path, preprocessing: Preprocessing
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None:
    """Return a photo's width and height once decoded, and its placement; None when it cannot be decoded."""
    try:
        size = _decode_photo(path).size
    except _UnusablePhoto:
        return None
    return (size, *preprocessed_photo_placement(size, preprocessing))


def _photo_content(image: Image.Image) -> bytes:
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()


def photo_crops(
    photo: Photo, preprocessing: Preprocessing, generator: np.random.Generator
) -> Iterator[Array]:
    """Yield endless different views of one photo: several scales, any position, half of them mirrored."""
    from PIL import Image

    height, width = preprocessing.crop
    largest = min(photo.reduced.width / width, photo.reduced.height / height)
    while True:
        for scale in CROP_SCALES:
            w, h = (max(1, int(side * largest * scale)) for side in (width, height))
            left = int(generator.integers(photo.reduced.width - w + 1))
            top = int(generator.integers(photo.reduced.height - h + 1))
            view = photo.reduced.crop((left, top, left + w, top + h))
            if generator.integers(2):
                view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            yield preprocess_photo(view, preprocessing)


class _UnusablePhoto(Exception):  # noqa: N818 - a reason, not an error of ours
    """The reason why a file is not a usable photo."""


def _spread_photos(paths: list[Path], limit: int) -> Iterable[Path]:
    """Return an evenly spaced `limit` of `paths`, then the rest, so that a few of many stand for all."""
    chosen = {index * len(paths) // limit for index in range(limit)} if len(paths) > limit else set()
    rest = [index for index in range(len(paths)) if index not in chosen]
    return [paths[index] for index in [*sorted(chosen), *rest]]


def _read_photo(path: Path, preprocessing: Preprocessing, channels: int) -> Photo:
    image = _decode_photo(path).convert("L" if channels == 1 else "RGB")
    _check_photo_size(_preprocessed_photo_size(image.size, preprocessing), "once resized")
    reduced = image.copy()
    shorter = 2 * max(preprocessing.resize, *preprocessing.crop)
    ratio = shorter / min(image.size)
    if ratio < 1:
        reduced = image.resize((max(1, round(image.width * ratio)), max(1, round(image.height * ratio))))
    return Photo(
        path=path,
        whole=preprocess_photo(image, preprocessing),
        reduced=reduced,
        size=image.size,
        digest=_photo_content(image),
        contrast=float(np.asarray(reduced.convert("L").resize(CONTRAST_SIZE)).std()),
    )


def _photo_bytes(path: Path) -> bytes:
    """Read a file's content, no more than a photo may have; empty when the file is gone."""
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_FILE_BYTES + 1)
    except OSError:
        return b""


def _decode_photo(path: Path | io.BytesIO) -> Image.Image:
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            # Our own limit is stricter than the one Pillow warns about; its other remarks are not the user's.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=DECODERS) as image:
                _check_photo_size(image.size, "as stored")
                image.load()
                return _eight_bit_photo(ImageOps.exif_transpose(image))
    except _UnusablePhoto:
        raise
    except Exception as error:  # Pillow's decoders raise whatever the hostile bytes led them to
        raise _UnusablePhoto(_photo_reason(error)) from error


def _check_photo_size(size: tuple[int, int], when: str) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise _UnusablePhoto(f"{size[0]}x{size[1]} pixels {when}, at most {MAX_PIXELS:,} are read")


def _photo_reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not a picture in a known format"
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'cannot be decoded'}"[
        :160
    ]


def _eight_bit_photo(image: Image.Image) -> Image.Image:
    """Convert to RGB or L with 8 bits a channel, whatever the file holds."""
    from PIL import Image

    if image.mode.startswith("F"):
        raise _UnusablePhoto("floating-point pixels: which value is white is unknown")
    if image.mode.startswith("I"):
        deep = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray((deep >> 8).astype(np.uint8))
    return image.convert("L" if image.mode in {"1", "L", "LA"} else "RGB")
