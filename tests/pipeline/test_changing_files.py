"""Files that change while they are used: what is published and kept is about the bytes that were read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporter import data
from exporter.checkpoints.checkpoint_source import open_checkpoint_source
from exporter.config.request import ModelRequest
from exporter.data import labelled, npz
from exporter.errors import CalibrationError, CheckpointError
from exporter.files import digest_file, digest_file_or_folder
from exporter.pipeline import labelled_predictions, read_stage, stage_results
from exporter.pipeline.context import Context, Source
from exporter.records import Array, Preprocessing, TensorSpec
from tests import inline
from tests.data.test_data import picture

Change = Callable[[Path], object]


def rewrite(path: Path) -> None:
    """As `torch.save` to the same path does: the same file, other bytes."""
    path.write_bytes(b"new weights")


def replace_it(path: Path) -> None:
    """As careful trainers do: another file under the name."""
    path.with_suffix(".new").write_bytes(b"new weights")
    path.with_suffix(".new").rename(path)


def append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def truncate(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("change", [rewrite, append, truncate])
def test_a_checkpoint_that_is_written_to_while_it_is_read_is_refused(change: Change, tmp_path: Path) -> None:
    """The checkpoint's hash would name other weights than those that were read."""
    path = tmp_path / "last.pt2"
    path.write_bytes(b"old weights")
    with pytest.raises(CheckpointError, match="changed while it was read"), open_checkpoint_source(path):
        change(path)


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_the_old_one(tmp_path: Path) -> None:
    """The open file stays what it was, under any name."""
    path = tmp_path / "last.pt2"
    path.write_bytes(b"old weights")
    before = digest_file(path)
    with open_checkpoint_source(path) as source:
        replace_it(path)
        assert (source.sha256, source.file.read()) == (before, b"old weights")


def facts(path: Path) -> stage_results.ReadResult:
    """What a capture finds out of a file; the network is made up."""
    spec = (TensorSpec("x", (1, 3)),)
    return stage_results.ReadResult(
        digest_file(path), "state_dict", "net", 1, 1, None, spec, spec, None, (), "synthetic", 1, 1, (), (),
        f"graph of {path.read_bytes()!r}",
    )  # fmt: skip


class Trainer:
    """Captures what lies at the checkpoint's path, after it has changed the file once."""

    def __init__(self, change: Change, patch: pytest.MonkeyPatch) -> None:
        self.captures, self._change = 0, change
        patch.setattr(read_stage, "capture_in_read_stage", self.capture)

    def capture(
        self, request: ModelRequest, work: Path, calibration_digest: str, choosing: bool
    ) -> stage_results.ReadResult:
        self.captures += 1
        if self.captures == 1:
            self._change(request.checkpoint)
        (work / stage_results.DATA).touch()
        return facts(request.checkpoint)


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A run with a cache of its own."""
    monkeypatch.setenv("EXPORT_MOBILE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "last.pt2").write_bytes(b"old weights")
    context = inline.context(tmp_path, ("onnx-fp32",), checkpoint=tmp_path / "last.pt2")
    return replace(context, request=replace(context.request, cache=True))


@pytest.mark.parametrize("change", [rewrite, replace_it])
class TestAReplacedCheckpoint:
    def test_what_is_published_is_what_was_read(
        self, change: Change, context: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not what lay there when the run began."""
        Trainer(change, monkeypatch)
        source = read_stage.run_read_stage(context)
        assert source.facts.source_sha256 == digest_file(context.request.checkpoint)
        assert "new weights" in source.facts.digest

    def test_a_later_export_of_the_old_bytes_does_not_get_the_new_weights(
        self, change: Change, context: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The cache keeps nothing under a hash of other bytes."""
        trainer = Trainer(change, monkeypatch)
        poisoned = read_stage.run_read_stage(context)
        context.request.checkpoint.write_bytes(b"old weights")
        later = read_stage.run_read_stage(context)
        assert trainer.captures == 2
        assert "old weights" in later.facts.digest
        assert later.facts.source_sha256 == digest_file(context.request.checkpoint)
        assert later.key != poisoned.key

    def test_a_capture_after_the_facts_came_from_the_cache_must_be_of_the_same_file(
        self, change: Change, context: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Artifacts of two files never meet in one OUT."""
        source = Source(facts(context.request.checkpoint), "key")
        Trainer(change, monkeypatch)
        with pytest.raises(CheckpointError, match="replaced while it was exported"):
            read_stage.ensure_read_stage_ran(context, source)


def test_an_unchanged_checkpoint_comes_from_the_cache(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the tests above would prove nothing."""
    trainer = Trainer(lambda _: None, monkeypatch)
    assert read_stage.run_read_stage(context).facts == read_stage.run_read_stage(context).facts
    assert trainer.captures == 1


SMALL = Preprocessing(resize=40, crop=(32, 32))
INPUT = (TensorSpec("x", (1, 3, 32, 32)),)
CLASSES = (TensorSpec("logits", (1, 2)),)


def folder_of_photos(root: Path) -> Path:
    for index, name in enumerate(("a", "b")):
        (root / name).mkdir(parents=True)
        for number in range(2):
            picture(10 * index + number).save(root / name / f"{number}.png")
    return root


def other_picture(root: Path) -> None:
    picture(99).save(root / "a" / "1.png")


def swapped(root: Path) -> None:
    (root / "a" / "0.png").rename(root / "x.png")
    (root / "b" / "0.png").rename(root / "a" / "0.png")
    (root / "x.png").rename(root / "b" / "0.png")


DATA_CHANGES: dict[str, Change] = {
    "another picture": other_picture,
    "two pictures swapped": swapped,
    "a picture gone": lambda root: (root / "b" / "1.png").unlink(),
    "a picture cut short": lambda root: (root / "b" / "1.png").write_bytes(b"\x89PNG"),
    "a byte more": lambda root: append(root / "b" / "0.png"),
    "no picture any more": lambda root: (root / "a" / "0.png").write_text("text"),
}


@pytest.mark.parametrize("name", DATA_CHANGES)
def test_labelled_photos_that_change_after_they_were_found_end_the_run(name: str, tmp_path: Path) -> None:
    """Each is decoded from the bytes that were hashed, whenever that is."""
    root = folder_of_photos(tmp_path / "photos")
    samples = labelled.find_labelled(root, INPUT, CLASSES, SMALL, ())
    assert len(list(samples.batches())) == 4
    DATA_CHANGES[name](root)
    with pytest.raises(CalibrationError, match="changed while it was read"):
        list(samples.batches())


@pytest.mark.parametrize("name", [*DATA_CHANGES, "a picture more"])
def test_calibration_photos_that_change_after_they_were_hashed_end_the_run(name: str, tmp_path: Path) -> None:
    """Every cache key has the hash, so no file of the folder may be another."""
    root = folder_of_photos(tmp_path / "photos")
    before = digest_file_or_folder(root)
    data.check_data_unchanged(root, before)
    changes = DATA_CHANGES | {"a picture more": lambda path: picture(5).save(path / "a" / "2.png")}
    changes[name](root)
    with pytest.raises(CalibrationError, match="changed while it was read"):
        data.check_data_unchanged(root, before)


def test_labelled_photos_have_another_digest_when_one_differs(tmp_path: Path) -> None:
    """The digest is what the cache keeps predictions under."""
    root = folder_of_photos(tmp_path / "photos")
    before = labelled.find_labelled(root, INPUT, CLASSES, SMALL, ()).digest
    assert labelled.find_labelled(root, INPUT, CLASSES, SMALL, ()).digest == before
    swapped(root)
    assert labelled.find_labelled(root, INPUT, CLASSES, SMALL, ()).digest != before


def test_labelled_rows_that_change_while_they_are_read_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and labels are read one after the other, and must be of one file."""
    path = tmp_path / "rows.npz"
    rows = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)
    np.savez(path, x=rows, labels=np.array([0, 1, 0, 1]))
    assert labelled.find_labelled(path, INPUT, CLASSES, None, ()).digest
    real: Callable[[Path], Array] = npz.read_npz_labels

    def labels(source: Path) -> Array:
        np.savez(source, x=rows + 1, labels=np.array([0, 1, 0, 1]))
        return real(source)

    monkeypatch.setattr(npz, "read_npz_labels", labels)
    with pytest.raises(CalibrationError, match="changed while it was read"):
        labelled.find_labelled(path, INPUT, CLASSES, None, ())


def test_changed_samples_end_the_run_and_are_no_artifacts_failure() -> None:
    """Anything else that goes wrong with one artifact is data, and the others go on."""
    assert "does not run" in labelled_predictions._labelled_prediction_failure(
        "onnx-int8", ValueError("too large")
    )
    with pytest.raises(CalibrationError):
        labelled_predictions._labelled_prediction_failure("onnx-int8", CalibrationError("changed"))
