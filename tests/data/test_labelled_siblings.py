"""Labelled photos of a calibration photo's scene are left out, and the notes say so."""

from __future__ import annotations

from pathlib import Path

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
    rest = without_labelled_siblings(every, used.calibrating)
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
    assert without_labelled_siblings(every, used.calibrating) is every
