from __future__ import annotations

import gzip
import json
from importlib import resources
from pathlib import Path

import pytest
import torch

from exporter.architectures import network_index, skeleton
from tests.architectures import survey


@pytest.mark.slow
def test_packaged_index_is_the_installed_torchvisions(tmp_path: Path) -> None:
    """Building the index again gives what is packaged: run scripts/build-architecture-index if not."""
    survey.write(tmp_path / network_index.FILE)
    packaged = resources.files("exporter.architectures").joinpath(network_index.FILE).read_bytes()
    rebuilt = (tmp_path / network_index.FILE).read_bytes()
    assert json.loads(gzip.decompress(rebuilt)) == json.loads(gzip.decompress(packaged))


def test_every_builder_is_indexed() -> None:
    """All of torchvision's classifiers, segmenters and quantisable networks are in the index."""
    names = {entry.name for entry in network_index.network_index_entries()}
    twins = {entry.quantizable for entry in network_index.network_index_entries() if entry.quantizable}
    assert names == set(survey.names()) | set(survey.names("segmentation"))
    assert twins == set(survey.names("quantization"))


@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "mobilenet_v3_large", "resnet18", "shufflenet_v2_x0_5", "googlenet"]
)
def test_quantizable_builders_compute_the_same(name: str) -> None:
    """A float network and its quantisable twin give equal outputs for equal weights."""
    options = {"aux_logits": False} if name == "googlenet" else {}
    builders = skeleton.skeleton_builders()
    torch.manual_seed(0)
    net = builders[name](**skeleton.untrained_skeleton_arguments(name, builders[name]), **options).eval()
    twin_name = skeleton.QUANTIZABLE_PREFIX + name
    twin = builders[twin_name](
        **skeleton.untrained_skeleton_arguments(twin_name, builders[twin_name]), **options
    ).eval()
    twin.load_state_dict(net.state_dict())
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected, actual = net(image), twin(image)
    assert (expected - actual).abs().max() <= 1e-5 * expected.abs().max()


def test_regnets_are_constructed_without_weights() -> None:
    """The 2.6 GB of RegNetY-128GF are not allocated, though it refuses torch's own meta device."""
    module = skeleton.construct_skeleton("regnet_y_128gf", {})
    assert all(parameter.is_meta for parameter in module.parameters())
    assert sum(parameter.numel() for parameter in module.parameters()) == 644_812_894
