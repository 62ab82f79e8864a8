"""Labelled samples of a calibration sample's scene are left out, and the notes say so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from exporter import data
from exporter.data import labelled
from exporter.data.labelled_siblings import without_labelled_siblings
from exporter.records import Preprocessing, TensorSpec
from tests.photos import open_photo

HOW = Preprocessing(resize=40, crop=(32, 32))
INPUT = (TensorSpec("x", (1, 3, 32, 32)),)
LOGITS = (TensorSpec("logits", (1, 2)),)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> data.Data:
    """Load two photos, of which the first calibrates and the second verifies."""
    folder = tmp_path_factory.mktemp("calibration")
    open_photo("chelsea").save(folder / "a.png")
    open_photo("coffee").save(folder / "b.png")
    return data.load_data(folder, INPUT, HOW, 2)


def cropped(name: str) -> Image.Image:
    """Cut a piece of a photo, mirror it and make it brighter."""
    photo = open_photo(name)
    piece = photo.crop((photo.width // 8, photo.height // 8, photo.width * 7 // 8, photo.height * 7 // 8))
    return ImageEnhance.Brightness(piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT)).enhance(1.2)


def find(root: Path, photos: dict[str, Image.Image]) -> labelled.Labelled:
    for name, photo in photos.items():
        (root / name).parent.mkdir(exist_ok=True)
        photo.save(root / name)
    return labelled.find_labelled(root, INPUT, LOGITS, HOW, ())


def test_a_calibration_photos_sibling_is_left_out(tmp_path: Path, used: data.Data) -> None:
    """What is left keeps its labels and hashes; the note names the photo."""
    photos = {
        "0/cat.png": cropped("chelsea"),
        "0/china.png": open_photo("china"),
        "1/cup.png": cropped("coffee"),
    }
    every = find(tmp_path, photos)
    rest = without_labelled_siblings(every, used)
    assert [path.name for path in rest.paths] == ["china.png", "cup.png"]
    assert rest.labels.tolist() == [0, 1]
    assert rest.digests == every.digests[1:]
    assert rest.notes[-1] == (
        "1 labelled photo(s) show what a calibration photo shows, and do not count: 0/cat.png."
    )


def test_without_siblings_nothing_changes(tmp_path: Path, used: data.Data) -> None:
    """Other photos, and a file that is no photo, stay as they are."""
    every = find(tmp_path, {"0/flower.png": open_photo("flower"), "1/china.png": open_photo("china")})
    (tmp_path / "1" / "china.png").write_bytes(b"no photo")
    assert without_labelled_siblings(every, used) is every


ROW = (TensorSpec("x", (1, 3, 96, 96)),)


def picture_row(photo: Image.Image) -> np.ndarray:
    return np.asarray(photo.resize((96, 96)), np.float32).transpose(2, 0, 1) / 255


def load_rows(folder: Path, calibration: list[np.ndarray], inputs: tuple[TensorSpec, ...]) -> data.Data:
    """Load rows of which the first half calibrates."""
    np.savez(folder / "calibration.npz", x=np.stack(calibration))
    return data.load_data(folder / "calibration.npz", inputs, None, 64)


def find_rows(
    folder: Path, rows: list[np.ndarray], inputs: tuple[TensorSpec, ...] = ROW
) -> labelled.Labelled:
    labels = np.arange(len(rows) * inputs[0].shape[0]) % 2
    np.savez(folder / "rows.npz", x=np.stack(rows), labels=labels)
    return labelled.find_labelled(folder / "rows.npz", inputs, LOGITS, None, ())


def test_rows_of_a_calibration_pictures_scene_are_left_out(tmp_path: Path) -> None:
    """A mirrored, brighter crop of a row that calibrates does not count; one of a row that verifies does."""
    calibrating = [picture_row(open_photo(name)) for name in ("chelsea", "coffee")]
    used = load_rows(tmp_path, calibrating, ROW)
    every = find_rows(tmp_path, [picture_row(cropped(name)) for name in ("china", "chelsea", "coffee")])
    rest = without_labelled_siblings(every, used)
    assert rest.labels.tolist() == [0, 0]
    assert [row[0].sum() for row in rest.rows] == [every.rows[i][0].sum() for i in (0, 2)]
    assert rest.digest != every.digest
    assert rest.notes[-1] == (
        "1 labelled sample(s) are near copies of calibration samples, and do not count: row 1."
    )


def test_photos_of_a_calibration_rows_scene_are_left_out(tmp_path: Path) -> None:
    """Labelled photos are compared with rows of arrays that are pictures, too."""
    used = load_rows(tmp_path, [picture_row(open_photo(name)) for name in ("chelsea", "coffee")], ROW)
    (tmp_path / "photos").mkdir()
    photos = {"0/cat.png": cropped("chelsea"), "1/china.png": open_photo("china")}
    assert [p.name for p in without_labelled_siblings(find(tmp_path / "photos", photos), used).paths] == [
        "china.png"
    ]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("words", [False, True])
def test_near_copies_of_calibration_rows_are_left_out(tmp_path: Path, batch: int, words: bool) -> None:
    """Rows with a little noise, or with one word of many changed, do not count; independent rows do."""
    generator = np.random.default_rng(0)
    dtype = "int64" if words else "float32"
    shape = (24, batch, 40) if batch > 1 else (24, 40)
    inputs = (TensorSpec("x", (batch, 40), dtype),)
    fresh = (generator.integers(0, 1000, shape) if words else generator.normal(size=shape)).astype(dtype)
    used = load_rows(tmp_path, list(fresh[:12]), inputs)
    copy = (fresh[0] + (np.arange(40) == 3 if words else 0.02)).astype(dtype)
    every = find_rows(tmp_path, [*fresh[12:], copy], inputs)
    rest = without_labelled_siblings(every, used)
    assert len(every.rows) - len(rest.rows) == 1
    assert len(rest.labels) == 12 * batch
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(rest.rows, every.rows, strict=False))
