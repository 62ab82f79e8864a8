"""Compares Pillow's resize of photos, which networks are trained with, with the resize that Android has.

`Bitmap.createScaledBitmap(…, filter = true)` weighs the four nearest pixels, however much smaller the result
is; Pillow averages all pixels that a result covers (it is antialiased).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter.data import photo_preprocessing, photos
from exporter.records import Array, Preprocessing, Runner, TensorSpec
from exporter.verify.compare_outputs import compare_sqnr_db

if TYPE_CHECKING:
    from PIL import Image

MOST = 16
"""Photos that are compared."""


def android_resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize as Android does: bilinear, without antialiasing."""
    import cv2
    from PIL import Image

    return Image.fromarray(cv2.resize(np.asarray(image), size, interpolation=cv2.INTER_LINEAR))


def note_on_android_resize(source: Path | None, spec: TensorSpec, how: Preprocessing, run: Runner) -> str:
    """Say by how much Android's resize changes a photo's bytes and the network's first output.

    Args:
        source: The folder of calibration photos; anything else gives no note.
        spec: The network's input, which takes pixels.
        how: How photos become the input.
        run: Runs the network.
    """
    if source is None or not source.is_dir():
        return ""
    pairs = list(_android_pairs(source, spec, how))
    if not pairs:
        return ""
    bytes_changed = np.abs(np.stack([android.astype(np.int16) - pillow for pillow, android in pairs]))
    if not bytes_changed.any():
        return "Android's resize gives the same bytes as Pillow's: no photo needs one"
    outputs = [[run((np.stack([image] * spec.shape[0]),))[0][0] for image in pair] for pair in pairs]
    pillow, android = (np.stack(each) for each in zip(*outputs, strict=True))
    text = (
        f"Android's resize (bilinear, not antialiased) in place of Pillow's changes bytes by "
        f"{bytes_changed.mean():.1f} of 255 on average, {bytes_changed.max()} at most"
    )
    if pillow.dtype.kind == "f":
        text += f", and the output to {compare_sqnr_db(pillow, android):.1f} dB SQNR"
    if pillow.ndim == 2 and pillow.shape[1] > 1:
        same = int((pillow.argmax(axis=1) == android.argmax(axis=1)).sum())
        text += f"; {same} of {len(pairs)} photos keep their class"
    return f"{text} ({len(pairs)} photos)"


def _android_pairs(source: Path, spec: TensorSpec, how: Preprocessing) -> Iterator[tuple[Array, Array]]:
    """Yield the pixels of photos, resized by Pillow and as Android does."""
    paths = photos.find_photos(source)
    for path in paths[:: max(1, len(paths) // MOST)][:MOST]:
        colours = photo_preprocessing.preprocessed_photo_colours(spec, how)
        pillow = photos.read_whole_photo(path, how, colours)
        android = photos.read_whole_photo(path, how, colours, resize=android_resized)
        if pillow is not None and android is not None:
            yield pillow, android
