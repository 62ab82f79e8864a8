"""Synthetic inputs that excite a network roughly as photos do, for when no real ones are given."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from exporter.data.edge_inputs import is_edge_input_photo
from exporter.records import Array, Codes, Preprocessing, Sample, TensorSpec

# Brightness of ImageNet photos on a 0..1 scale, and how much of their variation the colours share:
# torchvision's normalisation constants are these photos' mean and deviation per channel.
NATURAL_MEAN = 0.45
NATURAL_DEVIATION = 0.226
SHARED_VARIANCE = 0.85
# Amplitude falls as frequency ** SLOPE: the sample photos at 224 pixels have -1.2 to -1.9, mean -1.5.
SLOPE = -1.5


def synthetic_sample(
    inputs: tuple[TensorSpec, ...],
    preprocessing: Preprocessing | None,
    codes: Mapping[str, Codes],
    generator: np.random.Generator,
    whole: bool = False,
) -> Sample:
    """Make one call's inputs.

    Args:
        inputs: The model's inputs.
        preprocessing: How photos become inputs, where they do.
        codes: Legal values of inputs of whole numbers, by name.
        generator: Source of randomness; advanced.
        whole: Whether texts fill their inputs; else their length is random, and padding follows them.
    """
    lengths: dict[int, int] = {}
    """Places of a text -> its length in this call: tokens, mask and segments of one text agree."""
    for spec in inputs:
        if spec.name in codes and spec.shape[-1] not in lengths:
            size = spec.shape[-1]
            lengths[size] = size if whole else int(generator.integers(max(1, size // 4), size + 1))
    masked = {spec.shape[-1] for spec in inputs if spec.name in codes and codes[spec.name].kind == "mask"}
    return tuple(
        _synthetic_codes(spec, codes[spec.name], lengths[spec.shape[-1]], spec.shape[-1] in masked, generator)
        if spec.name in codes
        else make_synthetic(
            spec,
            preprocessing if preprocessing and is_edge_input_photo(spec, preprocessing) else None,
            generator,
        )
        for spec in inputs
    )


def _synthetic_codes(
    spec: TensorSpec, codes: Codes, length: int, masked: bool, generator: np.random.Generator
) -> Array:
    """Make tokens, a mask or segments of a text of `length`; without a mask, a text fills its input."""
    row = np.zeros(spec.shape, np.dtype(spec.dtype))
    if codes.kind == "boxes":
        corners = generator.integers(0, codes.count, (*spec.shape[:-1], 2, 2))
        row[...] = np.sort(corners, axis=-2).reshape(spec.shape)
    elif codes.kind == "mask":
        row[..., :length] = 1
    elif codes.kind == "segments":
        row[..., int(generator.integers(1, length + 1)) : length] = 1
    else:
        length = length if masked else spec.shape[-1]
        drawn = generator.integers(0, max(1, codes.count - 1), (*spec.shape[:-1], length))
        row[...] = codes.padding
        row[..., :length] = drawn + (drawn >= codes.padding)  # every code but padding
        if codes.last is not None:
            row[..., length - 1] = codes.last
        if codes.first is not None:
            row[..., 0] = codes.first
    return row


def make_synthetic(
    spec: TensorSpec, preprocessing: Preprocessing | None, generator: np.random.Generator
) -> Array:
    """Make one input: image-like for 4-D floats, normally distributed for other floats, 0 or 1 for integers.

    Args:
        spec: Shape and dtype to make.
        preprocessing: Applied to image-like noise; None leaves it with mean 0 and deviation 1.
        generator: Source of randomness; advanced.
    """
    dtype = np.dtype(spec.dtype)
    if preprocessing is not None and preprocessing.pixels:
        return _synthetic_pixels(spec.shape, generator)
    if dtype.kind != "f":
        # Valid as a token, a mask and a segment number, whatever the embedding's size.
        return generator.integers(0, 2, spec.shape).astype(dtype)
    if len(spec.shape) != 4:
        return generator.standard_normal(spec.shape).astype(dtype)
    return np.ascontiguousarray(_synthetic_images(spec.shape, preprocessing, generator).astype(dtype))


def _synthetic_pixels(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Make the bytes of photos, [N, height, width, channels]; a fourth channel is alpha, and opaque."""
    batch, height, width, channels = shape
    noise = _synthetic_planes((batch, min(channels, 3), height, width), generator)
    pixels = np.round(255 * _synthetic_brightness(noise)).astype(np.uint8).transpose(0, 2, 3, 1)
    alpha = np.full((batch, height, width, channels - pixels.shape[3]), 255, np.uint8)
    return np.concatenate([pixels, alpha], axis=-1)


def _synthetic_brightness(noise: Array) -> Array:
    """Return how bright noise of deviation 1 is, from 0 to 1, as photos are on average."""
    brightness: Array = np.clip(NATURAL_MEAN + NATURAL_DEVIATION * noise, 0, 1)
    return brightness


def _synthetic_planes(shape: tuple[int, int, int, int], generator: np.random.Generator) -> Array:
    batch, channels, height, width = shape
    shared = _synthetic_noise((batch, 1, height, width), generator)
    own = _synthetic_noise((batch, channels, height, width), generator)
    noise: Array = np.sqrt(SHARED_VARIANCE) * shared + np.sqrt(1 - SHARED_VARIANCE) * own
    return noise


def _synthetic_images(
    shape: tuple[int, ...], preprocessing: Preprocessing | None, generator: np.random.Generator
) -> Array:
    batch, channels, height, width = shape
    noise = _synthetic_planes((batch, channels, height, width), generator)
    if preprocessing is None:
        return noise
    brightness = _synthetic_brightness(noise) * preprocessing.scale
    mean, std = (np.array(v)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
    image: Array = (brightness - mean) / std
    return image


def _synthetic_noise(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Make noise whose amplitude falls with frequency as in photos; mean 0 and deviation 1 per plane."""
    height, width = shape[-2:]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf  # no constant part
    spectrum = np.fft.rfft2(generator.standard_normal(shape)) * frequency**SLOPE
    plane: Array = np.fft.irfft2(spectrum, s=(height, width))
    deviation = plane.std(axis=(-2, -1), keepdims=True)
    return plane / np.where(deviation > 0, deviation, 1)
