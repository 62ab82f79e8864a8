"""The time that an artifact may take grows with what there is to compute and to compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exporter.files import EVIDENCE
from exporter.formats import VARIANTS
from exporter.pipeline import verify_stage
from exporter.pipeline.stage_results import ExpectedResult
from exporter.records import Limits, TensorSpec
from exporter.sandbox import confinement_seconds

CALLS = 8
LONGEST = 2000


def bound(folder: Path, side: int, channels: int, flops: int) -> float:
    """Return the bound for eight photos and as many maps, of a model of so many FLOPs a call."""
    (folder / "net.onnx").write_bytes(bytes(1000))
    shapes = (1, 3, side, side), (1, channels, side, side)
    np.savez(folder / EVIDENCE, *(np.zeros((CALLS, *shape), np.float32) for shape in shapes))
    inputs, outputs = (TensorSpec("x", shapes[0]),), (TensorSpec("y", shapes[1]),)
    expected = ExpectedResult(inputs, outputs, 0, Limits(), flops=flops)
    job = verify_stage._verify_stage_job(folder, VARIANTS["onnx-fp32"], "net.onnx", expected, None)
    assert job.seconds is not None
    return job.seconds


def test_a_small_network_has_the_time_of_its_file(tmp_path: Path) -> None:
    """A network that computes little is stopped as soon as before."""
    assert bound(tmp_path, 32, 1, 1_000_000) == pytest.approx(confinement_seconds(1000), abs=1)


def test_a_detector_has_time_for_all_its_inputs(tmp_path: Path) -> None:
    """128 GFLOPs a call take 100 s for eight photos at 10 GFLOPs a second, more than a file's 50 s."""
    assert bound(tmp_path, 64, 1, 128_000_000_000) > 100 + confinement_seconds(1000)


def test_large_outputs_have_time_to_be_compared(tmp_path: Path) -> None:
    """A map of scores per class and pixel is large, however small the network is."""
    assert bound(tmp_path, 256, 21, 0) > confinement_seconds(1000) + 8


def test_a_manifest_cannot_ask_for_endless_time(tmp_path: Path) -> None:
    """The FLOPs of `verify` are a foreign manifest's."""
    assert bound(tmp_path, 32, 1, 1 << 62) < LONGEST
