"""torchvision's detectors that were pickled whole: exported with the settings of the file's own network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from exporter.architectures import build_architecture, skeleton
from exporter.architectures.detector_heads import DetectorHeads
from exporter.architectures.pickled_detectors import pickled_detector
from exporter.architectures.region_heads import RegionHeads
from exporter.checkpoints import read_checkpoint
from exporter.errors import SeveralPartsError
from exporter.records import Model, TensorSpec

SIDE = 64
BUILDERS: dict[str, dict[str, Any]] = {
    "ssdlite320_mobilenet_v3_large": {"score_thresh": 0.25, "image_mean": [0.1, 0.2, 0.3]},
    "fasterrcnn_mobilenet_v3_large_320_fpn": {"box_score_thresh": 0.25, "image_mean": [0.1, 0.2, 0.3]},
}
"""Builders, with settings that leave no trace in tensors."""


def network(name: str, **settings: Any) -> Any:
    skeleton.skeleton_builders()
    from torchvision import models

    torch.manual_seed(0)
    return models.get_model(name, weights=None, weights_backbone=None, num_classes=4, **settings)


def read(path: Path, whole: Any, part: str = "") -> Model:
    torch.save(whole, path)
    shape = () if whole.transform.fixed_size else (TensorSpec("", (1, 3, SIDE, SIDE)),)
    return build_architecture(read_checkpoint(path, trust=True), input_shapes=shape, part=part)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_whole_detector_is_exported_up_to_its_boxes(tmp_path: Path, name: str) -> None:
    """Its own mean and threshold are used and said, and nothing is inferred that could be doubted."""
    whole = network(name, **BUILDERS[name])
    model = read(tmp_path / "net.pt", whole)
    (spec,) = model.inputs
    x = torch.rand(spec.shape)
    whole.eval()
    heads: Any = RegionHeads if name.startswith("fasterrcnn") else DetectorHeads
    with torch.no_grad():
        expected, actual = heads(whole, tuple(spec.shape[2:])).eval()(x), model.module(x)
    assert expected.keys() == actual.keys() >= {"boxes", "scores"}
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value)
    assert model.preprocessing is not None
    assert model.preprocessing.mean == (0.1, 0.2, 0.3)
    assert any("score_threshold=0.25" in note for note in model.notes)
    assert model.warnings == ()


def test_a_whole_network_of_three_stages_has_parts(tmp_path: Path) -> None:
    """A Mask R-CNN is exported in its parts, pickled or not."""
    whole = network("maskrcnn_resnet50_fpn")
    with pytest.raises(SeveralPartsError, match="parts detector and masks"):
        read(tmp_path / "net.pt", whole)
    assert read(tmp_path / "net.pt", whole, "detector").architecture.endswith("MaskRCNN:detector")


class OtherHead(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return x


def test_a_detector_with_layers_of_its_own_is_not_taken_for_torchvisions() -> None:
    """What the wrapper computes in torchvision's way is not done for a network that has its own way."""
    whole = network("ssdlite320_mobilenet_v3_large")
    assert pickled_detector(whole, "x", None, "") is not None
    whole.head = OtherHead()
    assert pickled_detector(whole, "x", None, "") is None
    patched = network("ssdlite320_mobilenet_v3_large")
    patched.head.forward = lambda x: x
    assert pickled_detector(patched, "x", None, "") is None
    subclass = type("Detector", (type(patched),), {})
    other = network("ssdlite320_mobilenet_v3_large")
    other.__class__ = subclass
    assert pickled_detector(other, "x", None, "") is None
