"""Labelled samples get their class from folders or labels, and never share calibration data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporter import data
from exporter.data import labelled
from exporter.data.labelled import Labelled
from exporter.errors import CalibrationError
from exporter.records import Preprocessing, TensorSpec
from tests.data.test_data import picture

SMALL = Preprocessing(resize=40, crop=(32, 32))
INPUT = (TensorSpec("x", (1, 3, 32, 32)),)
THREE = (TensorSpec("logits", (1, 3)),)


def folders(root: Path, *names: str, photos: int = 2) -> Path:
    for index, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(photos):
            picture(10 * index + number).save(root / name / f"{number}.png")
    return root


def find(source: Path, names: tuple[str, ...] = (), outputs: tuple[TensorSpec, ...] = THREE) -> Labelled:
    return labelled.find_labelled(source, INPUT, outputs, SMALL, names)


@pytest.mark.parametrize(
    ("names", "model", "labels"),
    [
        (("cat", "dog", "eel"), (), [0, 0, 1, 1, 2, 2]),
        (("2", "0"), (), [0, 0, 2, 2]),
        (("red_fox", "Owl"), ("owl", "bat", "red fox"), [0, 0, 2, 2]),
    ],
)
def test_folders_are_classes(
    names: tuple[str, ...], model: tuple[str, ...], labels: list[int], tmp_path: Path
) -> None:
    """Folders are classes by sorted order, by number, or by the model's own names, whatever the case."""
    assert find(folders(tmp_path, *names), model).labels.tolist() == labels


def test_classes_txt_decides(tmp_path: Path) -> None:
    """A list next to the folders gives their class numbers."""
    folders(tmp_path, "a", "b")
    (tmp_path / "classes.txt").write_text("b\nc\na\n")
    assert find(tmp_path).labels.tolist() == [2, 2, 0, 0]


def test_what_the_model_gets_is_its_preprocessing(tmp_path: Path) -> None:
    """Photos are preprocessed as for calibration; unreadable ones are marked, the last batch is filled up."""
    folders(tmp_path, "a", "b", "c", photos=1)
    (tmp_path / "c" / "0.png").write_bytes(b"no picture")
    two = (TensorSpec("x", (2, 3, 32, 32)),)
    batches = list(labelled.find_labelled(tmp_path, two, (TensorSpec("y", (2, 3)),), SMALL, ()).batches())
    whole = data.load_data(folders(tmp_path / "more", "a"), INPUT, SMALL, 1).calibration[0][0]
    assert np.array_equal(batches[0][0][0][:1], whole)
    assert [read for _, read in batches] == [[True, True], [False, False]]


def listed(root: Path, lines: str, *names: str) -> None:
    """Write folders, and a classes.txt next to them."""
    (folders(root, *names) / "classes.txt").write_text(lines)


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "too few": (
        lambda p: folders(p, "a", "b"),
        r"holds 2 folders \('a', 'b'\); the model has 3 classes without",
    ),
    "empty": (lambda p: (folders(p, "a", "b") / "c").mkdir(), r"'c' hold\(s\) no photos"),
    "none": (lambda p: picture(0).save(p / "a.png"), "holds no folders"),
    "number too large": (lambda p: folders(p, "1", "3"), "folders cannot be mapped to classes"),
    "short list": (lambda p: listed(p, "a\nb\n", "a"), "lists 2 classes, the model has 3"),
    "not listed": (lambda p: listed(p, "a\nb\nc", "x"), r"'x' is not among classes.txt"),
    "listed twice": (lambda p: listed(p, "a\nA\nc", "a"), "names more than one"),
}


@pytest.mark.parametrize("bad", BAD_FOLDERS)
def test_folders_that_are_no_classes_are_refused(bad: str, tmp_path: Path) -> None:
    """The refusal says what was seen."""
    make, message = BAD_FOLDERS[bad]
    make(tmp_path)
    with pytest.raises(CalibrationError, match=message):
        find(tmp_path)


def test_only_classifiers_are_judged(tmp_path: Path) -> None:
    """The first output of shape [batch, classes] says the class; a model without one is refused."""
    assert labelled.index_of_labelled_output((TensorSpec("map", (1, 3, 8, 8)), TensorSpec("y", (1, 3)))) == 1
    with pytest.raises(CalibrationError, match="judges classifiers"):
        find(folders(tmp_path, "a"), outputs=(TensorSpec("map", (1, 3, 8, 8)),))


def arrays(path: Path, **more: np.ndarray) -> Path:
    x = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)
    np.savez(path, **({"x": x, "labels": np.array([0, 1, 2, 1])} | more))  # type: ignore[arg-type]
    return path


def test_arrays_come_with_labels(tmp_path: Path) -> None:
    """An archive gives one label for each row, and inputs of the model's shape."""
    samples = find(arrays(tmp_path / "e.npz"))
    assert samples.labels.tolist() == [0, 1, 2, 1]
    assert [inputs[0].shape for inputs, _ in samples.batches()] == [(1, 3, 32, 32)] * 4


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 1, 2]), "3 labels for 4 samples"),
        (
            np.array([0, 1, 2, 3]),
            r"1 label\(s\) are outside the model's 3 classes \(0 to 2\); the first is 3",
        ),
        (np.array([1, 2, 3, 1]), "Labels count from 0"),
        (np.array([-1, 2, 0, 1]), "the first is -1"),
        (np.array([0.0, 1, 2, 0]), "expected whole numbers"),
    ],
)
def test_wrong_labels_are_refused(labels: np.ndarray, message: str, tmp_path: Path) -> None:
    """Labels that are too few, out of range or not whole numbers are refused."""
    with pytest.raises(CalibrationError, match=message):
        find(arrays(tmp_path / "e.npz", labels=labels))


def test_arrays_without_labels_are_refused(tmp_path: Path) -> None:
    """The refusal gives the name that the array must have."""
    np.savez(tmp_path / "e.npz", x=np.zeros((4, 3, 32, 32), np.float32))
    with pytest.raises(CalibrationError, match="no array 'labels'"):
        find(tmp_path / "e.npz")


def test_a_calibration_picture_may_not_judge(tmp_path: Path) -> None:
    """A shared picture is found by its pixels, under another name and encoding; the message names both."""
    calibration = folders(tmp_path / "calibration", "any", photos=4)
    evaluation = folders(tmp_path / "evaluation", "1", "2")
    for path in evaluation.rglob("*.png"):  # make them different pictures first
        Image.open(path).rotate(90).save(path)
    used = data.load_data(calibration, INPUT, SMALL, 2)
    labelled.check_labelled_apart(find(evaluation), used.origins, calibration)
    picture(3).save(evaluation / "2" / "other.bmp")
    with pytest.raises(CalibrationError, match=r"1 sample.*2/other\.bmp = 3\.png") as caught:
        labelled.check_labelled_apart(find(evaluation), used.origins, calibration)
    assert caught.value.exit_code == 11


def test_a_calibration_row_may_not_judge(tmp_path: Path) -> None:
    """Rows are compared by value."""
    calibration = arrays(tmp_path / "c.npz")
    used = data.load_data(calibration, INPUT, SMALL, 2)
    row = np.load(calibration)["x"][2:3]
    fresh = np.random.default_rng(1).normal(size=(3, 3, 32, 32)).astype(np.float32)
    evaluation = arrays(tmp_path / "e.npz", x=np.concatenate([fresh, row]))
    with pytest.raises(CalibrationError, match="row 3 = row 2"):
        labelled.check_labelled_apart(find(evaluation), used.origins, calibration)
