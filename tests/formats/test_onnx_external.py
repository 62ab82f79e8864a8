"""A model with more weights than one ONNX file holds is a folder, which refers to its own second file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from exporter.bench import bench_artifacts
from exporter.errors import LoweringError, UsageError
from exporter.files import digest_file_or_folder
from exporter.formats import FORMATS, VARIANTS
from exporter.formats.onnx import onnx_export
from exporter.formats.onnx.onnx_external import MODEL, WEIGHTS
from exporter.formats.onnx.onnx_needs import onnx_needs
from exporter.records import ONNX_FOLDER_NOTE, About, Captured, Sample
from tests import nets, proof

FP32 = VARIANTS["onnx-fp32"]
EMIT = FORMATS["onnx"].emit


def rows(count: int = 4) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [(rng.standard_normal((1, 64)).astype(np.float32),) for _ in range(count)]


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    made = proof.capture(net, rows(), tmp_path_factory.mktemp("captured"))
    return replace(made, about=About(author="Ada", labels=tuple("abcdefghij")))


@pytest.fixture
def folder(captured: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The artifact, where one file holds less than the network's 38 kB."""
    monkeypatch.setattr(onnx_export, "MAX_BYTES", 30_000)
    return EMIT(captured, FP32, tmp_path).path


def test_a_folder_computes_what_the_single_file_computes(
    captured: Captured, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs, operators, weights and needs are those of one file; the graph itself is small."""
    monkeypatch.undo()
    (tmp_path / "one").mkdir()
    single = EMIT(captured, FP32, tmp_path / "one").path
    assert single.is_file()
    assert sorted(path.name for path in folder.iterdir()) == [MODEL, WEIGHTS]
    assert (folder / MODEL).stat().st_size < 5_000 < 30_000 < (folder / WEIGHTS).stat().st_size
    runs = [FORMATS["onnx"].load(path, FP32, 1)[0] for path in (single, folder)]
    for sample in rows():
        np.testing.assert_array_equal(runs[0](sample)[0], runs[1](sample)[0])
    assert FORMATS["onnx"].structure(folder, FP32) == FORMATS["onnx"].structure(single, FP32)
    assert onnx_needs(folder) == onnx_needs(single)


def test_a_folder_carries_the_metadata(folder: Path) -> None:
    """The runtime reads the labels from the graph's file."""
    import onnxruntime

    told = onnxruntime.InferenceSession(str(folder / MODEL)).get_modelmeta().custom_metadata_map
    assert told["author"] == "Ada"
    assert '"j"' in told["classes"]


def test_one_changed_weight_changes_the_hash(folder: Path) -> None:
    """The hash that the manifest and a release record covers both files."""
    before = digest_file_or_folder(folder)
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    assert digest_file_or_folder(folder) != before


@pytest.mark.parametrize("name", ["onnx-fp16", "onnx-int8"])
def test_other_precisions_become_folders_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder computes what the single file computes, and is told of by the same note."""
    variant = VARIANTS[name]
    captured = nets.captured_for("attention", variant)
    single = EMIT(captured, variant, tmp_path).path
    (tmp_path / "large").mkdir()
    monkeypatch.setattr(onnx_export, "MAX_BYTES", 5_000)
    emission = EMIT(captured, variant, tmp_path / "large")
    assert sorted(path.name for path in emission.path.iterdir()) == [MODEL, WEIGHTS]
    assert ONNX_FOLDER_NOTE in emission.notes
    runs = [FORMATS["onnx"].load(path, variant, 1)[0] for path in (single, emission.path)]
    for sample in nets.samples("attention", 1400, 4):
        np.testing.assert_array_equal(runs[0](sample)[0], runs[1](sample)[0])
    assert FORMATS["onnx"].structure(emission.path, variant) == FORMATS["onnx"].structure(single, variant)


def test_the_ort_format_is_refused_by_name(
    captured: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ORT's format knows one file only."""
    monkeypatch.setattr(onnx_export, "MAX_BYTES", 30_000)
    with pytest.raises(LoweringError, match="an ORT artifact has no other"):
        EMIT(captured, VARIANTS["ort-fp32"], tmp_path)


def refer(key: str, value: str) -> Callable[[Path], None]:
    """Return what changes an entry of every reference."""

    def change(folder: Path) -> None:
        model = onnx.load_model(folder / MODEL, load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == key:
                    entry.value = value
        (folder / MODEL).write_bytes(model.SerializeToString())

    return change


def shorten(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-8])


def link(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "elsewhere")
    (folder / WEIGHTS).symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(refer("location", "../secret"), id="a path upwards"),
        pytest.param(refer("location", "/etc/passwd"), id="an absolute path"),
        pytest.param(refer("location", MODEL), id="the graph itself"),
        pytest.param(refer("offset", "999999"), id="beyond the end"),
        pytest.param(refer("offset", "-8"), id="before the beginning"),
        pytest.param(refer("length", "8"), id="too few bytes"),
        pytest.param(refer("length", "many"), id="no number"),
        pytest.param(shorten, id="a short file"),
        pytest.param(link, id="a link"),
        pytest.param(lambda folder: (folder / WEIGHTS).unlink(), id="no weights"),
        pytest.param(lambda folder: (folder / "more").touch(), id="another file"),
    ],
)
def test_references_to_anything_else_are_refused(damage: Callable[[Path], None], folder: Path) -> None:
    """Neither the reader nor the runtime follows a reference out of the folder."""
    damage(folder)
    for read in (
        lambda: FORMATS["onnx"].structure(folder, FP32),
        lambda: FORMATS["onnx"].load(folder, FP32, 1),
    ):
        with pytest.raises(LoweringError):
            read()


def test_a_file_that_refers_to_another_is_still_refused(folder: Path, tmp_path: Path) -> None:
    """Outside such a folder, an artifact is whole in itself."""
    alone = tmp_path / "alone.onnx"
    alone.write_bytes((folder / MODEL).read_bytes())
    (tmp_path / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes())
    with pytest.raises(LoweringError, match="stored in another file"):
        FORMATS["onnx"].structure(alone, FP32)


def test_a_folder_is_not_put_on_a_phone(folder: Path) -> None:
    """The runner loads one file; the message names the option for another artifact."""
    with pytest.raises(UsageError, match="--artifact NAME"):
        bench_artifacts._check_bench_artifact_hash(folder, digest_file_or_folder(folder))
