"""Synthetic inputs that excite a network roughly as photos do, for when no real ones are given."""

from __future__ import annotations

import numpy as np

from exporter.records import Array, Preprocessing, TensorSpec

# Brightness of ImageNet photos on a 0..1 scale, and how much of their variation the colours share:
# torchvision's normalisation constants are these photos' mean and deviation per channel.
NATURAL_MEAN = 0.45
NATURAL_DEVIATION = 0.226
SHARED_VARIANCE = 0.85
# Amplitude falls as frequency ** SLOPE: the sample photos at 224 pixels have -1.2 to -1.9, mean -1.5.
SLOPE = -1.5


def make(spec: TensorSpec, preprocessing: Preprocessing | None, generator: np.random.Generator) -> Array:
    """Make one input: image-like for 4-D floats, normally distributed for other floats, 0 or 1 for integers.

    Args:
        spec: Shape and dtype to make.
        preprocessing: Applied to image-like noise; None leaves it with mean 0 and deviation 1.
        generator: Source of randomness; advanced.
    """
    dtype = np.dtype(spec.dtype)
    if dtype.kind != "f":
        # Valid as a token, a mask and a segment number, whatever the embedding's size.
        return generator.integers(0, 2, spec.shape).astype(dtype)
    if len(spec.shape) != 4:
        return generator.standard_normal(spec.shape).astype(dtype)
    return np.ascontiguousarray(_images(spec.shape, preprocessing, generator).astype(dtype))


def _images(
    shape: tuple[int, ...], preprocessing: Preprocessing | None, generator: np.random.Generator
) -> Array:
    batch, channels, height, width = shape
    shared = _smooth_noise((batch, 1, height, width), generator)
    own = _smooth_noise((batch, channels, height, width), generator)
    noise: Array = np.sqrt(SHARED_VARIANCE) * shared + np.sqrt(1 - SHARED_VARIANCE) * own
    if preprocessing is None:
        return noise
    brightness = np.clip(NATURAL_MEAN + NATURAL_DEVIATION * noise, 0, 1) * preprocessing.scale
    mean, std = (np.array(v)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
    image: Array = (brightness - mean) / std
    return image


def _smooth_noise(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Make noise whose amplitude falls with frequency as in photos; mean 0 and deviation 1 per plane."""
    height, width = shape[-2:]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf  # no constant part
    spectrum = np.fft.rfft2(generator.standard_normal(shape)) * frequency**SLOPE
    plane: Array = np.fft.irfft2(spectrum, s=(height, width))
    deviation = plane.std(axis=(-2, -1), keepdims=True)
    return plane / np.where(deviation > 0, deviation, 1)
