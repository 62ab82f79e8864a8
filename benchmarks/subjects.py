"""The models of the quantisation benchmark: the sample MobileNetV2 with photos, and `nets` with digits."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.alternatives import Kind
from exporter.capture import torchvision_ops
from exporter.data import demo
from exporter.records import TensorSpec

if TYPE_CHECKING:
    import torch

MOBILENET = "mobilenet_v2"
NET_KINDS: dict[str, Kind] = {
    "squeeze_excite": "convolutions",
    "depthwise": "convolutions",
    "attention": "attention",
}
NAMES = (MOBILENET, *NET_KINDS)


@dataclass(frozen=True)
class Subject:
    """A trained model and the data to calibrate it with, as files."""

    name: str
    kind: Kind
    checkpoint: Path
    calibration: Path
    about: str
    """What the model is, and its float quality."""
    arch: str | None = None
    inputs: tuple[TensorSpec, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """Return the options for `export`."""
        return {"calibration": self.calibration, "arch": self.arch, "input_shapes": self.inputs}

    def load(self) -> torch.nn.Module:
        """Load the float module in eval mode, without the exporter."""
        import torch

        torchvision_ops.prepare_torchvision_ops()
        weights = torch.load(self.checkpoint, weights_only=True)
        if self.arch is None:
            from torchvision.models import mobilenet_v2

            module: torch.nn.Module = mobilenet_v2()
        else:
            from benchmarks import nets

            module = nets.NETS[self.name].make()
        module.load_state_dict(weights)
        return module.eval().requires_grad_(False)


def prepare(name: str, folder: Path) -> Subject:
    """Write the model's files into the folder, unless they are there.

    Raises:
        MissingDependencyError: The package that the sample checkpoint or photos come from is not installed.
        RuntimeError: A training did not succeed.
    """
    if name == MOBILENET:
        checkpoint, *photos = demo.write_demo(folder / "demo")
        about = f"torchvision's ImageNet weights, {len(photos)} photos and crops of them"
        return Subject(name, "convolutions", checkpoint, photos[0].parent, about)
    return _net(name, folder)


def _net(name: str, folder: Path) -> Subject:
    from benchmarks import nets

    net = nets.NETS[name]
    record = folder / f"{name}.json"
    source = _fingerprint()
    known = json.loads(record.read_text()) if record.exists() else {}
    if known.get("source") != source:
        known = {"source": source, "accuracy": nets.write(name, folder)}
        record.write_text(json.dumps(known))
    return Subject(
        name,
        NET_KINDS[name],
        folder / f"{name}.pt",
        folder / f"{name}.npz",
        f"reads {known['accuracy']:.1%} of held-out digits in float",
        arch=net.arch,
        inputs=(TensorSpec("", net.input_shape, net.dtype),),
    )


def _fingerprint() -> str:
    """Hash everything that the trained weights depend on."""
    import torch

    source = Path(__file__).with_name("nets.py").read_bytes()
    return hashlib.sha256(source + torch.__version__.encode()).hexdigest()
