"""Labels of every task, in the formats that people have them in."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exporter.data import labels
from exporter.data.labelled import Labelled
from exporter.data.labels.label_source import Model
from exporter.errors import CalibrationError
from exporter.records import Array, Preprocessing, TaskName, TensorSpec
from tests.data.test_data import picture

SQUARE = Preprocessing(32, (32, 32), squash=True)
CROPPED = Preprocessing(resize=32, crop=(32, 32))
INPUT = (TensorSpec("x", (1, 3, 32, 32)),)
BOXES = (TensorSpec("boxes", (1, 10, 4)), TensorSpec("scores", (1, 10, 2)))
MAP = (TensorSpec("y", (1, 3, 32, 32)),)
STEPS = (TensorSpec("y", (1, 5, 4)),)
PAIR = (TensorSpec("y", (1, 2)),)


def find(
    source: Path,
    outputs: tuple[TensorSpec, ...],
    task: TaskName = "",
    how: Preprocessing = SQUARE,
    names: tuple[str, ...] = (),
) -> Labelled:
    model = Model(INPUT, outputs, how, names)
    return labels.find_labels(source, model, labels.task_of_labels(source, model, task))


def photos(folder: Path, count: int = 3, size: tuple[int, int] = (64, 32), suffix: str = ".jpg") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(number, size).save(folder / f"p{number}{suffix}")
    return folder


def coco(
    path: Path, annotations: list[dict[str, Any]], categories: Mapping[int, str] = {1: "cat", 7: "dog"}
) -> Path:
    images = [{"id": 10 + number, "file_name": f"p{number}.jpg"} for number in range(3)]
    kinds = [{"id": number, "name": name} for number, name in categories.items()]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": kinds}))
    return path


def annotation(image: int, box: list[float], category: int = 7, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, **more}


def test_coco_boxes_become_corners_in_pixels_of_the_input(tmp_path: Path) -> None:
    """A photo of 64x32 is squashed to 32x32: x is halved, y is not. Category ids in order are classes."""
    photos(tmp_path)
    own = [
        annotation(10, [8, 4, 16, 8]),
        annotation(10, [0, 0, 64, 32], 1, iscrowd=1),
        annotation(12, [2, 2, 4, 4]),
    ]
    found = find(coco(tmp_path / "labels.json", own), BOXES)
    assert found.task == "boxes"
    assert [path.name for path in found.paths] == ["p0.jpg", "p1.jpg", "p2.jpg"]
    first, none, last = found.truths
    assert first["boxes"].tolist() == [[4, 4, 12, 12], [0, 0, 32, 32]]
    assert first["classes"].tolist() == [1, 0]
    assert first["ignored"].tolist() == [False, True]
    assert none["boxes"].shape == (0, 4)
    assert last["boxes"].tolist() == [[1, 2, 3, 6]]
    assert "in order, are classes 0 to 1" in found.notes[0]


def test_a_crop_cuts_boxes_and_ignores_what_it_nearly_removes(tmp_path: Path) -> None:
    """The middle 32x32 of 64x32 begins at x = 16."""
    photos(tmp_path)
    own = [annotation(10, [10, 0, 16, 16]), annotation(10, [0, 0, 18, 16]), annotation(10, [0, 0, 10, 10])]
    truth = find(coco(tmp_path / "labels.json", own), BOXES, how=CROPPED).truths[0]
    assert truth["boxes"].tolist() == [[0, 0, 10, 16], [0, 0, 2, 16]]
    assert truth["ignored"].tolist() == [False, True]


@pytest.mark.parametrize(
    ("outputs", "names", "classes"),
    [
        ((BOXES[0], TensorSpec("scores", (1, 10, 91))), (), [7, 1]),
        ((BOXES[0], TensorSpec("scores", (1, 10)), TensorSpec("labels", (1, 10), "int64")), (), [7, 1]),
        ((BOXES[0], TensorSpec("scores", (1, 10, 3))), ("bird", "dog", "Cat"), [1, 2]),
        ((TensorSpec("y", (1, 6, 84)),), (), [1, 0]),
    ],
)
def test_categories_are_matched_to_classes(
    outputs: tuple[TensorSpec, ...], names: tuple[str, ...], classes: list[int], tmp_path: Path
) -> None:
    """The model's names decide, then the number where it has so many classes, else the order."""
    photos(tmp_path / "images")
    own = [annotation(10, [8, 4, 16, 8], 7), annotation(10, [8, 4, 16, 8], 1)]
    found = find(coco(tmp_path / "labels.json", own), outputs, names=names)
    assert found.truths[0]["classes"].tolist() == classes


def yolo(root: Path, line: str = "1 0.25 0.5 0.5 0.25") -> Path:
    photos(root / "images")
    (root / "labels").mkdir()
    (root / "labels" / "p0.txt").write_text(line + "\n")
    (root / "labels" / "p2.txt").write_text("0 0.5 0.5 1 1\n")
    (root / "classes.txt").write_text("a\nb\n")
    return root


def test_yolos_text_files_are_shares_of_the_photo(tmp_path: Path) -> None:
    """Centre and size become corners; a photo without a file has no boxes."""
    found = find(yolo(tmp_path), BOXES)
    assert found.task == "boxes"
    assert found.truths[0]["boxes"].tolist() == [[0, 12, 16, 20]]
    assert [len(truth["boxes"]) for truth in found.truths] == [1, 0, 1]


def masks(root: Path, beside: bool = False, values: tuple[int, ...] = (0, 2)) -> Path:
    photos(root if beside else root / "images")
    folder = root if beside else root / "masks"
    folder.mkdir(exist_ok=True)
    for number in range(3):
        mask = np.full((32, 64), values[0], np.uint8)
        mask[:, 32:] = values[1]
        Image.fromarray(mask, "L").save(folder / f"p{number}.png")
    return root


@pytest.mark.parametrize("beside", [False, True])
def test_masks_follow_their_photos(beside: bool, tmp_path: Path) -> None:
    """Resized to the nearest pixel and cropped, in a folder of their own or side by side."""
    found = find(masks(tmp_path, beside), MAP)
    assert (found.task, len(found.paths)) == ("masks", 3)
    mask = found.truths[0]["mask"]
    assert mask.shape == (32, 32)
    assert set(np.unique(mask[:, :16])) == {0}
    assert set(np.unique(mask[:, 16:])) == {2}
    cropped = find(tmp_path, MAP, how=Preprocessing(resize=16, crop=(32, 32))).truths[0]["mask"]
    assert (cropped[:8] == 255).all()  # above the photo there is nothing to compare
    assert set(np.unique(cropped[8:24])) == {0, 2}


def test_palette_masks_hold_indices_not_colours(tmp_path: Path) -> None:
    """As Pascal VOC's are."""
    masks(tmp_path)
    for path in (tmp_path / "masks").iterdir():
        pixels = np.asarray(Image.open(path))
        image = Image.fromarray(pixels, "P")
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        image.save(path)
    assert set(np.unique(find(tmp_path, MAP).truths[0]["mask"])) == {0, 2}


def test_black_and_white_masks_are_two_classes(tmp_path: Path) -> None:
    """A value of 255 is the object for one score a pixel, and does not count for more classes."""
    masks(tmp_path, values=(0, 255))
    single = (TensorSpec("y", (1, 1, 32, 32)),)
    assert set(np.unique(find(tmp_path, single).truths[0]["mask"])) == {0, 1}
    assert set(np.unique(find(tmp_path, MAP).truths[0]["mask"])) == {0, 255}


def test_the_largest_object_of_a_photo_has_the_keypoints(tmp_path: Path) -> None:
    """Points and sizes move with the photo; a photo without labelled points is left out."""
    photos(tmp_path)
    own = [
        annotation(10, [0, 0, 40, 20], keypoints=[8, 4, 2, 16, 8, 0], area=400),
        annotation(10, [0, 0, 4, 4], keypoints=[1, 1, 2, 2, 2, 2]),
        annotation(11, [0, 0, 4, 4], keypoints=[0, 0, 0, 0, 0, 0]),
    ]
    found = find(coco(tmp_path / "labels.json", own), (TensorSpec("keypoints", (1, 2, 2)),))
    assert (found.task, [path.name for path in found.paths]) == ("keypoints", ["p0.jpg"])
    truth = found.truths[0]
    assert truth["points"].tolist() == [[4, 4, 2], [8, 8, 0]]
    assert (float(truth["extent"]), float(truth["area"])) == (20, 200)


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
        return path
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_tables_give_text_tokens_or_numbers(suffix: str, tmp_path: Path) -> None:
    """Text needs the names of the tokens; a table of numbers is one of regression."""
    photos(tmp_path)
    (tmp_path / "tokens.txt").write_text("-\na\nb\n<space>\n")
    text = table(
        tmp_path / f"text{suffix}", [{"file": "p0.jpg", "text": "b a"}, {"file": "p1.jpg", "text": ""}]
    )
    found = find(text, STEPS)
    assert (found.task, [t["tokens"].tolist() for t in found.truths]) == ("sequences", [[2, 3, 1], []])
    tokens = table(tmp_path / f"tokens{suffix}", [{"file": "p0.jpg", "tokens": "1 2 3 1 0"}])
    found = find(tokens, STEPS)
    assert (found.truths[0]["tokens"].tolist(), bool(found.truths[0]["aligned"])) == ([1, 2, 3, 1, 0], True)
    numbers = table(tmp_path / f"numbers{suffix}", [{"file": "p2.jpg", "x": 1.5, "y": -2}])
    found = find(numbers, PAIR)
    assert (found.task, found.truths[0]["numbers"].tolist()) == ("regression", [1.5, -2.0])


def test_inputs_may_be_npy_files(tmp_path: Path) -> None:
    """For sound and other inputs that are no photos; each file is one input."""
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.full((3, 32, 32), number, np.float32))
    path = table(tmp_path / "y.csv", [{"file": f"{n}.npy", "a": n, "b": 0} for n in range(3)])
    found = find(path, PAIR)
    rows = [(float(sample[0].max()), read) for sample, read in found.batches()]
    assert rows == [(0.0, [True]), (1.0, [True]), (2.0, [True])]


def test_targets_are_made_of_the_outputs_size(tmp_path: Path) -> None:
    """A network that doubles its input is compared with the target at twice the size, from 0 to 1."""
    photos(tmp_path / "images")
    photos(tmp_path / "targets", size=(128, 64), suffix=".png")
    found = find(tmp_path, (TensorSpec("y", (1, 3, 64, 64)),))
    assert found.task == "images"
    image = found.truths[1]["image"]
    assert image.shape == (3, 64, 64)
    assert 0 <= image.min() < 0.2 < 0.8 < image.max() <= 1


def test_embeddings_have_a_folder_per_identity_or_pairs(tmp_path: Path) -> None:
    """Folders are classes unless the task is named; a table of pairs is recognised."""
    for name in ("anna", "ben"):
        photos(tmp_path / "people" / name, 2)
    wide = (TensorSpec("y", (1, 128)),)
    assert labels.task_of_labels(tmp_path / "people", Model(INPUT, wide, SQUARE), "") == ""
    found = find(tmp_path / "people", wide, "embeddings")
    assert [int(truth["class"]) for truth in found.truths] == [0, 0, 1, 1]
    photos(tmp_path / "pairs")
    rows = [
        {"file": "p0.jpg", "other": "p1.jpg", "similarity": 0.9},
        {"file": "p0.jpg", "other": "p2.jpg", "similarity": 0.1},
    ]
    found = find(table(tmp_path / "pairs" / "pairs.csv", rows), wide)
    assert found.task == "embeddings"
    assert found.truths[0]["pairs"].tolist() == [[1, 0.9], [2, 0.1]]


def arrays(path: Path, **more: Array) -> Path:
    np.savez(path, x=np.random.default_rng(0).random((4, 3, 32, 32), np.float32), **more)  # type: ignore[arg-type]
    return path


NUMBER = np.arange(4)
ARRAYS: dict[str, tuple[TaskName, tuple[TensorSpec, ...], dict[str, Array]]] = {
    "boxes": ("boxes", BOXES, {"boxes": np.ones((4, 2, 4)), "labels": np.tile([1, -1], (4, 1))}),
    "masks": ("masks", MAP, {"labels": np.zeros((4, 32, 32), np.int64)}),
    "keypoints": ("keypoints", (TensorSpec("keypoints", (1, 5, 2)),), {"labels": np.ones((4, 5, 3))}),
    "sequences": ("sequences", STEPS, {"labels": np.ones((4, 3), np.int64)}),
    "regression": ("regression", PAIR, {"labels": np.ones((4, 2))}),
    "images": ("images", MAP, {"labels": np.ones((4, 3, 32, 32))}),
    "embeddings": ("embeddings", PAIR, {"labels": np.array([0, 0, 1, 1])}),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_hold_labels_of_every_task(name: str, tmp_path: Path) -> None:
    """The task is told by the names and shapes of the arrays, but for identities, which look like classes."""
    task, outputs, more = ARRAYS[name]
    path = arrays(tmp_path / "x.npz", **more)
    found = find(path, outputs, "embeddings" if task == "embeddings" else "")
    assert (found.task, len(found.truths), len(found.rows)) == (task, 4, 4)
    if task == "boxes":
        assert found.truths[0]["classes"].tolist() == [1]


@pytest.mark.parametrize("name", [name for name in ARRAYS if name != "boxes"])
def test_the_error_names_the_array_that_is_read(name: str, tmp_path: Path) -> None:
    """A file with the array that the messages ask for is taken; here it has another name."""
    task, outputs, _ = ARRAYS[name]
    path = arrays(tmp_path / "x.npz", truth=np.zeros(4))
    with pytest.raises(CalibrationError) as raised:
        find(path, outputs, task)
    assert "`labels` [samples" in raised.value.message


def test_labels_are_part_of_the_digest(tmp_path: Path) -> None:
    """Other labels of the same photos are another evaluation."""
    first = find(arrays(tmp_path / "a.npz", labels=np.ones((4, 2))), PAIR)
    photos(tmp_path)
    before = find(table(tmp_path / "y.csv", [{"file": "p2.jpg", "x": 1.5, "y": -2}]), PAIR)
    after = find(table(tmp_path / "y.csv", [{"file": "p2.jpg", "x": 1.5, "y": 2}]), PAIR)
    assert len({first.digest, before.digest, after.digest}) == 3


def no_photo(root: Path) -> Path:
    return coco(photos(root, 2) / "labels.json", [annotation(10, [0, 0, 4, 4])])


def escape(root: Path) -> Path:
    photos(root / "inside")
    photos(root / "secret")
    return table(root / "inside" / "y.csv", [{"file": "../secret/p0.jpg", "x": 1, "y": 2}])


def colours(root: Path) -> Path:
    masks(root)
    picture(0, (64, 32)).save(root / "masks" / "p1.png")
    return root


def resized(root: Path) -> Path:
    masks(root)
    Image.new("L", (30, 32)).save(root / "masks" / "p1.png")
    return root


def lonely(root: Path) -> Path:
    masks(root)
    (root / "masks" / "p1.png").unlink()
    return root


def written(name: str, content: str) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        photos(root)
        (root / name).write_text(content)
        return root / name

    return write


FAULTS: dict[str, tuple[TaskName, tuple[TensorSpec, ...], Callable[[Path], Path], str]] = {
    "a photo that is not there": ("boxes", BOXES, no_photo, "names 'p2.jpg'"),
    "a file outside": ("regression", PAIR, escape, "names '../secret/p0.jpg'"),
    "no COCO": (
        "boxes",
        BOXES,
        written("a.json", '{"shapes": []}'),
        r"holds \['shapes'\]; expected a COCO JSON",
    ),
    "no JSON": ("boxes", BOXES, written("a.json", "{"), "is not JSON"),
    "an annotation without a box": (
        "boxes",
        BOXES,
        lambda r: coco(photos(r) / "a.json", [{"image_id": 10, "category_id": 7}]),
        "lacks 'bbox'",
    ),
    "other classes": (
        "boxes",
        (BOXES[0], TensorSpec("scores", (1, 10, 5))),
        lambda r: coco(photos(r) / "a.json", [annotation(10, [0, 0, 4, 4])]),
        r"categories 1, 7 \(2\) for a model with 5 classes",
    ),
    "a class beyond": ("boxes", BOXES, lambda r: yolo(r, "2 0.5 0.5 1 1"), "p0.txt has class 2, the model 2"),
    "pixels in YOLO's file": ("boxes", BOXES, lambda r: yolo(r, "1 30 20 10 10"), "p0.txt holds 30"),
    "coloured masks": ("masks", MAP, colours, r"p1.png has pixels of several channels \(RGB\)"),
    "a mask of another size": ("masks", MAP, resized, "p1.png has 30x32 pixels"),
    "a photo without mask": ("masks", MAP, lonely, r"holds nothing for 'p1.jpg'"),
    "a class beyond in masks": (
        "masks",
        MAP,
        lambda r: masks(r, values=(0, 3)),
        "p0.png has class 3, the model 3",
    ),
    "text without tokens": (
        "sequences",
        STEPS,
        written("a.csv", "file,text\np0.jpg,ab\n"),
        "tokens have no names",
    ),
    "words for numbers": ("regression", PAIR, written("a.csv", "file,x,y\np0.jpg,high,1\n"), "'high'"),
    "too few numbers": (
        "regression",
        PAIR,
        written("a.csv", "file,x\np0.jpg,1\n"),
        "1 number.s., the model gives 2",
    ),
    "not a number": ("regression", PAIR, written("a.csv", "file,x,y\np0.jpg,1,nan\n"), "not finite"),
    "no column of files": (
        "regression",
        PAIR,
        written("a.csv", "name,x\np0.jpg,1\n"),
        r"columns \['name', 'x'\]",
    ),
    "folders for text": ("sequences", STEPS, lambda r: photos(r / "a").parent, "is no table"),
    "one identity": ("embeddings", PAIR, lambda r: photos(r / "a").parent, "holds 1 folders"),
    "no targets": ("images", MAP, lambda r: photos(r / "images").parent, "has no images/ and targets/"),
    "arrays without boxes": (
        "boxes",
        BOXES,
        lambda r: arrays(r / "a.npz", labels=NUMBER),
        "holds no `boxes`",
    ),
    "too few labels": (
        "regression",
        PAIR,
        lambda r: arrays(r / "a.npz", labels=np.ones((3, 2))),
        "3 labels for 4",
    ),
    "nothing": (
        "masks",
        MAP,
        lambda r: r / "gone",
        "does not exist; expected photos in images/ with PNG masks",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_used_is_refused_with_what_is_expected(fault: str, tmp_path: Path) -> None:
    """The message says what was seen and what is expected; the exit code is calibration's."""
    task, outputs, make, says = FAULTS[fault]
    with pytest.raises(CalibrationError, match=says) as caught:
        find(make(tmp_path), outputs, task)
    assert caught.value.exit_code == 11
    assert "expected" in caught.value.message


def _content(**changes: Any) -> str:
    return json.dumps({"images": [IMAGE], "annotations": [LABEL], "categories": [], **changes})


IMAGE = {"id": 1, "file_name": "p0.jpg"}
LABEL = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "keypoints": [1, 1, 2]}
HUGE = 10**400
HOSTILE: Mapping[str, tuple[TaskName, tuple[TensorSpec, ...], str, str]] = {
    "a category that is text": (
        "boxes",
        BOXES,
        "a.json",
        _content(annotations=[{**LABEL, "category_id": "x"}]),
    ),
    "a category without end": (
        "boxes",
        BOXES,
        "a.json",
        _content(annotations=[{**LABEL, "category_id": float("inf")}]),
    ),
    "categories that are a number": ("boxes", BOXES, "a.json", _content(categories=5)),
    "a category that is a number": ("boxes", BOXES, "a.json", _content(categories=[5])),
    "an image's id that is a list": ("boxes", BOXES, "a.json", _content(images=[{**IMAGE, "id": [1]}])),
    "an annotation's image that is a list": (
        "boxes",
        BOXES,
        "a.json",
        _content(annotations=[{**LABEL, "image_id": []}]),
    ),
    "a box of huge numbers": (
        "boxes",
        BOXES,
        "a.json",
        _content(annotations=[{**LABEL, "bbox": [HUGE] * 4}]),
    ),
    "a name with a NUL": ("boxes", BOXES, "a.json", _content(images=[{**IMAGE, "file_name": "a\0.jpg"}])),
    "a name without end": ("boxes", BOXES, "a.json", _content(images=[{**IMAGE, "file_name": "a" * 99_999}])),
    "a name of half a character": (
        "boxes",
        BOXES,
        "a.json",
        _content(images=[{**IMAGE, "file_name": "\ud800"}]),
    ),
    "a name that leads out": (
        "boxes",
        BOXES,
        "a.json",
        _content(images=[{**IMAGE, "file_name": "/etc/passwd"}]),
    ),
    "keypoints that are a number": (
        "keypoints",
        PAIR,
        "a.json",
        _content(annotations=[{**LABEL, "keypoints": 5}]),
    ),
    "an area that is huge": ("keypoints", PAIR, "a.json", _content(annotations=[{**LABEL, "area": HUGE}])),
    "a class without end": ("boxes", BOXES, "p0.txt", "9" * 5000 + " 0 0 1 1"),
    "a place that is no number": ("boxes", BOXES, "p0.txt", "0 nan nan nan nan"),
    "a huge number": ("regression", PAIR, "a.jsonl", f'{{"file": "p0.jpg", "x": {HUGE}, "y": 1}}'),
    "a token without end": ("sequences", STEPS, "a.jsonl", '{"file": "p0.jpg", "tokens": [Infinity]}'),
    "a huge token": ("sequences", STEPS, "a.jsonl", f'{{"file": "p0.jpg", "tokens": [{10**30}]}}'),
    "a similarity that is no number": (
        "embeddings",
        PAIR,
        "a.csv",
        "file,other,similarity\np0.jpg,p1.jpg,nan",
    ),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_labels_are_refused_in_one_message(attack: str, tmp_path: Path) -> None:
    """A label of another type, without bounds or with a name of no file is an error about the data."""
    task, outputs, name, content = HOSTILE[attack]
    photos(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(CalibrationError) as caught:
        find(tmp_path, outputs, task)
    assert caught.value.code == "EM-LABELS"
    assert len(caught.value.message) < 1300


@pytest.mark.parametrize(
    ("task", "outputs", "name"),
    [
        ("boxes", BOXES, "a.json"),
        ("boxes", BOXES, "p0.txt"),
        ("regression", PAIR, "a.csv"),
        ("embeddings", PAIR, "a.tsv"),
        ("masks", MAP, "masks/p0.png"),
    ],
)
def test_a_pipe_among_labels_blocks_nothing(
    task: TaskName, outputs: tuple[TensorSpec, ...], name: str, tmp_path: Path
) -> None:
    """A named pipe is no file of labels: opening it would wait for ever."""
    photos(tmp_path / "images", 1)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    with _watched(tmp_path / name), pytest.raises(CalibrationError):
        find(tmp_path, outputs, task)


@pytest.mark.parametrize("task", labels.LABELS)
def test_a_pipe_as_labels_blocks_nothing(task: TaskName, tmp_path: Path) -> None:
    """A named pipe is refused at once, whatever its name and `--task` say that it holds."""
    os.mkfifo(tmp_path / "a.npz")
    with _watched(tmp_path / "a.npz"), pytest.raises(CalibrationError, match="neither a file nor a folder"):
        find(tmp_path / "a.npz", PAIR, task)


def test_an_input_that_is_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    """Whatever its suffix says, numpy opens it as an .npz."""
    (tmp_path / "a.npy").write_bytes(b"PK\x03\x04")
    (tmp_path / "a.csv").write_text("file,x,y\na.npy,1,2\n")
    with pytest.raises(CalibrationError):
        find(tmp_path / "a.csv", PAIR, "regression")


@contextmanager
def _watched(pipe: Path) -> Iterator[None]:
    """Fail instead of hanging where the block opens a pipe: a writer comes after five seconds."""
    opened = threading.Event()

    def write() -> None:
        with contextlib.suppress(OSError):
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
            opened.set()

    timer = threading.Timer(5, write)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    assert not opened.is_set()
