"""The report says what Android's resize changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporter.data.android_resize import android_resized, note_on_android_resize
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
