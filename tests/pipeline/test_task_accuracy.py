"""Labels of boxes, masks, sequences and numbers, from the request to the manifest, and again from there."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from exporter import Report, TensorSpec, export, files
from exporter.data import photos
from exporter.errors import CalibrationError
from exporter.pipeline.audit import verify_export
from exporter.records import Artifact, Preprocessing, TaskName
from exporter.report.html import render_html
from exporter.report.manifest import load_manifest, restore
from exporter.verify.scores.scored_sample import ScoredSample
from exporter.verify.tasks.sequence_task import join_sequence_of_task
from tests import task_nets
from tests.data.test_data import picture
from tests.report.test_terminal import joined as printed

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("task-accuracy")]
COUNT = 24
HOW = Preprocessing(32, (32, 32), (0.5,) * 3, (0.25,) * 3, squash=True)
SIZE = (64, 48)
Outputs = Mapping[str, np.ndarray]


@functools.cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="export-mobile-tasks-"))


@functools.cache
def calibration() -> Path:
    path = folder() / "calibration"
    path.mkdir()
    for number in range(16):
        picture(1000 + number, SIZE).save(path / f"{number}.png")
    return path


def pictures(root: Path) -> list[Path]:
    root.mkdir(parents=True)
    for number in range(COUNT):
        picture(number, SIZE).save(root / f"p{number:02}.png")
    return sorted(root.iterdir())


def outputs(net: nn.Module, path: Path) -> Any:
    """Return what the network itself gives for a photo."""
    image = photos.read_whole_photo(path, HOW, 3)
    with torch.no_grad():
        return net(torch.from_numpy(image)[None])


def detector_labels(net: nn.Module, root: Path) -> Path:
    """Label the sure detections of the network, a little moved, as COCO does: pixels of the photo."""
    generator = np.random.default_rng(0)
    images, annotations = [], []
    for number, path in enumerate(pictures(root)):
        images.append({"id": number, "file_name": path.name})
        y = outputs(net, path)
        scores = y["scores"][0].numpy()
        for i in np.argsort(-scores.max(1))[:4]:
            x0, y0, x1, y1 = y["boxes"][0, i].numpy() * [2, 1.5, 2, 1.5] + generator.normal(0, 0.3, 4)
            box = [float(x0), float(y0), float(x1 - x0), float(y1 - y0)]
            annotations.append({"image_id": number, "category_id": int(scores[i].argmax()) + 1, "bbox": box})
    kinds = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    path = root / "labels.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": kinds}))
    return path


def mask_labels(net: nn.Module, root: Path) -> Path:
    """Label each pixel as the network does, but for a column, at the photo's size."""
    paths = pictures(root / "images")
    (root / "masks").mkdir()
    for path in paths:
        mask = outputs(net, path)[0].argmax(0).numpy().astype(np.uint8)
        mask[:, :2] = 3
        Image.fromarray(mask).resize(SIZE, Image.Resampling.NEAREST).save(root / "masks" / path.name)
    return root


def text_labels(net: nn.Module, root: Path) -> Path:
    """Label each photo with the text that the network reads; every third one ends in another letter."""
    lines = []
    for number, path in enumerate(pictures(root)):
        tokens = join_sequence_of_task(outputs(net, path)[0].argmax(-1).numpy())
        text = "".join("-abcde"[token] for token in tokens)
        lines.append(json.dumps({"file": path.name, "text": text + "a" * (number % 3 == 0)}))
    (root / "tokens.txt").write_text("\n".join("-abcde"))
    (root / "labels.jsonl").write_text("\n".join(lines))
    return root / "labels.jsonl"


def number_labels(net: nn.Module, root: Path) -> Path:
    """Label each photo with the network's numbers and some noise."""
    generator = np.random.default_rng(0)
    rows = []
    for path in pictures(root):
        numbers = outputs(net, path)[0].numpy() + generator.normal(0, 0.1, 2)
        rows.append(f"{path.name},{float(numbers[0])},{float(numbers[1])}")
    (root / "labels.csv").write_text("file,a,b\n" + "\n".join(rows))
    return root / "labels.csv"


@dataclass(frozen=True)
class Case:
    """A task's network and labels, and the measures that float32 must reach."""

    net: str
    labels: Callable[[nn.Module, Path], Path]
    least: Mapping[str, float]


CASES: dict[TaskName, Case] = {
    "boxes": Case("Detector", detector_labels, {"mAP@0.5:0.95": 0.3, "mAP@0.5": 0.5}),
    "masks": Case("Segmenter", mask_labels, {"mIoU": 0.5}),
    "sequences": Case("Reader", text_labels, {"CER": 0.0, "whole sequences": 0.5}),
    "regression": Case("Gauge", number_labels, {"R2": 0.5, "MAE": 0.0}),
}


@functools.cache
def made(task: TaskName) -> tuple[Path, Path]:
    """Write the checkpoint and the labels."""
    net = getattr(task_nets, CASES[task].net)().eval()
    path = folder() / f"{task}.pt"
    torch.save(net.state_dict(), path)
    return path, CASES[task].labels(net, folder() / task)


def run(task: TaskName, out: str, **more: Any) -> tuple[Path, Report]:
    checkpoint, labels = made(task)
    options: dict[str, Any] = {
        "arch": f"tests.task_nets:{CASES[task].net}",
        "input_shapes": (TensorSpec("image", (1, 3, 32, 32)),),
        "preprocessing": HOW,
        "calibration": calibration(),
        "samples": 8,
        "evaluation": labels,
        "formats": ("onnx-fp32", "onnx-int8"),
        **more,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPORT_MOBILE_CACHE", str(folder() / "cache"))
        report = export(checkpoint, "snapdragon865", out=folder() / out, **options)
    return folder() / out, report


@functools.cache
def exported(task: TaskName) -> tuple[Path, Report]:
    return run(task, f"{task}-out", max_drop=100.0)


def by_name(report: Report) -> dict[str, Artifact]:
    return {artifact.variant.name: artifact for artifact in report.artifacts}


@pytest.mark.parametrize("task", CASES)
def test_float32_and_artifacts_are_measured(task: TaskName) -> None:
    """The task is told by the labels; the fp32 file loses nothing, the int8 file something within reason."""
    report = exported(task)[1]
    evaluation = report.task_evaluation
    assert evaluation is not None
    assert (evaluation.task, evaluation.kind, evaluation.reference.count) == (task, "photos", COUNT)
    values = {score.name: score.value for score in evaluation.reference.scores}
    assert list(values) == list(CASES[task].least)
    assert all(values[name] > least for name, least in CASES[task].least.items())
    exact, small = (by_name(report)[name].task_accuracy for name in ("onnx-fp32", "onnx-int8"))
    assert exact is not None
    assert small is not None
    assert [abs(score.lost) < 0.01 for score in exact.scores] == [True] * len(exact.scores)
    first = small.scores[0]
    assert first.value != values[first.name] or task == "sequences"  # its tokens are far apart
    assert first.interval[0] <= first.lost <= first.interval[1]
    assert abs(first.lost) < 40


@pytest.mark.parametrize("task", CASES)
def test_verify_scores_again(task: TaskName) -> None:
    """The rows in OUT give the figures again; a row that gives another figure is found."""
    out, _ = exported(task)
    assert verify_export(out).holds
    forged = Path(shutil.copytree(out, folder() / f"{task}-forged"))
    with np.load(forged / "accuracy.npz") as archive:
        arrays = dict(archive)
    changed = next(
        key for key in arrays if key.startswith("onnx-int8/") and arrays[key].ndim == 2 and len(arrays[key])
    )
    arrays[changed][: len(arrays[changed]) // 2, 2] += 1
    np.savez(forged / "accuracy.npz", **arrays)
    listed = json.loads((forged / "manifest.json").read_text())
    for item in listed["evidence"]["files"]:
        item["sha256"] = files.digest_file(forged / item["file"])
    (forged / "manifest.json").write_text(json.dumps(listed))
    expected = f"The {task} measures of onnx-int8 are not what accuracy.npz gives."
    assert verify_export(forged).problems == (expected,)


def test_what_loses_more_than_allowed_fails() -> None:
    """An int8 file fails for its measure where no loss is allowed."""
    _, report = run("masks", "strict", max_drop=0.0)
    small = by_name(report)["onnx-int8"]
    assert small.task_accuracy is not None
    assert small.task_accuracy.scores[0].lost > 0
    assert small.status == "failed"
    assert "points worse than float32's on 24 labelled samples" in str(small.reason)


def test_the_report_shows_the_measures() -> None:
    """The terminal has a column and a line, the page a table, and both come back from the manifest."""
    out, report = exported("masks")
    back = restore.restore_report(load_manifest(out / "manifest.json"))
    assert back.task_evaluation == report.task_evaluation
    assert [a.task_accuracy for a in back.artifacts] == [a.task_accuracy for a in report.artifacts]
    assert f"on {COUNT} labelled photos (masks); 100 points of mIoU may be lost" in printed(back)
    page = render_html(back, {})
    section = page[page.index("<h2>Accuracy</h2>") :].split("</section>")[0]
    assert "mIoU lost" in section
    assert section.count("onnx-int8</th>") == 1


@pytest.mark.parametrize("change", ["lost", "value", "count", "name"])
def test_a_manifest_cannot_claim_other_measures(change: str, tmp_path: Path) -> None:
    """What follows from the values is checked when it is read."""
    listed = json.loads((exported("masks")[0] / "manifest.json").read_text())
    own = next(a for a in listed["artifacts"] if a["name"] == "onnx-int8")["task_accuracy"]
    if change == "count":
        own["count"] += 1
    else:
        own["scores"][0][change] = "CER" if change == "name" else own["scores"][0][change] + 0.01
    (tmp_path / "manifest.json").write_text(json.dumps(listed))
    with pytest.raises(Exception, match=r"onnx-int8: (mIoU lost|measures on other|other measures)"):
        load_manifest(tmp_path / "manifest.json")


def test_labels_that_are_not_the_models_are_refused(tmp_path: Path) -> None:
    """Numbers of other photos: float32 explains nothing of them, so that nothing could be lost."""
    _, labels = made("regression")
    lines = labels.read_text().splitlines()
    shifted = [
        f"{a.split(',')[0]},{b.partition(',')[2]}"
        for a, b in zip(lines[1:], lines[3:] + lines[1:3], strict=True)
    ]
    other = labels.parent / "shifted.csv"
    other.write_text("\n".join([lines[0], *shifted]))
    with pytest.raises(CalibrationError, match="no better than chance") as caught:
        run("regression", "chance", evaluation=other)
    assert (caught.value.exit_code, caught.value.code) == (11, "EM-LABELS")


def test_the_view_of_a_batch_is_split() -> None:
    """A model with a batch of two gives each sample its own rows; outputs without the batch are refused."""
    from exporter.pipeline import task_accuracy

    sample = (np.zeros((2, 3, 8, 8), np.float32),)
    views = task_accuracy._task_accuracy_views([np.arange(6.0).reshape(2, 3)], ["y"], sample, 2)
    assert [view.outputs[0].tolist() for view in views] == [[[0, 1, 2]], [[3, 4, 5]]]
    assert isinstance(views[0], ScoredSample)
    assert views[0].size == (8, 8)
    with pytest.raises(ValueError, match="cannot be split"):
        task_accuracy._task_accuracy_views([np.zeros(3)], ["y"], sample, 2)
