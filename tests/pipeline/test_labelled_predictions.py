"""Who answers to labelled samples, who need not again, and what happens to those that cannot."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from exporter.errors import CalibrationError
from exporter.formats import VARIANTS
from exporter.pipeline import labelled_predictions, stage_results
from exporter.pipeline.context import Source
from exporter.pipeline.labelled_predictions import ArtifactPredictions
from exporter.pipeline.stage_results import LabelsResult, RankedResult
from exporter.records import TensorSpec, Variant
from exporter.verify.accuracy import UNREAD
from tests import inline

FLOATS = RankedResult(((0, 1), (1, 0), (2, 0), (0, 1)))
LABELS = LabelsResult("arrays", 3, (0, 1, 2, 1), ())


class Run:
    """A run with two artifacts, of which ONNX's fails, that records the jobs."""

    def __init__(
        self, folder: Path, patch: pytest.MonkeyPatch, floats: RankedResult | Exception = FLOATS
    ) -> None:
        self.ran: list[str] = []
        (folder / "labels.npz").touch()
        self.context = inline.context(folder, (), evaluation=folder / "labels.npz", max_drop=25.0)
        (self.context.folders.work / stage_results.DATA).touch()
        facts = dict.fromkeys(("inputs", "preprocessing", "labels", "digest"))
        outputs = (TensorSpec("y", (1, 3)),)
        self.source = Source(SimpleNamespace(**facts, outputs=outputs), "")  # type: ignore[arg-type]

        def predict_float(*_: Any) -> RankedResult:
            self.ran.append(labelled_predictions.FLOAT)
            if isinstance(floats, Exception):
                raise floats
            return floats

        def predict_artifact(path: Path, variant: Variant, *_: Any) -> RankedResult:
            self.ran.append(path.name)
            if variant.format == "onnx":
                raise ValueError("no such kernel")
            return RankedResult(((0, 1), (0, 1), (0, 2), (1, 0)))

        patch.setattr(labelled_predictions, "labelled_predictions_of_float", predict_float)
        patch.setattr(labelled_predictions, "labelled_predictions_by_artifact", predict_artifact)

    def answer(self, *names: str, existing: ArtifactPredictions | None = None) -> ArtifactPredictions:
        out = self.context.folders.out
        for name in names:
            (out / name).touch()
        built = [stage_results.BuildResult(VARIANTS[name], name) for name in names]
        return labelled_predictions.labelled_predictions_of_artifacts(
            self.context, self.source, LABELS, out, built, self.context.run, existing or ArtifactPredictions()
        )


def test_what_is_known_is_kept_and_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """float32, artifacts that answered, and one that could not: it says why in both."""
    run = Run(tmp_path, monkeypatch)
    first = run.answer("onnx-int8")
    again = run.answer("onnx-int8", "executorch-xnnpack-int8", existing=first)
    assert run.ran == [labelled_predictions.FLOAT, "onnx-int8", "executorch-xnnpack-int8"]
    assert set(again.ranked) == {labelled_predictions.FLOAT, "executorch-xnnpack-int8"}
    assert again.failures == first.failures
    assert first.failures == {"onnx-int8": "It does not run on the labelled samples: no such kernel"}


def test_a_drop_is_counted_against_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The artifact lost two of four and gained one: 25 points. What gave no answers has no drop."""
    answers = Run(tmp_path, monkeypatch).answer("executorch-xnnpack-int8", "onnx-int8")
    assert labelled_predictions.drops_of_labelled_predictions(LABELS, answers) == {
        "executorch-xnnpack-int8": 25.0
    }


@pytest.mark.parametrize(
    ("read", "says"), [(0, "none of its photos can be decoded"), (3, r"has 3 labelled sample\(s\)")]
)
def test_too_few_that_can_be_read_are_refused(
    read: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is judged by them: one of three is more than 25 points."""
    rows = (*FLOATS.rows[:read], *[(UNREAD, UNREAD)] * (4 - read))
    with pytest.raises(CalibrationError, match=says):
        Run(tmp_path, monkeypatch, RankedResult(rows)).answer()


def test_without_float32_there_is_nothing_to_compare_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float32's error ends the run."""
    with pytest.raises(ValueError, match="too large"):
        Run(tmp_path, monkeypatch, ValueError("too large")).answer("executorch-xnnpack-int8")
