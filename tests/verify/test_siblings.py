"""Siblings of calibration images cannot make anything pass."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from exporter import data
from exporter.records import Preprocessing, TensorSpec, Variant
from tests.photos import open_photo
from tests.variants import FP16, INT8
from tests.verify import observed

COPIES = 4
INPUT = (TensorSpec("x", (1, 3, 64, 64)),)
SMALL = Preprocessing(resize=64, crop=(64, 64))


def cropped(photo: Image.Image, number: int) -> Image.Image:
    """Cut a piece at random."""
    generator = np.random.default_rng(number)
    width, height = (int(0.8 * side) for side in photo.size)
    left, top = (
        int(generator.integers(whole - part)) for whole, part in zip(photo.size, (width, height), strict=True)
    )
    return photo.crop((left, top, left + width, top + height))


def flipped(photo: Image.Image, number: int) -> Image.Image:
    """Mirror every second copy of a crop."""
    piece = cropped(photo, number)
    return piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 2 else piece


def brightened(photo: Image.Image, number: int) -> Image.Image:
    """Change the brightness, from half to one and a half."""
    return ImageEnhance.Brightness(photo).enhance(0.5 + number / (COPIES - 1))


def encoded(photo: Image.Image, number: int) -> Image.Image:
    """Save as JPEG, from poor to good quality."""
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=20 + 20 * number)
    return Image.open(file).convert("RGB")


def resized(photo: Image.Image, number: int) -> Image.Image:
    """Make it smaller, and a little narrower."""
    share = 1 - 0.1 * number
    return photo.resize((int(photo.width * share * 0.95), int(photo.height * share)))


def filmed(photo: Image.Image, number: int) -> Image.Image:
    """Take frames of a film whose camera pans and zooms."""
    side = int(min(photo.size) * (0.7 - 0.02 * number))
    left = (photo.width - side) * number // (2 * COPIES)
    return photo.crop((left, 0, left + side, side))


EDITS = (cropped, flipped, brightened, encoded, resized, filmed)


def siblings(edit: Callable[[Image.Image, int], Image.Image]) -> dict[str, Image.Image]:
    """Return copies of two photos, under names that say nothing."""
    names = iter(np.random.default_rng(0).permutation(100))
    pairs = itertools.product(range(COPIES), ("chelsea", "coffee"))
    return {f"{next(names):03}.png": edit(open_photo(name), number) for number, name in pairs}


@pytest.mark.parametrize("edit", EDITS)
def test_edits_of_two_photos_are_two_scenes(
    edit: Callable[[Image.Image, int], Image.Image], tmp_path: Path
) -> None:
    """However copies were made, one photo's calibrate and the other's verify, as one scene."""
    for name, copy in siblings(edit).items():
        copy.save(tmp_path / name)
    assert set(data.load_data(tmp_path, INPUT, SMALL, 8).scene_of["verification"]) == {0}


@pytest.mark.parametrize("edit", EDITS)
def test_edits_in_arrays_are_two_scenes(
    edit: Callable[[Image.Image, int], Image.Image], tmp_path: Path
) -> None:
    """The same holds for rows of an array."""
    rows = [
        np.asarray(copy.resize((160, 160)), np.float32).transpose(2, 0, 1) for copy in siblings(edit).values()
    ]
    np.savez(tmp_path / "x.npz", x=np.stack(rows))
    loaded = data.load_data(tmp_path / "x.npz", (TensorSpec("x", (1, 3, 160, 160)),), None, 64)
    assert (loaded.scenes.calibration, loaded.scenes.verification) == (1, 1)


@pytest.fixture(scope="module")
def scene_of(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, ...]:
    """Load crops of two photos; return the scenes of what verifies."""
    folder = tmp_path_factory.mktemp("siblings")
    for name, copy in siblings(cropped).items():
        copy.save(folder / name)
    loaded: data.Data = data.load_data(folder, INPUT, SMALL, 64)
    return loaded.scene_of["verification"]


@pytest.mark.parametrize(
    ("variant", "noise"), [(INT8, 10**-1.5), (FP16, 10**-2.2), (replace(INT8, precision="w8"), 10**-1.5)]
)
def test_crops_of_two_photos_prove_nothing(variant: Variant, noise: float, scene_of: tuple[int, ...]) -> None:
    """Outputs at 30 or 44 dB would pass on 64 scenes; on 64 crops of one photo they are inconclusive."""
    assert len(scene_of) == 64
    assert set(scene_of) == {0}
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(64, 1, 10))
    outputs = logits + noise * generator.normal(size=logits.shape)
    independent = observed.made_references(logits)
    assert observed.judged(variant, independent, outputs).status == "passed"
    siblings = replace(independent, scenes=(np.array(scene_of),))
    verdict = observed.judged(variant, siblings, outputs)
    assert verdict.status == "inconclusive"
    assert "1 scene(s) cannot decide" in str(verdict.reason)
