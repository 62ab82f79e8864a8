"""Files of Ultralytics: read without running them, and built from their description."""

from __future__ import annotations

import copy
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter import checkpoints
from exporter.architectures import build_architecture, families
from exporter.capture import captured_program
from exporter.checkpoints.inert_values import is_plain_inert_value
from exporter.config.request import ModelRequest
from exporter.errors import ArchitectureError, CheckpointError, MissingDependencyError, UsageError
from exporter.pipeline.inspect import inspect_checkpoint
from exporter.records import Model, TensorSpec

pytest.importorskip("ultralytics", reason="the extra ultralytics (AGPL-3.0) is not installed")


@cache
def tasks(folder: str) -> Any:
    os.environ.setdefault("YOLO_CONFIG_DIR", folder)
    families.import_family_package("ultralytics", "a test")
    from ultralytics.nn import tasks

    return tasks


def network(tmp_path: Path, kind: str = "DetectionModel", description: str = "yolov8n.yaml") -> Any:
    """Make a network whose batch norms have statistics of their own."""
    torch.manual_seed(0)
    made = getattr(tasks(str(tmp_path)), kind)(description, nc=3, verbose=False).train()
    made.names = {0: "cat", 1: "dog", 2: "mat"}
    with torch.no_grad():
        made(torch.rand(4, 3, 64, 64))
    return made.eval()


def saved(tmp_path: Path, own: Any, change: Callable[[Any], None] = lambda _: None) -> Path:
    """Save as the trainer does: the averaged network, pickled whole in half precision."""
    ema = copy.deepcopy(own).half()
    change(ema)
    state = {"epoch": 2, "model": None, "ema": ema, "train_args": {"imgsz": 64}, "version": "8"}
    torch.save(state, tmp_path / "best.pt")
    return tmp_path / "best.pt"


def read(path: Path, **options: Any) -> Model:
    return build_architecture(checkpoints.read_checkpoint(path), **options)


@pytest.mark.parametrize(
    ("kind", "description"),
    [
        ("DetectionModel", "yolov8n.yaml"),
        ("DetectionModel", "yolo11n.yaml"),
        ("SegmentationModel", "yolo11n-seg.yaml"),
        ("PoseModel", "yolov8n-pose.yaml"),
        ("ClassificationModel", "yolo11n-cls.yaml"),
        ("SemanticSegmentationModel", "yolo26n-sem.yaml"),
        ("DepthModel", "yolo26n-depth.yaml"),
        ("RTDETRDetectionModel", "yolov8n-rtdetr.yaml"),
    ],
)
def test_a_file_goes_to_its_network_without_trust(tmp_path: Path, kind: str, description: str) -> None:
    """Outputs are those of the pickled network in export mode, and the graph can be captured."""
    own = network(tmp_path, kind, description)
    model = read(saved(tmp_path, own))
    assert model.architecture == f"ultralytics/{kind}"
    assert model.inputs == (TensorSpec("images", (1, 3, 64, 64)),)
    assert any("AGPL-3.0" in note for note in model.notes)
    reference = copy.deepcopy(own).half().float()
    reference.model[-1].export = True
    for cached in ("shape", "shapes"):  # the anchors of the training were rounded to half precision
        setattr(reference.model[-1], cached, None)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected, actual = reference(x), model.module(x)
    for ours, theirs in zip(_flat(actual), _flat(expected), strict=True):
        torch.testing.assert_close(ours, theirs)
    captured = captured_program.capture_program(model, (x.numpy(),))
    assert captured.program is not None, captured.program_error
    if kind == "DetectionModel":
        assert [spec.shape for spec in captured.outputs] == [(1, 7, 84)]


def test_inspect_needs_no_folder_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The confined job imports the package on a machine where it has never made its settings folder."""
    path = saved(tmp_path, network(tmp_path))
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    monkeypatch.delenv("YOLO_CONFIG_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(fresh))
    assert inspect_checkpoint(ModelRequest(path)).architecture == "ultralytics/DetectionModel"


def _flat(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for item in value for tensor in _flat(item)]


def test_every_description_of_the_package_is_plain() -> None:
    """Descriptions hold numbers and text in lists that are nested up to six deep; all of them are read."""
    import ultralytics
    import yaml

    folder = Path(ultralytics.__file__).parent / "cfg" / "models"
    described = {path.name: yaml.safe_load(path.read_text()) for path in folder.glob("*/*.yaml")}
    assert len(described) > 40
    assert [name for name, value in described.items() if not is_plain_inert_value(value)] == []


def _other_stride(module: Any) -> None:
    module.model[1].conv.padding = (0, 0)


def _other_activation(module: Any) -> None:
    module.model[1].act = torch.nn.ReLU()


def _other_eps(module: Any) -> None:
    module.model[1].bn.eps = 1e-5


@pytest.mark.parametrize("change", [_other_stride, _other_activation, _other_eps])
def test_a_layer_that_tensors_cannot_tell_is_refused(tmp_path: Path, change: Callable[[Any], None]) -> None:
    """Padding, activation and epsilon leave no trace in tensors; the file's layers have them."""
    path = saved(tmp_path, network(tmp_path), change)
    with pytest.raises(ArchitectureError, match=r"another network than the file holds: model\.1"):
        read(path)


def _other_momentum(module: Any) -> None:
    module.model[1].bn.momentum = 0.5


def test_a_setting_of_training_alone_refuses_nothing(tmp_path: Path) -> None:
    """The momentum of batch norm changes nothing that the trained network computes."""
    assert read(saved(tmp_path, network(tmp_path), _other_momentum)).parameters > 0


class Planted:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def _activation(module: Any) -> None:
    module.yaml["activation"] = "__import__('os').system('touch ran')"


def _function(module: Any) -> None:
    module.yaml["backbone"][0][2] = "attempt_load_weights"


def _function_in_a_tuple(module: Any) -> None:
    """Call a function of the package that unpickles a file."""
    row = (-1, 1, "torch_safe_load", ["'planted.pt'"])
    module.yaml["backbone"], module.yaml["head"] = (row,), (tuple(module.yaml["head"][-1]),)


def _row_in_a_tuple(module: Any) -> None:
    module.yaml["head"][0] = tuple(module.yaml["head"][0])


def _download(module: Any) -> None:
    module.yaml["backbone"][0][2] = "TorchVision"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_activation, "is no layer"),
        (_function, "is no layer"),
        (_download, "is no layer"),
        (_function_in_a_tuple, "backbone is no list of layers"),
        (_row_in_a_tuple, "head is no list of layers"),
    ],
)
def test_a_description_names_layers_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None], words: str
) -> None:
    """What the package would evaluate or call is refused before it sees the description."""
    path = saved(tmp_path, network(tmp_path), change)
    torch.save(Planted(tmp_path / "ran"), tmp_path / "planted.pt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArchitectureError, match=words):
        read(path)
    assert not (tmp_path / "ran").exists()


def test_planted_code_does_not_run(tmp_path: Path) -> None:
    """An object that runs a command when it is unpickled stays inert, wherever it lies."""
    own = network(tmp_path)
    marker = tmp_path / "ran"
    own.planted = Planted(marker)
    path = tmp_path / "best.pt"
    torch.save({"model": own, "ema": None, "train_args": {}}, path)
    read(path, input_shapes=(TensorSpec("", (1, 3, 64, 64)),))
    own.yaml["planted"] = Planted(marker)
    torch.save({"model": own, "ema": None, "train_args": {}}, path)
    with pytest.raises(CheckpointError, match="more than numbers and text"):
        checkpoints.read_checkpoint(path)
    assert not marker.exists()


def test_without_ultralytics_the_command_and_the_licence_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra's absence ends with exit code 10, the pip install and the licence."""
    path = saved(tmp_path, network(tmp_path))
    checkpoint = checkpoints.read_checkpoint(path)
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(MissingDependencyError, match=r"export-mobile\[ultralytics\].*AGPL") as caught:
        build_architecture(checkpoint)
    assert caught.value.exit_code == 10


def test_a_size_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """The message says which sides fit."""
    path = saved(tmp_path, network(tmp_path))
    with pytest.raises(UsageError, match="multiples of 32"):
        read(path, input_shapes=(TensorSpec("", (1, 3, 50, 50)),))


@pytest.mark.parametrize("description", ["yolov10n.yaml", "yolo26n.yaml"])
def test_a_branch_that_answers_nothing_is_left_out(tmp_path: Path, description: str) -> None:
    """Every weight of a head with two branches moves the outputs: files hold them all."""
    own = network(tmp_path, description=description)
    model = read(saved(tmp_path, own), input_shapes=(TensorSpec("", (1, 3, 64, 64)),))
    x = torch.rand(1, 3, 64, 64)
    for parameter in model.module.parameters():
        parameter.requires_grad_(True)
    sum(value.sum() for value in _flat(model.module(x))).backward()  # type: ignore[union-attr]
    unused = [name for name, value in model.module.named_parameters() if value.grad is None]
    assert not [name for name in unused if "dfl" not in name]
