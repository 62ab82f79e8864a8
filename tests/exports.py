"""Make whole exports of the small networks, once per test process."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exporter import Report, TensorSpec, export
from tests import nets

FACTORIES = {
    "cnn": "TinyCnn",
    "two_in_two_out": "TwoInTwoOut",
    "attention": "TinyAttention",
    "loud": "LoudNorm",
    "loud_channels": "LoudChannels",
    "numbered": "numbered",
}


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="export-mobile-tests-"))


@functools.cache
def checkpoint(net: str) -> Path:
    """Write the trained weights as a training script would."""
    path = _folder() / f"{net}.ckpt"
    torch.save({"state_dict": nets.trained(net).state_dict(), "epoch": 3}, path)
    return path


@functools.cache
def arrays(net: str) -> Path:
    """Write 64 unseen digits to an .npz: half calibrates, half verifies."""
    path = _folder() / f"{net}.npz"
    stacked = [np.concatenate(column) for column in zip(*nets.samples(net, 1400, 64), strict=True)]
    np.savez(path, **dict(zip((nets.NETS | nets.MORE)[net][2], stacked, strict=True)))  # type: ignore[arg-type]
    return path


def options(net: str) -> dict[str, Any]:
    """Return the options with which a user would export the network."""
    specs = (
        TensorSpec(n, a.shape)
        for n, a in zip((nets.NETS | nets.MORE)[net][2], nets.samples(net, 0, 1)[0], strict=True)
    )
    return {
        "arch": f"tests.nets:{FACTORIES[net]}",
        "input_shapes": tuple(specs),
        "calibration": arrays(net),
        "samples": 32,
    }


@functools.cache
def exported(net: str) -> tuple[Path, Report]:
    """Return OUT and the report of a full export for the Snapdragon 865. Copy OUT before changing it."""
    out = _folder() / f"{net}-out"
    return out, export(checkpoint(net), target="snapdragon865", out=out, cache=False, **options(net))
