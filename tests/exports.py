"""Make whole exports of the small networks, once for all processes of a test run."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from exporter import Report, TensorSpec, export
from exporter.cli import main
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
    """Return the folder of this run; pytest-xdist gives all its workers one name for it."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if not run:
        return Path(tempfile.mkdtemp(prefix="export-mobile-tests-"))
    folder = Path(tempfile.gettempdir()) / f"export-mobile-tests-{run}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Let one process at a time make what has this name; the others find it made."""
    with (_folder() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@functools.cache
def checkpoint(net: str) -> Path:
    """Write the trained weights as a training script would."""
    path = _folder() / f"{net}.ckpt"
    with _alone(path.name):
        if not path.exists():
            torch.save({"state_dict": nets.trained(net).state_dict(), "epoch": 3}, path)
    return path


@functools.cache
def arrays(net: str) -> Path:
    """Write 64 unseen digits to an .npz: half calibrates, half verifies."""
    path = _folder() / f"{net}.npz"
    stacked = [np.concatenate(column) for column in zip(*nets.samples(net, 1400, 64), strict=True)]
    with _alone(path.name):
        if not path.exists():
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
    out, record = _folder() / f"{net}-out", _folder() / f"{net}-report.pickle"
    with _alone(out.name):
        if not record.exists():
            # Not the user's cache: where Arm and Vulkan are prepared, an export runs them, too.
            with mock.patch.dict(os.environ, {"EXPORT_MOBILE_CACHE": str(_folder() / "cache")}):
                report = export(checkpoint(net), target="snapdragon865", out=out, cache=False, **options(net))
            record.write_bytes(pickle.dumps(report))
    return out, pickle.loads(record.read_bytes())


def row_by_command(target: str, variant: str, out: Path) -> dict[str, Any]:
    """Export the small network by the command, and return the manifest's row of its one artifact."""
    with pytest.raises(SystemExit, match=r"^0$"):
        main([
            str(checkpoint("cnn")), "--arch", "tests.nets:TinyCnn", "--input-shape", "1x1x8x8",
            "--calibration", str(arrays("cnn")), "--target", target, "--formats", variant, "-o", str(out),
        ])  # fmt: skip
    (row,) = json.loads((out / "manifest.json").read_text())["artifacts"]
    assert isinstance(row, dict)
    return row
