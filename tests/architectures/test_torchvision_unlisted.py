"""Torchvision's networks of videos and of pairs of frames: the refusal names them, and what it says works."""

from __future__ import annotations

import re
from typing import Any

import pytest

from exporter.architectures import build_architecture, network_index, skeleton
from exporter.architectures.torchvision_unlisted import UNLISTED, unlisted_torchvision_advice
from exporter.errors import ArchitectureError
from exporter.records import TensorSpec
from tests.architectures.checkpoints import checkpoint, state


@pytest.mark.parametrize(
    ("name", "arguments", "shapes"),
    [
        ("raft_small", {}, ["image1=1x3x256x256", "image2=1x3x256x256"]),
        ("r3d_18", {"num_classes": 7}, ["1x3x16x112x112"]),
    ],
)
def test_the_refusal_says_what_works(name: str, arguments: dict[str, Any], shapes: list[str]) -> None:
    """A file of such a network is refused by its name, and the options of the refusal build the network."""
    file = checkpoint(state(name, **arguments))
    with pytest.raises(ArchitectureError, match=f"those of torchvision/{name}") as caught:
        build_architecture(file)
    hint = caught.value.hint.rstrip(".")
    assert re.findall(r"--input-shape (\S+)", hint) == shapes
    given = dict(re.findall(r"--arch-arg (\w+)=(\d+)", hint))
    assert given == {key: str(value) for key, value in arguments.items()}
    specs = tuple(
        TensorSpec(label, tuple(map(int, sizes.split("x"))))
        for label, _, sizes in (text.rpartition("=") for text in shapes)
    )
    model = build_architecture(file, arch=f"torchvision/{name}", arch_args=given, input_shapes=specs)
    assert [spec.shape for spec in model.inputs] == [spec.shape for spec in specs]


def test_every_network_of_frames_is_named() -> None:
    """No builder of torchvision's video and flow modules is left out, and the index lists none of them."""
    of_frames = {
        name
        for name, builder in skeleton.skeleton_builders().items()
        if builder.__module__.startswith(("torchvision.models.video.", "torchvision.models.optical_flow."))
    }
    assert of_frames == UNLISTED.keys()
    assert not any(network_index.network_index_entries_by_name(name) for name in of_frames)


@pytest.mark.parametrize(
    "changed",
    [
        {"fc.bias": ()},
        {"fc.weight": (7, 100)},
        {"stem.0.weight": (64, 1, 3, 7, 7)},
        {"more": (2, 2, 2, 2, 2)},
    ],
)
def test_other_networks_get_no_such_name(changed: dict[str, tuple[int, ...]]) -> None:
    """A network with other tensors than a new head is none of them."""
    own = {key: tuple(value.shape) for key, value in state("r3d_18").items()}
    assert unlisted_torchvision_advice([own])[0] == "torchvision/r3d_18"
    assert unlisted_torchvision_advice([own | changed]) == ("", "")
