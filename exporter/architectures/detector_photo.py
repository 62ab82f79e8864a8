"""The photo that a detector of torchvision takes."""

from __future__ import annotations

from typing import Any

from exporter.architectures.built_network import Photo
from exporter.errors import UsageError
from exporter.records import Preprocessing

MULTIPLE = 32
"""Sides of the input of a network with a feature pyramid: torchvision pads photos up to this."""


def detector_photo(transform: Any, size: tuple[int, int] | None) -> Photo:
    """Return the photo that the detector takes, from its own transform."""
    fixed = transform.fixed_size  # (width, height)
    short = int(transform.min_size[-1])
    own = (int(fixed[1]), int(fixed[0])) if fixed else (short, short)
    height, width = size or own
    preprocessing = Preprocessing(
        resize=max(height, width),
        crop=(height, width),
        mean=tuple(float(value) for value in transform.image_mean),
        std=tuple(float(value) for value in transform.image_std),
        squash=True,
    )
    source = "preprocessing is that of torchvision's detector, with both sides resized to the input's"
    return Photo(preprocessing, 3, source)


def check_detector_photo_size(title: str, height: int, width: int) -> None:
    """Refuse a size that torchvision would pad.

    Raises:
        UsageError: A side is no multiple of 32.
    """
    if height % MULTIPLE or width % MULTIPLE:
        raise UsageError(
            f"{title} takes photos whose sides are multiples of {MULTIPLE}, not {height}x{width}.",
            "Give such a size: --input-shape 1x3x640x640.",
            code="EM-INPUT-SHAPE",
        )
