"""Samples of one scene are found, and serve one purpose."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from exporter import data
from exporter.data import local_features, near_copies, scenes
from exporter.errors import CalibrationError
from exporter.records import Preprocessing, TensorSpec
from tests.photos import PHOTOS, open_photo

SMALL = Preprocessing(resize=32, crop=(32, 32))
INPUT = (TensorSpec("x", (1, 3, 32, 32)),)


@pytest.fixture(scope="module")
def photos() -> dict[str, Image.Image]:
    """Open real photos of different scenes."""
    return {name: open_photo(name) for name in PHOTOS}


def sibling(photo: Image.Image, share: float, seed: int) -> Image.Image:
    """Cut a piece of a share of the sides; mirror every second one, brighten it, save it as a small JPEG."""
    generator = np.random.default_rng(seed)
    width, height = (int(side * share) for side in photo.size)
    left, top = (int(generator.integers(s - p + 1)) for s, p in zip(photo.size, (width, height), strict=True))
    piece = photo.crop((left, top, left + width, top + height)).resize((240, 240 * height // width))
    if seed % 2:
        piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    encoded = io.BytesIO()
    ImageEnhance.Brightness(piece).enhance(generator.uniform(0.7, 1.3)).save(encoded, "JPEG", quality=80)
    return Image.open(encoded).convert("RGB")


def test_different_photos_are_different_scenes(photos: dict[str, Image.Image]) -> None:
    """No two photos of different things are joined, whatever their number of keypoints."""
    assert (
        list(
            local_features.pairs_by_local_features(
                [local_features.describe_local_features(p) for p in photos.values()]
            )
        )
        == []
    )


@pytest.mark.parametrize("share", [1.0, 0.8, 0.6, 0.45])
def test_pieces_of_a_photo_are_its_scene(photos: dict[str, Image.Image], share: float) -> None:
    """Crops, mirrored and brightened ones too, are joined with their photo."""
    for seed, photo in enumerate(photos.values()):
        both = [
            local_features.describe_local_features(picture)
            for picture in (photo, sibling(photo, share, seed))
        ]
        assert list(local_features.pairs_by_local_features(both)) == [(0, 1)]


def test_a_mark_in_a_corner_joins_nothing(photos: dict[str, Image.Image]) -> None:
    """A logo that all photos carry is no scene."""
    logo = photos["coffee"].resize((48, 32))
    marked = []
    for photo in itertools.islice(photos.values(), 4):
        copy = photo.resize((400, 300))
        copy.paste(logo, (340, 260))
        marked.append(local_features.describe_local_features(copy))
    assert list(local_features.pairs_by_local_features(marked)) == []


def test_pieces_never_serve_two_purposes(photos: dict[str, Image.Image], tmp_path: Path) -> None:
    """Whatever the names, all pieces of a photo calibrate, or choose, or verify."""
    for number, photo in enumerate([*photos.values()][:5] * 3):
        sibling(photo, 0.75, number).save(tmp_path / f"{number:02}.jpg", quality=90)
    loaded = data.load_data(tmp_path, INPUT, SMALL, 15, choosing=True)
    counts = loaded.scenes
    assert (counts.calibration, counts.choice, counts.verification) == (2, 1, 2)
    assert sorted(len(scene.members) for scene in counts.groups) == [3] * 5
    assert {scene.joined_by for scene in counts.groups} == {scenes.PIXELS}
    assert {purpose: len(set(numbers)) for purpose, numbers in loaded.scene_of.items()} == {
        "calibration": 2,
        "choice": 1,
        "verification": 2,
    }


def test_one_scene_is_refused(photos: dict[str, Image.Image], tmp_path: Path) -> None:
    """A folder of crops of one photo leaves nothing to verify with."""
    for seed in range(4):
        sibling(photos["chelsea"], 0.8, seed).save(tmp_path / f"{seed}.png")
    with pytest.raises(CalibrationError, match=r"All 4 samples of .* are of one scene \(by the same picture"):
        data.load_data(tmp_path, INPUT, SMALL, 4)


def test_pictures_in_arrays_are_grouped_too(photos: dict[str, Image.Image], tmp_path: Path) -> None:
    """Rows that are crops of one photo serve one purpose."""
    spec = (TensorSpec("x", (1, 3, 128, 128)),)
    rows = [
        np.asarray(sibling(photo, 0.85, seed).resize((128, 128)), np.float32).transpose(2, 0, 1)
        for photo in itertools.islice(photos.values(), 4)
        for seed in range(2)
    ]
    np.savez(tmp_path / "x.npz", x=np.stack(rows))
    counts = data.load_data(tmp_path / "x.npz", spec, None, 8).scenes
    assert (counts.calibration, counts.verification) == (2, 2)


@pytest.mark.parametrize("copies", [2, 5, 16])
def test_near_copies_of_rows_are_one_scene(copies: int, tmp_path: Path) -> None:
    """Rows with a little noise added to them serve one purpose, in any order."""
    generator = np.random.default_rng(copies)
    base = np.repeat(generator.normal(size=(6, 40)), copies, axis=0)
    rows = generator.permutation(base + 0.02 * generator.normal(size=base.shape))
    np.savez(tmp_path / "x.npz", x=rows.astype(np.float32))
    counts = data.load_data(tmp_path / "x.npz", (TensorSpec("x", (1, 40)),), None, 64).scenes
    assert (counts.calibration, counts.verification) == (3, 3)
    assert {scene.joined_by for scene in counts.groups} == {scenes.VALUES}


@pytest.mark.parametrize("kind", ["normal", "heavy tails", "words", "rising", "two classes"])
def test_independent_rows_are_scenes_of_their_own(kind: str) -> None:
    """Rows that were drawn on their own are not joined, whatever their distribution."""
    generator = np.random.default_rng(0)
    rows = {
        "normal": generator.normal(size=(64, 30)),
        "heavy tails": generator.standard_t(2, size=(64, 30)),
        "words": generator.integers(0, 1000, (64, 30)),
        "rising": np.cumsum(generator.normal(size=(64, 200)), axis=1),
        "two classes": generator.normal(size=(64, 30)) + 3 * generator.integers(0, 2, (64, 1)),
    }[kind]
    assert list(near_copies.pairs_of_near_copies([(row,) for row in rows])) == []


def test_words_count_by_how_many_differ() -> None:
    """Sentences that differ in one word are near copies, however far apart the words' numbers are."""
    generator = np.random.default_rng(0)
    sentences = generator.integers(0, 50_000, (8, 40))
    edited = sentences.copy()
    edited[:, 3] = generator.integers(0, 50_000, 8)
    rows = [(row,) for row in (*sentences, *edited)]
    assert sorted(near_copies.pairs_of_near_copies(rows)) == [(i, i + 8) for i in range(8)]


@pytest.mark.parametrize("choosing", [False, True])
@pytest.mark.parametrize("count", range(2, 30))
def test_every_scene_serves_one_purpose(count: int, choosing: bool) -> None:
    """All scenes serve, in their order; with two scenes only, those that calibrate choose."""
    parts = scenes.split_scenes(scenes.scenes_apart(count), choosing, 100)
    verification = set(parts["verification"])
    assert verification
    assert parts["calibration"]
    assert bool(parts["choice"]) == choosing
    assert not verification & {*parts["calibration"], *parts["choice"]}
    assert count == 2 or not set(parts["calibration"]) & set(parts["choice"])
    assert {*parts["calibration"], *parts["choice"], *verification} == set(range(count))


def test_a_batch_that_shares_a_photo_is_the_same_scene() -> None:
    """Calls whose batches share a scene are one witness."""
    assert scenes.scenes_of_samples([[0, 1], [2, 3], [1, 4], [5, 6]]) == (0, 1, 0, 2)
