"""Tests of warnings about what tensors cannot prove of an inferred network."""

from __future__ import annotations

import re
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter import checkpoints
from exporter.architectures import build_architecture, network_index
from exporter.errors import ArchitectureError
from exporter.records import Model
from tests.architectures.checkpoints import checkpoint, state


def stating(*stated: tuple[str, str], name: str = "resnet50", **options: Any) -> Model:
    return build_architecture(replace(checkpoint(state(name)), stated_networks=stated), **options)


def test_an_inferred_network_is_doubted() -> None:
    """The warning names other published networks, variants, and how to check."""
    (warning,) = stating().warnings
    for part in ("timm's resnetaa50 and timm's resnetblur50", "stride", "pooling", "activation", "--arch"):
        assert part in warning


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "vit_b_32"])
def test_every_family_has_its_doubts(name: str) -> None:
    """Every inferred network has a warning about what leaves no trace."""
    (warning,) = stating(name=name).warnings
    assert "leaves a trace" in warning


def test_named_networks_are_not_doubted() -> None:
    """A network that the user names has no warning."""
    assert stating(arch="torchvision/resnet50").warnings == ()


def test_published_files_are_not_doubted() -> None:
    """Torchvision's own file, known by its hash, has no warning."""
    (entry,) = network_index.network_index_entries_by_name("resnet50")
    published = replace(checkpoint(state("resnet50")), sha256=entry.recipes[0].sha256_prefix.ljust(64, "0"))
    assert build_architecture(published).warnings == ()


@pytest.mark.parametrize(
    "text", ["resnet50", "ResNet50", "torchvision.models.resnet50", "timm/resnet50.a1_in1k"]
)
def test_the_files_own_name_wins_with_a_doubt(text: str) -> None:
    """A file that names the network is believed; others with the same tensors are named all the same."""
    model = stating(("args.arch", text))
    (warning,) = model.warnings
    assert model.architecture == "torchvision/resnet50"
    assert "because the file says so" in warning
    assert "timm's resnetaa50 and timm's resnetblur50, which would compute something else" in warning
    assert "--expect PHOTO=CLASS" in warning


def test_a_name_that_alone_fits_is_not_doubted() -> None:
    """A file that names the only known network with its tensors has no warning."""
    assert stating(("arch", "densenet121"), name="densenet121").warnings == ()


@pytest.mark.parametrize(
    ("stated", "known"),
    [
        (("arch", "resnet18"), "resnet18"),
        (("args.model", "timm/vit_tiny_patch16_224.augreg_in21k"), "timm/vit_tiny_patch16_224.augreg_in21k"),
        (("hyper_parameters.model_name", "EfficientNet-B0"), "EfficientNet-B0"),
    ],
)
def test_a_known_name_with_other_tensors_is_contradicted(stated: tuple[str, str], known: str) -> None:
    """The warning says that the tensors contradict the file's name."""
    (warning,) = stating(stated).warnings
    assert f"its tensors contradict that: the network {known} has others" in warning


@pytest.mark.parametrize(
    "stated", [("backbone", "resnet18"), ("hyper_parameters.encoder_name", "resnet34"), ("arch", "my_net")]
)
def test_names_of_parts_and_unknown_names_contradict_nothing(stated: tuple[str, str]) -> None:
    """A backbone is a part of a network, and an unknown name says nothing about tensors."""
    (warning,) = stating(stated).warnings
    assert "The file calls its network" in warning
    assert "contradict" not in warning


def test_an_unknown_network_is_refused_with_the_files_name() -> None:
    """The refusal of unknown tensors quotes what the file calls its network, and contradicts it."""
    odd = replace(checkpoint({"a.weight": torch.ones(2)}), stated_networks=(("args.arch", "resnet18"),))
    with pytest.raises(
        ArchitectureError, match=r"'resnet18' \(args\.arch\), and its tensors contradict that"
    ):
        build_architecture(odd)


@pytest.mark.parametrize("text", ["resnetaa50", "timm/resnetaa50.a1h_in1k", "resnetblur50"])
def test_the_files_own_name_contradicts(text: str) -> None:
    """A file that names another network with the same tensors is refused."""
    with pytest.raises(
        ArchitectureError, match=rf"'{text}' \(args\.arch\).*computes something else"
    ) as caught:
        stating(("args.arch", text))
    assert "--arch torchvision/resnet50" in caught.value.hint
    assert stating(("args.arch", text), arch="torchvision/resnet50").architecture == "torchvision/resnet50"


def test_another_name_is_part_of_the_warning() -> None:
    """An unknown name is quoted in the warning."""
    (warning,) = stating(("args.arch", "my_dilated_net")).warnings
    assert "The file calls its network 'my_dilated_net' (args.arch)" in warning


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"arch": "resnet50"}, (("arch", "resnet50"),)),
        ({"args": Namespace(model="resnetaa50", lr=0.1)}, (("args.model", "resnetaa50"),)),
        ({"args": {"arch": "x1", "epochs": 3}}, (("args.arch", "x1"),)),
        (
            {"hyper_parameters": {"backbone": "resnet18", "net": 3}},
            (("hyper_parameters.backbone", "resnet18"),),
        ),
        ({"args": {"arch": "two\nlines"}, "config": ["arch"]}, ()),
    ],
)
def test_what_a_file_calls_its_network(
    tmp_path: Path, settings: dict[str, object], expected: tuple[tuple[str, str], ...]
) -> None:
    """Trainers' settings name the network at the top, in a dictionary or in a Namespace."""
    torch.save({"state_dict": {"a.weight": torch.ones(2)}, **settings}, tmp_path / "model.pt")
    assert checkpoints.read_checkpoint(tmp_path / "model.pt").stated_networks == expected


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("resnet18", {"timm's resnetblur18"}),
        ("resnet50", {"timm's resnetaa50", "timm's resnetblur50"}),
        ("densenet121", set()),
        ("resnext50_32x4d", set()),
    ],
)
def test_networks_with_a_torchvision_networks_tensors_are_indexed(name: str, others: set[str]) -> None:
    """The doubt names timm's networks that compute something else, and not torchvision's own in timm."""
    (warning,) = stating(name=name).warnings
    named = set(re.findall(r"timm's \w+", warning))
    assert named == others


@pytest.mark.parametrize("extra", ["total_ops", "layer1.0.total_params", "n_averaged"])
def test_counters_do_not_hide_a_known_network(extra: str) -> None:
    """Leftovers of FLOP counters and averaging are ignored."""
    model = build_architecture(checkpoint({**state("resnet18"), extra: torch.zeros(1)}))
    assert model.architecture == "torchvision/resnet18"
    assert any("left out" in note for note in model.notes)


def test_a_pruned_known_network_is_recognised() -> None:
    """Weights and masks of a pruned network are those of the network."""
    tensors = state("resnet18")
    weight = tensors.pop("conv1.weight")
    mask = (torch.rand(weight.shape) > 0.5).float()
    model = build_architecture(
        checkpoint({**tensors, "conv1.weight_orig": weight, "conv1.weight_mask": mask})
    )
    assert torch.equal(model.module.state_dict()["conv1.weight"], weight * mask)
    assert any("weight and mask are multiplied" in note for note in model.notes)
