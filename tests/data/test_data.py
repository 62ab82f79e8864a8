"""Calibration and verification inputs are faithful, disjoint, deterministic, and safe to read."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exporter import data
from exporter.data import Data, photo_preprocessing, photos
from exporter.errors import CalibrationError
from exporter.records import Array, Preprocessing, Sample, TensorSpec

SMALL = Preprocessing(resize=40, crop=(32, 32))
INPUT = (TensorSpec("x", (1, 3, 32, 32)),)
PAIR = (TensorSpec("top", (1, 4)), TensorSpec("ids", (1, 3), "int64"))


def picture(seed: int, size: tuple[int, int] = (60, 48), mode: str = "RGB") -> Image.Image:
    """Draw a photo-like picture: large blobs, a different layout for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write six different photos, a.png to f.png."""
    for index, name in enumerate("abcdef"):
        picture(index).save(tmp_path / f"{name}.png")
    return tmp_path


def load(source: Path | None, count: int = 8, seed: int = 0) -> Data:
    return data.load_data(source, INPUT, SMALL, count, seed)


def whole(path: Path) -> bytes:
    """Return the preprocessed photo as bytes, to find it in a set of samples."""
    return photo_preprocessing.preprocess_photo(Image.open(path).convert("RGB"), SMALL)[None].tobytes()


def contents(samples: tuple[Sample, ...]) -> set[bytes]:
    return {sample[0].tobytes() for sample in samples}


PRESETS: list[dict[str, Any]] = [
    {"crop_size": 224, "resize_size": 256},
    {"crop_size": 224, "resize_size": 232, "interpolation": "bilinear"},
    {"crop_size": 240, "resize_size": 240, "interpolation": "bicubic"},
    {"crop_size": 299, "resize_size": 342, "interpolation": "nearest"},
    {"crop_size": 301, "resize_size": 256},
    {"crop_size": 31, "resize_size": 64, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.25, 1.0)},
]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: f"{p['resize_size']}-{p['crop_size']}")
@pytest.mark.parametrize("turned", [False, True], ids=["landscape", "portrait"])
def test_preprocessing_equals_torchvision(preset: dict[str, Any], turned: bool) -> None:
    """A photo becomes bit for bit what torchvision's ImageClassification preset makes of it."""
    from exporter.capture import torchvision_ops

    torchvision_ops.prepare_torchvision_ops()
    import skimage
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms._presets import ImageClassification

    image = Image.open(Path(skimage.__file__).parent / "data" / "chelsea.png").convert("RGB")
    image = image.transpose(Image.Transpose.ROTATE_90) if turned else image
    method = preset.get("interpolation", "bilinear")
    expected = ImageClassification(**preset | {"interpolation": InterpolationMode(method)})(image)
    settings = {"mean": preset["mean"], "std": preset["std"]} if "mean" in preset else {}
    size = preset["crop_size"]
    how = Preprocessing(resize=preset["resize_size"], crop=(size, size), interpolation=method, **settings)
    actual = photo_preprocessing.preprocess_photo(image, how)
    assert actual.flags.c_contiguous
    np.testing.assert_array_equal(expected.numpy(), actual)


def test_squash_resizes_both_sides() -> None:
    """A squashing model sees the whole photo, whatever its shape."""
    image = picture(0, (90, 30))
    actual = photo_preprocessing.preprocess_photo(
        image, Preprocessing(resize=32, crop=(32, 32), mean=(0,) * 3, std=(1,) * 3, squash=True)
    )
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_scale_255_keeps_raw_bytes() -> None:
    """A model trained on raw bytes gets them."""
    how = Preprocessing(resize=32, crop=(32, 32), mean=(0.0,) * 3, std=(1.0,) * 3, scale=255.0)
    actual = photo_preprocessing.preprocess_photo(picture(0, (32, 32)), how)
    np.testing.assert_array_equal(actual, np.asarray(picture(0, (32, 32))).transpose(2, 0, 1))


def test_no_photo_is_on_both_sides(folder: Path) -> None:
    """Whole photos of one side never appear on the other, and neither do any views of them."""
    result = load(folder)
    first, second = contents(result.calibration), contents(result.verification)
    assert {whole(folder / f"{n}.png") for n in "abc"} <= first
    assert {whole(folder / f"{n}.png") for n in "def"} <= second
    assert not first & second


def test_samples_are_contiguous_and_shaped(folder: Path) -> None:
    """Exporters bake in the example's memory layout: samples are C-contiguous, in the input's shape."""
    result = load(folder)
    for (array,) in result.calibration + result.verification:
        assert (array.shape, array.dtype.name, array.flags.c_contiguous) == ((1, 3, 32, 32), "float32", True)


def test_few_photos_are_cropped_to_fill_up(folder: Path) -> None:
    """Three photos a side still give `count` different samples."""
    result = load(folder, count=20)
    assert (len(contents(result.calibration)), len(contents(result.verification))) == (20, 20)
    assert "17 crops" in result.notes[0]


def test_crops_have_several_scales(folder: Path) -> None:
    """Crops zoom in by different amounts: they are not the same view mirrored."""
    photo = photos.read_distinct_photos([folder / "a.png"], 1, SMALL, 3)[0][0]
    seen: list[tuple[int, int, int, int]] = []
    crop = photo.reduced.crop

    def spy(box: tuple[int, int, int, int]) -> Image.Image:
        seen.append(box)
        return crop(box)

    photo.reduced.crop = spy  # type: ignore[method-assign,assignment]
    views = photos.photo_crops(photo, SMALL, np.random.default_rng(0))
    for _ in range(12):
        next(views)
    assert len({right - left for left, _, right, _ in seen}) == len(photos.CROP_SCALES)
    assert len({(left, top) for left, top, _, _ in seen}) > 8


def test_equal_arguments_give_equal_data(folder: Path) -> None:
    """The seed decides: another first gives other crops, the same first the same."""
    first, same, other = load(folder), load(folder), load(folder, seed=1)
    assert [s[0].tobytes() for s in first.calibration] == [s[0].tobytes() for s in same.calibration]
    assert contents(first.calibration) != contents(other.calibration)


def test_a_pixel_identical_copy_is_left_out(folder: Path) -> None:
    """The same pixels under another name and encoding do not reach the other side."""
    picture(0).save(folder / "z.bmp")
    result = load(folder)
    assert whole(folder / "a.png") in contents(result.calibration)
    assert whole(folder / "a.png") not in contents(result.verification)
    assert any("'z.bmp'" in note and "'a.png'" in note for note in result.notes)


def test_a_stereo_pair_stays_on_one_side(tmp_path: Path) -> None:
    """The cut moves rather than separate two pictures of one scene."""
    for name, seed in {"a": 0, "b": 1, "d": 3, "e": 4}.items():
        picture(seed).save(tmp_path / f"{name}.png")
    scene = picture(2, (66, 48))
    scene.crop((0, 0, 60, 48)).save(tmp_path / "c-left.png")
    scene.crop((3, 0, 63, 48)).save(tmp_path / "c-right.png")
    result = load(tmp_path)
    left, right = whole(tmp_path / "c-left.png"), whole(tmp_path / "c-right.png")
    sides = [contents(result.calibration), contents(result.verification)]
    assert [left in side for side in sides] == [right in side for side in sides]


def test_only_what_is_needed_is_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few evenly spread photos are read of many."""
    opened: list[str] = []
    decode = photos._decode_photo

    def count(path: Path) -> Image.Image:
        opened.append(path.name)
        return decode(path)

    monkeypatch.setattr(photos, "_decode_photo", count)
    load(folder, count=1)
    assert opened == ["a.png", "d.png"]


def test_folders_are_searched_in_depth(folder: Path) -> None:
    """Photos in nested folders are found; files of other kinds are ignored."""
    (folder / "x" / "y").mkdir(parents=True)
    picture(9).save(folder / "x" / "y" / "g.JPG", "JPEG")
    (folder / "notes.txt").write_text("no photo")
    assert [p.name for p in photos.find_photos(folder)] == [
        "a.png",
        "b.png",
        "c.png",
        "d.png",
        "e.png",
        "f.png",
        "g.JPG",
    ]


def test_links_to_folders_are_not_followed(folder: Path) -> None:
    """A link back to the folder itself is no endless loop."""
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    assert len(photos.find_photos(folder)) == 6


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    """A phone photo stored sideways is read upright."""
    image = picture(0)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise to view
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    (photo,), _, _ = photos.read_distinct_photos([tmp_path / "a.png"], 1, SMALL, 3)
    np.testing.assert_array_equal(photo.whole, photo_preprocessing.preprocess_photo(image, SMALL))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_rgb_or_grey(tmp_path: Path, mode: str, channels: int) -> None:
    """Whatever the file holds, the sample has the input's channels and the picture's brightness."""
    grey = picture(0, mode="L")
    image = (
        Image.fromarray(np.asarray(grey).astype(np.uint16) * 256) if mode == "I;16" else grey.convert(mode)
    )
    image.save(tmp_path / ("a.tiff" if mode == "CMYK" else "a.png"))
    how = Preprocessing(resize=40, crop=(32, 32), mean=(0.0,) * channels, std=(1.0,) * channels)
    (photo,), _, problems = photos.read_distinct_photos(photos.find_photos(tmp_path), 1, how, channels)
    assert photo.whole.shape == (channels, 32, 32)
    assert problems == []
    tolerance = 0.2 if mode == "1" else 0.03
    assert abs(photo.whole.mean() - photo_preprocessing.preprocess_photo(grey, SMALL_GREY).mean()) < tolerance


SMALL_GREY = Preprocessing(resize=40, crop=(32, 32), mean=(0.0,), std=(1.0,))


def _png_header(width: int, height: int) -> bytes:
    """Make a PNG that promises a size and holds nothing."""
    from zlib import crc32

    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + body
        + struct.pack(">I", crc32(body))
        + b"\0\0\0\x09IDAT"
    )


def _encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


UNKNOWN = "not a picture in a known format"
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.png": (lambda: b"", UNKNOWN),
    "random.jpg": (lambda: np.random.default_rng(0).bytes(5000), UNKNOWN),
    "truncated.png": (lambda: _encoded(picture(0), "PNG")[:900], "truncated"),
    "truncated.jpg": (lambda: _encoded(picture(0, (640, 480)), "JPEG")[:900], "truncated"),
    "bomb.png": (lambda: _png_header(60_000, 60_000), "DecompressionBombError"),
    "large.png": (lambda: _png_header(12_000, 12_000), "12000x12000 pixels as stored"),
    "thread.png": (lambda: _encoded(Image.new("RGB", (1, 3_000_000)), "PNG"), "pixels once resized"),
    "float.tiff": (
        lambda: _encoded(Image.fromarray(np.ones((40, 40), np.float32)), "TIFF"),
        "floating-point",
    ),
    # Pillow would hand it to Ghostscript.
    "postscript.png": (lambda: _encoded(picture(0), "EPS"), UNKNOWN),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_unusable_files_are_skipped_by_name(folder: Path, name: str) -> None:
    """A broken, huge or hostile file is a warning with its name and the reason; the others are used."""
    content, reason = HOSTILE[name]
    (folder / name).write_bytes(content())
    result = load(folder)
    assert len(result.warnings) == 1
    assert name in result.warnings[0]
    assert reason in result.warnings[0]
    assert "\n" not in result.warnings[0]
    assert len(result.calibration) == 8


def test_a_pipe_named_like_a_photo_is_not_opened(folder: Path) -> None:
    """Opening a named pipe would wait forever."""
    os.mkfifo(folder / "pipe.png")
    assert load(folder).warnings == ()


@pytest.mark.parametrize("names", [[], ["one.png"], ["one.png", "copy.png"]], ids=["none", "one", "copies"])
def test_verification_needs_its_own_photo(tmp_path: Path, names: list[str]) -> None:
    """Fewer than two different photos cannot be split."""
    for name in names:
        picture(0).save(tmp_path / name)
    with pytest.raises(CalibrationError, match="each need their own"):
        load(tmp_path)


def test_no_usable_photo_says_why(tmp_path: Path) -> None:
    """The error gives the reason for the first broken files."""
    (tmp_path / "broken.png").write_bytes(b"x")
    with pytest.raises(CalibrationError, match=r"0 of them usable.*'broken.png': not a picture"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("inputs", "how", "match"),
    [
        (PAIR, SMALL, "model's inputs are top"),
        ((TensorSpec("x", (1, 4, 32, 32)),), SMALL, r"expected one float32 \[N, 1 or 3"),
        (INPUT, None, "No preprocessing is known for input"),
        ((TensorSpec("x", (1, 3, 64, 64)),), SMALL, "32x32, but the model's input is"),
        ((TensorSpec("x", (1, 1, 32, 32)),), SMALL, "3 channel"),
    ],
)
def test_photos_that_cannot_be_inputs(
    folder: Path, inputs: tuple[TensorSpec, ...], how: Preprocessing | None, match: str
) -> None:
    """Photos for a model that takes none say what it takes."""
    with pytest.raises(CalibrationError, match=match):
        data.load_data(folder, inputs, how)


def test_a_batch_holds_different_photos(folder: Path) -> None:
    """A model with a fixed batch of two gets two photos a sample."""
    result = data.load_data(folder, (TensorSpec("x", (2, 3, 32, 32)),), SMALL, 2)
    assert [s[0].shape for s in result.calibration] == [(2, 3, 32, 32)] * 2
    assert not np.array_equal(result.calibration[0][0][0], result.calibration[0][0][1])


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    """A missing path and a file of another kind say what was expected."""
    with pytest.raises(CalibrationError, match="does not exist"):
        load(tmp_path / "nowhere")
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(CalibrationError, match="folder of photos or an"):
        load(tmp_path / "a.csv")


def rows(count: int, seed: int = 0) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    return {
        "top": generator.standard_normal((count, 4)).astype(np.float32),
        "ids": generator.integers(0, 9, (count, 3)),
    }


@pytest.mark.parametrize("named", [True, False], ids=["named", "positional"])
@pytest.mark.parametrize("batched", [True, False], ids=["batch", "no-batch"])
def test_arrays_are_split_in_halves(tmp_path: Path, named: bool, batched: bool) -> None:
    """The first half calibrates, the second verifies; by name or order, with or without a batch axis."""
    arrays = {name: (a[:, None] if batched else a) for name, a in rows(10).items()}
    save = arrays if named else {f"arr_{index}": array for index, array in enumerate(arrays.values())}
    np.savez(tmp_path / "c.npz", **save)  # type: ignore[arg-type]
    result = data.load_data(tmp_path / "c.npz", PAIR, None)
    assert (result.kind, len(result.calibration), len(result.verification)) == ("arrays", 5, 5)
    top, ids = result.verification[0]
    np.testing.assert_array_equal(top, rows(10)["top"][5:6])
    np.testing.assert_array_equal(ids, rows(10)["ids"][5:6])
    assert (top.dtype.name, ids.dtype.name) == ("float32", "int64")
    assert top.flags.c_contiguous


def test_fortran_order_arrays_become_contiguous(tmp_path: Path) -> None:
    """Samples are contiguous, whatever the array's memory layout."""
    stored = np.asfortranarray(np.random.default_rng(0).standard_normal((4, 3, 32, 32)))
    np.savez_compressed(tmp_path / "c.npz", x=stored)
    result = load(tmp_path / "c.npz")
    assert all(s[0].flags.c_contiguous and s[0].dtype == np.float32 for s in result.calibration)


def test_equal_rows_do_not_reach_both_sides(tmp_path: Path) -> None:
    """A row that calibrates does not verify."""
    arrays = rows(6)
    for array in arrays.values():
        array[5] = array[0]
    np.savez(tmp_path / "c.npz", **arrays)  # type: ignore[arg-type]
    result = data.load_data(tmp_path / "c.npz", PAIR, None)
    assert (len(result.calibration), len(result.verification)) == (3, 2)
    assert result.notes == ("Left out 1 sample(s) equal to an earlier one.",)


def test_equal_rows_calibrate_once(tmp_path: Path) -> None:
    """Copies are left out first and the different rows are split: the warning is true."""
    x = np.random.default_rng(0).normal(size=(20, 1, 16)).astype(np.float32)
    x[:10] = x[0]
    np.savez(tmp_path / "c.npz", x=x)
    loaded = data.load_data(tmp_path / "c.npz", (TensorSpec("x", (1, 16)),), None, 16)
    values = [float(row[0][0, 0]) for row in (*loaded.calibration, *loaded.verification)]
    assert values == [float(x[i, 0, 0]) for i in (0, *range(10, 20))]
    assert len(loaded.calibration) == 6
    assert "9 sample(s) are copies of others and were left out: 11" in loaded.warnings[-1]


def test_copies_are_replaced_by_rows_that_were_not_needed(tmp_path: Path) -> None:
    """Where enough different rows remain, copies cost nothing: a note and no warning."""
    x = np.random.default_rng(0).normal(size=(200, 1, 16)).astype(np.float32)
    x[5] = x[3]
    np.savez(tmp_path / "c.npz", x=x)
    loaded = data.load_data(tmp_path / "c.npz", (TensorSpec("x", (1, 16)),), None, 64)
    assert len({row[0].tobytes() for row in loaded.calibration}) == 64
    assert len(loaded.verification) == 64
    assert loaded.notes == ("Left out 1 sample(s) equal to an earlier one.",)
    assert loaded.warnings == ()


def test_unused_arrays_are_named(tmp_path: Path) -> None:
    """Labels next to the inputs are ignored, and a note says so."""
    np.savez(tmp_path / "c.npz", labels=np.arange(4), **rows(4))  # type: ignore[arg-type]
    assert "'labels'" in data.load_data(tmp_path / "c.npz", PAIR, None).notes[0]


def test_few_rows_are_a_warning(tmp_path: Path) -> None:
    """Ranges from a handful of samples are too narrow."""
    np.savez(tmp_path / "c.npz", **rows(4))  # type: ignore[arg-type]
    assert "Only 2" in data.load_data(tmp_path / "c.npz", PAIR, None).warnings[0]


def _with(**changes: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **(rows(6) | changes))


def _nan() -> Array:
    top = rows(6)["top"]
    top[4, 2] = np.nan
    return top


def _lying_header(path: Path) -> None:
    """Write a header that promises a terabyte in a file of a few bytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (2**38, 4)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("top.npy", header.getvalue())
        archive.writestr("ids.npy", header.getvalue())


def _bomb(path: Path) -> None:
    """Write an archive whose directory declares five gigabytes."""
    _with()(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = struct.pack("<I", 2**32 - 2)
    path.write_bytes(content)


BAD_ARRAYS: dict[str, tuple[Callable[[Path], object], str]] = {
    "nan": (_with(top=_nan()), "NaN or infinite"),
    "infinite": (_with(top=np.full((6, 4), 1e300)), "NaN or infinite"),
    "shape": (_with(top=np.zeros((6, 5), np.float32)), r"shape \[6, 5\], expected \[samples, 1, 4\]"),
    "scalar": (_with(top=np.float32(1)), r"shape \[\]"),
    "bytes for floats": (_with(top=np.zeros((6, 4), np.uint8)), "is uint8, expected float32"),
    "floats for integers": (_with(ids=np.zeros((6, 3))), "is float64, expected int64"),
    "too large integers": (_with(ids=np.full((6, 3), 2**63, np.uint64)), "do not fit int64"),
    "objects": (_with(top=np.array([[None] * 4] * 6)), "Python objects"),
    "lengths": (_with(top=np.zeros((5, 4), np.float32)), "different numbers of samples"),
    "one sample": (lambda p: np.savez(p, **rows(1)), "each need their own"),  # type: ignore[arg-type]
    "equal samples": (
        _with(top=np.ones((6, 4), np.float32), ids=np.ones((6, 3), int)),
        "1 of them different",
    ),
    "no samples": (lambda p: np.savez(p, **rows(0)), "0 sample"),  # type: ignore[arg-type]
    "names": (lambda p: np.savez(p, a=np.zeros(3)), r"\['a'\]; expected \['top', 'ids'\]"),
    "empty file": (lambda p: p.touch(), "not a readable .npz"),
    "random bytes": (lambda p: p.write_text("random"), "not a readable .npz"),
    "lying header": (_lying_header, "claims"),
    "zip bomb": (_bomb, "unpacks to"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_say_what_was_seen(tmp_path: Path, case: str) -> None:
    """Every unusable archive is one clear refusal."""
    write, match = BAD_ARRAYS[case]
    write(tmp_path / "c.npz")
    with pytest.raises(CalibrationError, match=match):
        data.load_data(tmp_path / "c.npz", PAIR, None)


@pytest.mark.parametrize(
    ("dtype", "option"),
    [(np.int64, "top=1x4:int64"), (np.bool_, "top=1x4:bool"), (np.uint8, "top=1x4:uint8")],
)
def test_an_array_of_another_type_names_the_option_that_declares_it(
    tmp_path: Path, dtype: type[np.generic], option: str
) -> None:
    """A shape without a type is float32, which class numbers, lengths and masks are not."""
    _with(top=np.zeros((6, 4), dtype))(tmp_path / "c.npz")
    with pytest.raises(CalibrationError) as caught:
        data.load_data(tmp_path / "c.npz", PAIR, None)
    assert f"--input-shape {option}" in caught.value.hint
    assert "preprocessing" in caught.value.hint


def test_a_type_that_no_input_can_have_is_not_offered(tmp_path: Path) -> None:
    """Nothing is advised that the option would refuse."""
    _with(top=np.zeros((6, 4), np.int16))(tmp_path / "c.npz")
    with pytest.raises(CalibrationError) as caught:
        data.load_data(tmp_path / "c.npz", PAIR, None)
    assert caught.value.hint == "Apply the model's preprocessing before saving."


@pytest.mark.parametrize("cut", [0.05, 0.3, 0.6, 0.9, 0.99])
def test_truncated_archives_are_refused(tmp_path: Path, cut: float) -> None:
    """A file that ends early is a CalibrationError, wherever it ends."""
    _with()(tmp_path / "c.npz")
    content = (tmp_path / "c.npz").read_bytes()
    (tmp_path / "c.npz").write_bytes(content[: int(len(content) * cut)])
    with pytest.raises(CalibrationError, match="not a readable"):
        data.load_data(tmp_path / "c.npz", PAIR, None)


def test_flipped_bytes_never_escape(tmp_path: Path) -> None:
    """A damaged archive is read or refused, whichever byte is damaged; nothing else is raised."""
    _with()(tmp_path / "c.npz")
    content = (tmp_path / "c.npz").read_bytes()
    for at in range(0, len(content), 7):
        (tmp_path / "c.npz").write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            data.load_data(tmp_path / "c.npz", PAIR, None)
        except CalibrationError:
            continue


def test_synthetic_data_is_seeded_disjoint_and_warned_about() -> None:
    """Inputs are synthetic when there is no source, the same for the same seed, and a warning says so."""
    first, same, other = load(None), load(None), load(None, seed=1)
    assert first.kind == "synthetic"
    assert "--calibration" in first.warnings[0]
    assert contents(first.calibration) == contents(same.calibration) != contents(other.calibration)
    assert not contents(first.calibration) & contents(first.verification)


def test_synthetic_images_are_smooth_and_in_range() -> None:
    """Neighbouring pixels agree, as in photos and unlike in white noise; values are those of a photo."""
    how = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)
    (image,) = data.load_data(None, (TensorSpec("x", (1, 3, 224, 224)),), how, 1).calibration[0]
    neighbours = np.corrcoef(image[..., 1:].ravel(), image[..., :-1].ravel())[0, 1]
    channels = np.corrcoef(image[0, 0].ravel(), image[0, 1].ravel())[0, 1]
    assert neighbours > 0.8
    assert channels > 0.6
    assert 0 <= image.min() < 0.1
    assert 0.9 < image.max() <= 1
    assert image.flags.c_contiguous


def test_synthetic_inputs_keep_shape_and_dtype() -> None:
    """Other floats are normally distributed, integers valid for any embedding."""
    inputs = (TensorSpec("f", (1, 7, 9)), TensorSpec("i", (1, 5), "int32"), TensorSpec("b", (1, 2), "bool"))
    for sample in data.load_data(None, inputs, None, 4).calibration:
        assert [(a.shape, a.dtype.name) for a in sample] == [(s.shape, s.dtype) for s in inputs]
        assert set(np.unique(sample[1])) <= {0, 1}


def test_nearly_constant_photos_are_warned_about(folder: Path) -> None:
    """A dark frame with sensor noise and an evenly lit wall are named, a photo of little contrast is not."""
    generator = np.random.default_rng(0)
    noise = np.clip(generator.normal(20, 3, (48, 60)), 0, 255).astype(np.uint8)
    wall = np.broadcast_to(np.linspace(180, 192, 60), (48, 60)).astype(np.uint8)
    faint = (100 + np.asarray(picture(7, mode="L")) / 6).astype(np.uint8)
    for name, pixels in {"noise": noise, "wall": wall, "faint": faint}.items():
        Image.fromarray(pixels).convert("RGB").save(folder / f"{name}.png")
    (warning,) = load(folder).warnings
    assert warning.startswith("2 of 9 photos are nearly constant (noise.png, wall.png)")


def test_nearly_constant_rows_are_warned_about(tmp_path: Path) -> None:
    """A row is constant in comparison with the others; a quiet row that still varies is not."""
    x = np.random.default_rng(0).normal(size=(64, 1, 16)).astype(np.float32)
    x[5] = 0.25
    x[6] *= 0.3
    np.savez(tmp_path / "c.npz", x=x)
    inputs = (TensorSpec("x", (1, 16)),)
    (warning,) = data.load_data(tmp_path / "c.npz", inputs, None, 32).warnings
    assert warning.startswith("1 of 64 rows are nearly constant (row 5)")
    assert data.load_data(tmp_path / "c.npz", inputs, None, 5).warnings == ()


def test_copies_that_cost_samples_are_warned_about(folder: Path, tmp_path: Path) -> None:
    """Copies cause a warning only where fewer different samples remain than were requested."""
    Image.open(folder / "a.png").save(folder / "again.bmp")
    (warning,) = load(folder, 8).warnings
    assert warning.startswith("1 sample(s) are copies of others and were left out: 6 different ones remain")
    assert load(folder, 3).warnings == ()


def test_what_was_decoded_is_told_by_its_digest(folder: Path) -> None:
    """Every picture that serves is listed with its name and size, so that no other set shares it."""
    origins = load(folder).origins.values()
    assert sorted(origin.name for origin in origins) == [f"{name}.png" for name in "abcdef"]
    assert {origin.size for origin in origins} == {(60, 48)}
