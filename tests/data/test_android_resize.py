"""The report says what Android's resize changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn

from exporter.capture.embedded_preprocessing import EmbeddedPreprocessing
from exporter.data.android_resize import android_resized, note_on_android_resize, notes_on_resize_inside
from exporter.records import Preprocessing, Sample, TensorSpec

HOW = Preprocessing(resize=8, crop=(8, 8), squash=True, pixels="rgb")
SPEC = TensorSpec("image", (1, 8, 8, 3), "uint8")


def scores(sample: Sample) -> Sample:
    return (sample[0].astype(np.float32).mean(axis=(1, 2)),)


def write_photos(folder: Path, size: int, count: int = 3) -> Path:
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 256, (size, size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_android_looks_at_four_pixels_only() -> None:
    """Pillow makes grey of stripes one pixel wide; Android's four pixels are all of one stripe."""
    stripes = np.zeros((8, 32, 3), np.uint8)
    stripes[:, ::4] = 255
    image = Image.fromarray(stripes)
    pillow = np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR))
    android = np.asarray(android_resized(image, (8, 8)))
    assert 40 < pillow.mean() < 90
    assert android.mean() == 0


def test_the_note_has_the_change_of_bytes_and_output(tmp_path: Path) -> None:
    """Noise that is reduced eightfold changes by tens of 255, and the mean colours hardly."""
    note = note_on_android_resize(write_photos(tmp_path, 64), SPEC, HOW, scores)
    assert "changes bytes by" in note
    assert float(note.split("changes bytes by ")[1].split()[0]) > 20
    assert "dB SQNR" in note
    assert "of 3 photos keep their class" in note


def test_photos_of_the_inputs_size_are_not_changed(tmp_path: Path) -> None:
    """Nothing is resized, so nothing differs."""
    assert "same bytes" in note_on_android_resize(write_photos(tmp_path, 8), SPEC, HOW, scores)


@pytest.mark.parametrize("source", [None, Path("rows.npz")])
def test_other_data_have_no_note(source: Path | None) -> None:
    """Arrays are not resized."""
    assert note_on_android_resize(source, SPEC, HOW, scores) == ""


def test_the_resize_within_artifacts_is_compared_with_pillows_and_androids(tmp_path: Path) -> None:
    """Its bytes differ from Pillow's by the rounding; Android's by tens."""
    how = replace(HOW, squash=False, photo_sizes=(16, 99))
    embedded = EmbeddedPreprocessing(Means(), how)
    source = write_photos(tmp_path, 64)
    Image.new("RGB", (200, 50)).save(source / "long.png")
    spec = TensorSpec("image", (1, 16, 16, 3), "uint8")
    inside, android = notes_on_resize_inside(source, spec, how, embedded)
    average, most = (float(inside.split(word)[1].split()[0]) for word in ("Pillow's by ", "on average, "))
    assert 0 < average < 0.5
    assert most < 1.25
    assert "3 of 3 photos keep their class (3 photos)" in inside
    assert float(android.split("changes bytes by ")[1].split()[0]) > 20
    (none,) = notes_on_resize_inside(
        source, spec, how, EmbeddedPreprocessing(Means(), replace(how, photo_sizes=(65, 70)))
    )
    assert none.startswith("No photo of the folder")
    assert notes_on_resize_inside(None, spec, how, embedded) == ()


class Means(nn.Module):
    """Returns the mean of each plane."""

    def forward(self, planes: Tensor) -> Tensor:
        return planes.mean((2, 3))
