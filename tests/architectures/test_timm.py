"""timm's checkpoints and folders: the network that they name, its arguments and its data config."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from exporter import checkpoints
from exporter.architectures import build_architecture, families
from exporter.checkpoints import checkpoint_folder
from exporter.data import photo_preprocessing
from exporter.errors import ArchitectureError, MissingDependencyError, UsageError
from exporter.records import Model, TensorSpec

SMALL = "test_efficientnet"


@cache
def timm() -> Any:
    return families.import_family_package("timm", "a test")


def network(name: str = SMALL, **arguments: Any) -> Any:
    """Make a network whose outputs vary: statistics of noise in place of fresh ones."""
    torch.manual_seed(0)
    made = timm().create_model(name, pretrained=False, **arguments).train()
    with torch.no_grad():
        made(torch.randn(8, arguments.get("in_chans", 3), 64, 64))
    return made.eval()


def trained(tmp_path: Path, own: Any, name: str = SMALL, **args: Any) -> Path:
    """Save a checkpoint as timm's training program does."""
    path = tmp_path / "model_best.pth.tar"
    arguments = argparse.Namespace(model=name, gp=None, **args)
    wrapped = {f"module.{key}": value for key, value in own.state_dict().items()}
    noise = {key: torch.zeros_like(value) for key, value in own.state_dict().items()}
    state = {"epoch": 3, "arch": name, "version": 2, "args": arguments, "optimizer": {}, "metric": 71.0}
    torch.save({**state, "state_dict": noise, "state_dict_ema": wrapped}, path)
    return path


def read(path: Path, **options: Any) -> Model:
    return build_architecture(
        checkpoints.read_checkpoint(checkpoint_folder.find_checkpoint_folder(path)), **options
    )


def check_equal(model: Model, own: Any) -> None:
    x = torch.randn(2, *model.inputs[0].shape[1:])
    with torch.no_grad():
        torch.testing.assert_close(model.module(x), own(x))


@pytest.mark.parametrize(
    ("name", "args", "made"),
    [
        (SMALL, {"num_classes": 5}, {"num_classes": 5}),
        (SMALL, {"num_classes": None, "in_chans": None}, {"num_classes": 7}),
        (SMALL, {"num_classes": 5, "in_chans": 1}, {"num_classes": 5, "in_chans": 1}),
        ("test_resnet", {"model_kwargs": {"output_stride": 8}}, {"output_stride": 8}),
        ("resnetaa50", {"num_classes": None}, {"num_classes": 9}),
    ],
)
def test_a_training_checkpoint_says_its_network(
    tmp_path: Path, name: str, args: Mapping[str, Any], made: Mapping[str, Any]
) -> None:
    """Averaged weights and arguments are those of the training, also where tensors show no trace of them."""
    own = network(name, **made)
    model = read(trained(tmp_path, own, name, **args))
    assert model.architecture == f"timm/{name}"
    same = {"resnetaa50": "timm's resnet50 and timm's resnetblur50"}
    assert len(model.warnings) == (name in same)
    assert all(f"These tensors also fit {same[name]}" in doubt for doubt in model.warnings)
    check_equal(model, own)


@pytest.mark.parametrize("member", ["", "config.json", "model.safetensors", "pytorch_model.bin"])
def test_a_hub_folder_is_enough(tmp_path: Path, member: str) -> None:
    """Any file of a folder stands for it; its labels and preprocessing are the folder's."""
    own = network(num_classes=3)
    save(tmp_path, own)
    model = read(tmp_path / member)
    assert model.labels == ("cat", "dog", "mat")
    assert model.preprocessing is not None
    assert (model.preprocessing.resize, model.preprocessing.crop) == (200, (160, 160))
    assert model.preprocessing.interpolation == "bilinear"
    check_equal(model, own)
    image = Image.linear_gradient("L").resize((320, 400)).convert("RGB")
    config = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    transform = timm().data.create_transform(**timm().data.resolve_data_config(config))
    ours = photo_preprocessing.preprocess_photo(image, model.preprocessing)
    assert np.abs(transform(image).numpy() - ours).max() < 0.05


@pytest.mark.parametrize(
    "changes",
    [{"input_size": 5}, {"input_size": [3, 0, 0]}, {"mean": "x"}, {"std": [0, 0, 0]}, {"crop_pct": [1]}],
)
def test_preprocessing_of_another_type_is_none(tmp_path: Path, changes: Mapping[str, Any]) -> None:
    """The network is built; how its photos are prepared is the user's to say."""
    save(tmp_path, network(num_classes=3))
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_cfg"] |= changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = read(tmp_path, input_shapes=(TensorSpec("", (1, 3, 160, 160)),))
    assert model.preprocessing is None
    assert any("give --preprocess" in note for note in model.notes)


def save(path: Path, own: Any) -> None:
    from timm.models._hub import save_for_hf

    save_for_hf(own, str(path), safe_serialization="both")
    config = json.loads((path / "config.json").read_text())
    config["label_names"] = ["cat", "dog", "mat"]
    config["pretrained_cfg"] |= {"crop_pct": 0.8, "interpolation": "bilinear"}
    (path / "config.json").write_text(json.dumps(config))


def test_weights_alone_with_a_name(tmp_path: Path) -> None:
    """`--arch timm/NAME` builds the network for the weights' own classes and channels."""
    own = network(num_classes=6)
    torch.save(own.state_dict(), tmp_path / "weights.pt")
    check_equal(read(tmp_path / "weights.pt", arch=f"timm/{SMALL}"), own)
    with pytest.raises(UsageError, match="Did you mean timm/test_efficientnet"):
        read(tmp_path / "weights.pt", arch="timm/test_eficientnet")
    with pytest.raises(ArchitectureError, match="do not fit timm/test_resnet"):
        read(tmp_path / "weights.pt", arch="timm/test_resnet")
    with pytest.raises(UsageError, match="cannot be used"):
        read(tmp_path / "weights.pt", arch=f"timm/{SMALL}", arch_args={"checkpoint_path": "x"})


@pytest.mark.parametrize("name", ["hf-hub:someone/model", "local-dir:/etc", "os.system", "Absent"])
def test_names_that_would_load_something_are_refused(tmp_path: Path, name: str) -> None:
    """A folder names a network of timm, or nothing."""
    save(tmp_path, network(num_classes=3))
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"architecture": name, "model_args": {"checkpoint_path": "/etc/passwd", "pretrained": True}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="has no network named"):
        read(tmp_path)


def test_arguments_that_would_load_something_are_left_out(tmp_path: Path) -> None:
    """A folder's arguments choose numbers, not files."""
    own = network(num_classes=3)
    save(tmp_path, own)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_args"] |= {"checkpoint_path": "/etc/passwd", "pretrained": True, "cache_dir": "/tmp"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    check_equal(read(tmp_path), own)


def test_without_timm_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra's absence ends with exit code 10 and the pip install."""
    path = trained(tmp_path, network(), num_classes=None)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'export-mobile\[timm\]'") as caught:
        read(path)
    assert caught.value.exit_code == 10


def test_an_argument_that_cannot_be_used_is_a_printed_doubt(tmp_path: Path) -> None:
    """An activation given as an object leaves no trace in the tensors, so the user is warned."""
    own = network()
    path = trained(tmp_path, own, num_classes=None, model_kwargs={"act_layer": argparse.Namespace(x=1)})
    (warning,) = read(path).warnings
    assert "model_kwargs" in warning


def test_a_name_that_the_tensors_contradict_is_refused(tmp_path: Path) -> None:
    """The refusal quotes the file's name, and names the network that the tensors fit."""
    path = trained(tmp_path, network(SMALL), "test_resnet", num_classes=None)
    with pytest.raises(ArchitectureError, match="'test_resnet', and its tensors contradict it") as caught:
        read(path)
    assert "exactly those of timm/test_efficientnet" in caught.value.hint
    assert read(path, arch="timm/test_efficientnet").architecture == "timm/test_efficientnet"
