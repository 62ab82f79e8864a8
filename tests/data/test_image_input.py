"""Tests of inputs that are pictures: how bytes become them, and which samples are one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.config.request import Request
from exporter.data.image_input import image_input_of, image_inputs_of_data
from exporter.data.sample_sets import Data
from exporter.errors import CalibrationError, UsageError
from exporter.formats import VARIANTS
from exporter.pipeline.variants import check_image_variants
from exporter.records import ImageInput, Preprocessing, TensorSpec

HOW = Preprocessing(crop=(4, 6))
SPEC = TensorSpec("x", (1, 3, 4, 6))


def prepared(pixels: np.ndarray, how: Preprocessing) -> np.ndarray:
    """Prepare a picture [C, H, W] of bytes as a photo is, in float32 throughout."""
    scaled = pixels.astype(np.float32) / np.float32(255 / how.scale)
    shape = (-1, 1, 1)
    mean, std = (np.array(v, np.float32).reshape(shape) for v in (how.mean, how.std))
    return ((scaled - mean) / std).astype(np.float32)[None]


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1.0, 255.0]),
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
    st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
)
def test_bytes_come_back_from_every_preprocessing(
    seed: int, scale: float, mean: list[float], std: list[float]
) -> None:
    """Whatever scale, mean and std are, float32's rounding hides no byte."""
    how = Preprocessing(
        crop=(4, 6), scale=scale, mean=tuple(m * scale for m in mean), std=tuple(s * scale for s in std)
    )
    image = image_input_of([SPEC], how)
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 6))
    array = prepared(pixels, how)
    assert image.shows(array)
    np.testing.assert_array_equal(image.levels(array)[0].round(), pixels)


@pytest.mark.parametrize(
    ("inputs", "how", "words"),
    [
        ([SPEC], None, "none is known"),
        ([SPEC, SPEC], HOW, "one float32 input"),
        ([TensorSpec("x", (1, 3, 4, 6), "uint8")], HOW, "one float32 input"),
        ([TensorSpec("x", (1, 4, 4, 6))], HOW, "1 or 3 channels"),
        ([TensorSpec("x", (1, 1, 4, 6))], HOW, "a mean and std for each"),
        ([TensorSpec("x", (1, 3))], HOW, "one float32 input"),
        ([TensorSpec("x", (2, 3, 4, 6))], HOW, "--input-shape 1x3x4x6"),
    ],
)
def test_other_inputs_are_refused(inputs: list[TensorSpec], how: Preprocessing | None, words: str) -> None:
    """The message says what the model takes, and what would help."""
    with pytest.raises(UsageError) as raised:
        image_input_of(inputs, how)
    assert words in str(raised.value)


def data(array: np.ndarray, kind: str = "arrays") -> Data:
    return Data(((array,),), ((array,),), kind)  # type: ignore[arg-type]


def test_photos_stay_as_they_are_and_others_become_the_nearest_picture() -> None:
    """A picture is not touched; between two levels the nearest one is taken, for every purpose."""
    image = image_input_of([SPEC], HOW)
    picture = prepared(np.full((3, 4, 6), 7), HOW)
    assert image_inputs_of_data(data(picture), image).verification[0][0] is picture
    between = prepared(np.full((3, 4, 6), 7.4), HOW)
    moved = image_inputs_of_data(replace(data(between), choice=((between,),)), image)
    for samples in (moved.calibration, moved.verification, moved.choice):
        np.testing.assert_allclose(samples[0][0], picture, rtol=0, atol=1e-6)
        assert samples[0][0].dtype == np.float32


def test_rows_that_are_no_picture_are_refused() -> None:
    """Values beyond black and white show another preparation; synthetic inputs are clipped."""
    image = image_input_of([SPEC], HOW)
    beyond = prepared(np.full((3, 4, 6), 400), HOW)
    with pytest.raises(CalibrationError, match="pixels of 400 to 400"):
        image_inputs_of_data(data(beyond), image)
    (clipped,) = image_inputs_of_data(data(beyond, "synthetic"), image).verification[0]
    np.testing.assert_allclose(image.levels(clipped), 255, atol=1e-3)


def test_another_number_of_channels_is_no_picture() -> None:
    """An array of three channels is not read as a grey picture."""
    with pytest.raises(ValueError, match="no picture of 1 channel"):
        ImageInput((1.0,), (0.0,)).levels(np.zeros((1, 3, 2, 2), np.float32))


def test_the_option_needs_a_core_ml_package() -> None:
    """It would change nothing else, so that it is refused before anything is built."""
    request = Request(Path("model.pth"), target="snapdragon865", image_input=True)
    check_image_variants(request, [VARIANTS["coreml-w8"]])
    check_image_variants(replace(request, image_input=False), [VARIANTS["onnx-fp32"]])
    with pytest.raises(UsageError, match="none is made for snapdragon865"):
        check_image_variants(request, [VARIANTS["onnx-fp32"]])
