"""Compares Pillow's resize of photos, which networks are trained with, with Android's and the artifacts' own.

`Bitmap.createScaledBitmap(…, filter = true)` weighs the four nearest pixels, however much smaller the result
is; Pillow averages all pixels that a result covers (it is antialiased).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter.data import photo_preprocessing, photos
from exporter.records import Array, Preprocessing, Runner, Sample, TensorSpec
from exporter.verify.compare_outputs import compare_sqnr_db

if TYPE_CHECKING:
    from PIL import Image

    from exporter.capture.embedded_preprocessing import EmbeddedPreprocessing

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
    return _with_changed_outputs(text, pillow, android)


def _with_changed_outputs(text: str, pillow: Array, other: Array) -> str:
    """End a sentence about bytes with what the outputs make of it, one for each photo."""
    if pillow.dtype.kind == "f":
        text += f", and the output to {compare_sqnr_db(pillow, other):.1f} dB SQNR"
    if pillow.ndim == 2 and pillow.shape[1] > 1:
        same = int((pillow.argmax(axis=1) == other.argmax(axis=1)).sum())
        text += f"; {same} of {len(pillow)} photos keep their class"
    return f"{text} ({len(pillow)} photos)"


def notes_on_resize_inside(
    source: Path | None, spec: TensorSpec, how: Preprocessing, embedded: EmbeddedPreprocessing
) -> tuple[str, ...]:
    """Say by how much the resize within artifacts differs from Pillow's, and what Android's would change.

    Args:
        source: The folder of calibration photos; anything else gives no notes.
        spec: The input, which takes whole photos.
        how: How photos become the network's input, within the artifacts.
        embedded: What resizes, and calls the network.
    """
    cropped = replace(how, photo_sizes=None)
    colours = photo_preprocessing.preprocessed_photo_colours(spec, how)

    def run(sample: Sample) -> tuple[Array, ...]:
        return (_output_for_planes(embedded, sample[0][..., :colours].transpose(0, 3, 1, 2)),)

    if source is None or not source.is_dir():
        return ()
    pairs = list(_pairs_of_resize_inside(source, cropped, colours, embedded))
    if not pairs:
        return ("No photo of the folder has the sides of --photo-sizes, to compare the resize on.",)
    changed = np.abs(np.stack([inside - pillow for pillow, inside in pairs]))
    pillow, own = (
        np.concatenate([_output_for_planes(embedded, planes[None]) for planes in each])
        for each in zip(*pairs, strict=True)
    )
    text = (
        f"The resize within the artifacts differs from Pillow's by {changed.mean():.2f} of 255 on average, "
        f"{changed.max():.1f} at most: Pillow rounds to bytes"
    )
    return (_with_changed_outputs(text, pillow, own), note_on_android_resize(source, spec, cropped, run))


def _output_for_planes(embedded: EmbeddedPreprocessing, planes: Array) -> Array:
    import torch

    from exporter.capture.calls import call_leaves

    with torch.no_grad():
        output = embedded.normalise_and_call(torch.from_numpy(np.ascontiguousarray(planes, np.float32)))
    first: Array = next(leaf for _, leaf in call_leaves(output)).numpy()
    return first


def _pairs_of_resize_inside(
    source: Path, how: Preprocessing, colours: int, embedded: EmbeddedPreprocessing
) -> Iterator[tuple[Array, Array]]:
    """Yield the planes of photos, resized by Pillow and within the artifacts, of 0 to 255."""
    import torch

    low, high = embedded.photo_sizes
    for path in _some_photos(source):
        whole = photos.read_photo_pixels(path, colours)
        pillow = photos.read_whole_photo(path, how, colours)
        if whole is None or pillow is None or not all(low <= side <= high for side in whole.shape[:2]):
            continue
        assert embedded.resize is not None
        inside = embedded.resize(torch.from_numpy(whole.astype(np.float32))[None])[0].numpy()
        yield pillow[..., :colours].transpose(2, 0, 1).astype(np.float32), inside


def _some_photos(source: Path) -> list[Path]:
    paths = photos.find_photos(source)
    return paths[:: max(1, len(paths) // MOST)][:MOST]


def _android_pairs(source: Path, spec: TensorSpec, how: Preprocessing) -> Iterator[tuple[Array, Array]]:
    """Yield the pixels of photos, resized by Pillow and as Android does."""
    for path in _some_photos(source):
        colours = photo_preprocessing.preprocessed_photo_colours(spec, how)
        pillow = photos.read_whole_photo(path, how, colours)
        android = photos.read_whole_photo(path, how, colours, resize=android_resized)
        if pillow is not None and android is not None:
            yield pillow, android
