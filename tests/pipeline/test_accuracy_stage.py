"""Accuracy on labelled samples, from the request to the manifest, and again from the manifest."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from exporter import Report, export, files
from exporter.errors import CalibrationError, UsageError
from exporter.pipeline import accuracy_stage
from exporter.pipeline.audit import verify_export
from exporter.pipeline.context import Event
from exporter.records import Accuracy, Precision, Score, TaskAccuracy
from exporter.verify.labelled_loss import LabelledFigures
from tests import exports, nets
from tests.report import sample

FIRST, COUNT = 1500, 160
slow = [pytest.mark.slow, pytest.mark.xdist_group("evaluate")]


@functools.cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="export-mobile-evaluate-"))


@functools.cache
def evaluation() -> Path:
    """Digits that nothing was trained or calibrated on, with what they are."""
    images = np.concatenate([s[0] for s in nets.samples("cnn", FIRST, COUNT)])
    np.savez(folder() / "eval.npz", image=images, labels=load_digits().target[FIRST : FIRST + COUNT])
    return folder() / "eval.npz"


def run(out: str, events: list[Event] | None = None, **more: object) -> tuple[Path, Report]:
    options: dict[str, Any] = {
        **exports.options("cnn"),
        "evaluation": evaluation(),
        "formats": ("onnx-fp32", "onnx-int8"),
        **more,
    }
    observer = events.append if events is not None else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPORT_MOBILE_CACHE", str(folder() / "cache"))
        report = export(exports.checkpoint("cnn"), "snapdragon865", observer, out=folder() / out, **options)
    return folder() / out, report


@functools.cache
def exported() -> tuple[Path, Report]:
    return run("out")


class TestAWholeExport:
    """The small convolutional network on 160 labelled digits."""

    pytestmark = slow

    def test_float32_is_counted_as_eager_pytorch_has_it(self) -> None:
        """Right and among five, on exactly the samples that were given."""
        images = torch.from_numpy(np.load(evaluation())["image"])
        net = nets.trained("cnn")
        with torch.no_grad():
            ranked = net(images).argsort(1, descending=True).numpy()
        labels = load_digits().target[FIRST : FIRST + COUNT]
        measured = exported()[1].evaluation
        assert measured is not None
        assert (measured.kind, measured.classes, measured.max_drop) == ("arrays", 10, 1.0)
        assert measured.reference.count == measured.reference.same == COUNT
        assert measured.reference.right == (ranked[:, 0] == labels).sum()
        assert measured.reference.right5 == (ranked[:, :5] == labels[:, None]).any(1).sum()

    def test_every_artifact_that_runs_is_counted(self) -> None:
        """The fp32 file answers as float32 does on every sample, the int8 file on most."""
        by_name = {a.variant.name: a.accuracy for a in exported()[1].artifacts}
        exact, small = by_name["onnx-fp32"], by_name["onnx-int8"]
        assert exact is not None
        assert small is not None
        assert exact.same == COUNT
        assert COUNT * 0.9 < small.same <= COUNT

    def test_verify_counts_again(self) -> None:
        """From the answers in OUT; a figure that they do not give is found, and so is a damaged file."""
        assert verify_export(exported()[0]).holds
        out = Path(shutil.copytree(exported()[0], folder() / "forged"))
        with np.load(out / "accuracy.npz") as archive:
            answers = dict(archive)
        answers["onnx-int8"][:20, 0] = (answers["onnx-int8"][:20, 0] + 1) % 10
        np.savez(out / "accuracy.npz", **answers)
        assert "sha256 differs" in verify_export(out).problems[0]
        listed = json.loads((out / "manifest.json").read_text())
        for item in listed["evidence"]["files"]:
            item["sha256"] = files.digest_file(out / item["file"])
        (out / "manifest.json").write_text(json.dumps(listed))
        assert verify_export(out).problems == ("The accuracy of onnx-int8 is not what accuracy.npz gives.",)

    def test_the_cache_knows_the_answers(self) -> None:
        """A second run measures nothing again and says the same."""
        exported()
        events: list[Event] = []
        report = run("again", events)[1]
        assert [e.detail for e in events if e.stage == "accuracy" and e.detail] == []
        assert [a.accuracy for a in report.artifacts] == [a.accuracy for a in exported()[1].artifacts]

    def test_judging_on_calibration_data_is_refused(self) -> None:
        """Before anything is built; exit code 11."""
        exported()
        with np.load(exports.arrays("cnn")) as archive:
            image = archive["image"]
        path = folder() / "seen.npz"
        np.savez(path, image=np.concatenate([image] * 2), labels=np.zeros(2 * len(image), np.int64))
        events: list[Event] = []
        with pytest.raises(CalibrationError, match="are also in") as caught:
            run("seen", events, evaluation=path)
        assert caught.value.exit_code == 11
        assert {e.stage for e in events} == {"plan", "read"}


def test_without_verification_nothing_is_judged() -> None:
    """The two options contradict each other."""
    with pytest.raises(UsageError, match="--no-verify"):
        run("unverified", verify=False)


def test_an_artifact_that_lost_too_much_fails() -> None:
    """Only what had passed changes its status; the reason tells the drop; what could not run fails too."""
    floats = Accuracy(2000, 1800, None, same=2000)
    bad = Accuracy(2000, 1700, None, lost=120, gained=20, same=1860)
    rows = sample.artifacts()
    passed = [a.variant.name for a in rows if a.status == "passed"]
    failed = next(a.variant.name for a in rows if a.status == "failed")
    figures = {passed[0]: bad, passed[1]: floats, failed: bad}
    judged = {
        a.variant.name: a
        for a in accuracy_stage.judge_in_accuracy_stage(rows, figures, {passed[2]: "Broke."}, 1.0)
    }
    assert (judged[passed[0]].status, judged[passed[1]].status) == ("failed", "passed")
    assert str(judged[passed[0]].reason).startswith("It loses 5 points of top-1 (120 lost, 20 gained of 2000")
    assert judged[passed[2]].reason == "Broke."
    assert replace(judged[failed], accuracy=None) == next(a for a in rows if a.variant.name == failed)


BAD = [
    Accuracy(200, 170, None, lost=12, gained=2, same=186),
    TaskAccuracy(200, (Score("mIoU", 0.6, 4.0, (1.5, 6.0)),)),
]


@pytest.mark.parametrize("bad", BAD, ids=["classes", "a task"])
@pytest.mark.parametrize("status", ["passed", "inconclusive"])
def test_what_may_ship_fails_by_either_kind_of_labels(status: Any, bad: LabelledFigures) -> None:
    """An artifact whose scenes prove too little may ship when it is allowed: its loss fails it, too."""
    row = next(a for a in sample.artifacts() if a.status == "passed")
    name = row.variant.name
    (judged,) = accuracy_stage.judge_in_accuracy_stage([replace(row, status=status)], {name: bad}, {}, 1.0)
    assert judged.status == "failed"
    assert "1 may be lost" in str(judged.reason)
    assert (judged.accuracy or judged.task_accuracy) == bad


UNPROVEN = TaskAccuracy(200, (Score("mIoU", 0.6, 0.5, (-0.2, 1.2)),))
PROVEN = TaskAccuracy(200, (Score("mIoU", 0.6, 0.5, (-0.2, 1.0)),))


@pytest.mark.parametrize(
    ("precision", "figures", "status"),
    [
        ("int8", Accuracy(200, 180, None, same=200), "inconclusive"),
        ("int8", Accuracy(2000, 1798, None, lost=2, same=1998), "passed"),
        ("w4", Accuracy(2000, 1782, None, lost=18, same=1982), "inconclusive"),
        ("mixed", Accuracy(2000, 1760, None, lost=40, same=1960), "failed"),
        ("fp16", Accuracy(200, 180, None, same=200), "passed"),
        ("fp32", Accuracy(200, 180, None, same=200), "passed"),
        ("int8", UNPROVEN, "inconclusive"),
        ("int8", PROVEN, "passed"),
        ("fp16", UNPROVEN, "passed"),
    ],
)
def test_few_labelled_samples_prove_no_quantised_artifact(
    precision: Precision, figures: LabelledFigures, status: str
) -> None:
    """A quantised artifact passes when the upper bound of its loss keeps the limit, too."""
    row = next(a for a in sample.artifacts() if a.status == "passed")
    row = replace(row, variant=replace(row.variant, precision=precision))
    (judged,) = accuracy_stage.judge_in_accuracy_stage([row], {row.variant.name: figures}, {}, 1.0)
    assert judged.status == status
    if status == "inconclusive":
        assert f"{figures.count} labelled samples cannot decide" in str(judged.reason)
        assert "more labelled samples like these would decide." in str(judged.reason)
