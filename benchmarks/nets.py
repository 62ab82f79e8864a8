"""Train networks that are known to lose much in int8, on scikit-learn's digits.

python -m benchmarks.nets [DIR [NAME …]]     trains them into DIR and prints their accuracy

Random weights prove nothing, and trained ones of most networks cannot be had from a package. So these are
small, made of the real building blocks, and trained until they read at least 95 % of digits they never saw:

squeeze_excite  torchvision's MobileNetV3 blocks: hard-swish has a long negative tail of few values, and
                squeeze-excite multiplies activations by factors near 0 and 1
depthwise       separable convolutions of 8 to 40 channels with ReLU6. Its batch norms start with scales
                spread over more than a decade, as in MobileNets trained for long: a range that fits
                one channel drowns another
attention       torchvision's VisionTransformer: LayerNorm, GELU and softmax, mostly tiny outputs

Everything is seeded. The last 500 of the 1797 digits are held out.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from exporter.capture import torchvision_ops

torchvision_ops.prepare_torchvision_ops()  # without it torchvision does not import beside a CPU-only torch

SIDE = 24
"""Pixels per side to which the 8 by 8 digits are enlarged for networks that take images."""
TRAINING = 1297
"""The number of digits to train and to calibrate on; the rest is held out."""
BATCH = 64
ACCURACY = 0.95
"""The least accuracy on held-out digits for which a network is worth quantising."""


def make_squeeze_excite() -> nn.Module:
    from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

    block = partial(InvertedResidualConfig, dilation=1, width_mult=1.0)
    return MobileNetV3(  # type: ignore[no-any-return]
        [
            # in, kernel, expanded, out, squeeze-excite, activation, stride
            block(16, 3, 16, 16, True, "RE", 1),
            block(16, 3, 72, 24, False, "RE", 2),
            block(24, 3, 88, 24, False, "RE", 1),
            block(24, 5, 96, 40, True, "HS", 2),
            block(40, 5, 120, 40, True, "HS", 1),
            block(40, 5, 144, 48, True, "HS", 1),
        ],
        last_channel=128,
        num_classes=10,
        dropout=0.0,
    )


class Depthwise(nn.Module):
    """A depthwise 3x3 and a pointwise convolution, each with batch norm and ReLU6."""

    def __init__(self) -> None:
        super().__init__()
        widths, strides = (8, 16, 16, 24, 24, 32, 40), (1, 2, 1, 2, 1, 1)
        layers = [nn.Conv2d(1, widths[0], 3, 2, 1, bias=False), _spread(widths[0]), nn.ReLU6()]
        for before, after, stride in zip(widths, widths[1:], strides, strict=False):
            layers += [
                nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False),
                _spread(before),
                nn.ReLU6(),
                nn.Conv2d(before, after, 1, bias=False),
                _spread(after),
                nn.ReLU6(),
            ]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image).mean((2, 3)))  # type: ignore[no-any-return]


def _spread(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.weight.copy_(torch.logspace(-0.6, 0.6, channels)[torch.randperm(channels)])
    return norm


def make_depthwise() -> nn.Module:
    return Depthwise()


def make_attention() -> nn.Module:
    from torchvision.models.vision_transformer import VisionTransformer

    net = VisionTransformer(
        image_size=SIDE,
        patch_size=4,
        num_layers=3,
        num_heads=4,
        hidden_dim=64,
        mlp_dim=256,
        num_classes=10,
    )
    nn.init.normal_(net.heads.head.weight, std=0.02)  # torchvision leaves it at zero
    return net  # type: ignore[no-any-return]


def images(channels: int) -> Callable[[Tensor], Tensor]:
    """Digits, [N, 1, 8, 8] from 0 to 1, as an image network takes them."""

    def arrange(digits: Tensor) -> Tensor:
        large = functional.interpolate(digits, (SIDE, SIDE), mode="bilinear")
        return ((large - 0.3) / 0.35).repeat(1, channels, 1, 1)

    return arrange


@dataclass(frozen=True)
class Net:
    """How a network is built, fed and trained."""

    make: Callable[[], nn.Module]
    arrange: Callable[[Tensor], Tensor]
    input_shape: tuple[int, ...]
    steps: int
    rate: float
    dtype: str = "float32"

    @property
    def arch(self) -> str:
        """Return the value for `--arch`."""
        return f"benchmarks.nets:{self.make.__name__}"


NETS: dict[str, Net] = {
    "squeeze_excite": Net(make_squeeze_excite, images(3), (1, 3, SIDE, SIDE), 600, 5e-3),
    "depthwise": Net(make_depthwise, images(1), (1, 1, SIDE, SIDE), 1200, 1e-2),
    "attention": Net(make_attention, images(3), (1, 3, SIDE, SIDE), 600, 2e-3),
}


class Digits(NamedTuple):
    images: Tensor
    """[N, 1, 8, 8], 0 to 1."""
    labels: Tensor


@cache
def digits() -> Digits:
    from sklearn.datasets import load_digits

    dataset: Any = load_digits()
    pixels = torch.from_numpy((dataset.data / 16).astype(np.float32)).reshape(-1, 1, 8, 8)
    return Digits(pixels, torch.from_numpy(dataset.target))


def _augmented(pixels: Tensor) -> Tensor:
    """Rotate by up to 12 degrees, scale by up to 10 %, shift by up to a pixel."""
    count = len(pixels)
    angle = (torch.rand(count) - 0.5) * 0.42
    size = 1 + (torch.rand(count) - 0.5) * 0.2
    moved = (torch.rand(count, 2) - 0.5) * 0.5
    rows = [size * angle.cos(), -size * angle.sin(), moved[:, 0], size * angle.sin(), size * angle.cos()]
    affine = torch.stack([*rows, moved[:, 1]], dim=1).reshape(count, 2, 3)
    grid = functional.affine_grid(affine, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, align_corners=False)


def train(net: Net) -> tuple[nn.Module, float]:
    """Train from the seed; return the network and its accuracy on held-out digits."""
    data = digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = net.make().train()
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.momentum = 0.1  # MobileNetV3's 0.01 is made for a thousand times as many steps
        optimizer = torch.optim.AdamW(module.parameters(), net.rate, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, net.rate, total_steps=net.steps)
        for _ in range(net.steps):
            batch = torch.randint(0, TRAINING, (BATCH,))
            logits = module(net.arrange(_augmented(data.images[batch])))
            loss = functional.cross_entropy(logits, data.labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    module.eval()
    return module, accuracy(module, net)


def accuracy(module: nn.Module, net: Net) -> float:
    """Return the share of held-out digits that are read correctly."""
    data = digits()
    with torch.no_grad():
        classes = module(net.arrange(data.images[TRAINING:])).argmax(1)
    return float((classes == data.labels[TRAINING:]).double().mean())


def arrays(net: Net, each: int) -> dict[str, np.ndarray[Any, Any]]:
    """Write an `.npz` for `export`: `each` training digits, then as many held-out ones."""
    pixels = digits().images
    chosen = torch.cat([pixels[:each], pixels[TRAINING : TRAINING + each]])
    return {"arr_0": net.arrange(chosen).numpy()}


def write(name: str, folder: Path, each: int = 64) -> float:
    """Write NAME.pt and NAME.npz; return the accuracy.

    Raises:
        RuntimeError: The training did not succeed.
    """
    net = NETS[name]
    folder.mkdir(parents=True, exist_ok=True)
    module, reached = train(net)
    if reached < ACCURACY:
        raise RuntimeError(f"{name} reads {reached:.1%} of held-out digits, expected {ACCURACY:.0%}")
    np.savez(folder / f"{name}.npz", **arrays(net, each))  # type: ignore[arg-type]
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as aside:
        torch.save(module.state_dict(), aside)
    Path(aside.name).replace(folder / f"{name}.pt")
    return reached


def main() -> None:
    import time

    torch.set_num_threads(1)
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/nets")
    for name in sys.argv[2:] or NETS:
        began = time.monotonic()
        reached = write(name, folder)
        print(f"{name:16} {reached:.1%} of held-out digits, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
