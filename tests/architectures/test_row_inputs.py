"""Shapes of inputs that the rows of the calibration data have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.architectures.network_inputs import resolve_network_inputs
from exporter.errors import CalibrationError, UsageError
from exporter.records import TensorSpec


class Tokens(nn.Module):
    """A network of token ids, a mask, and an optional scale."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 8)

    def forward(self, ids: Tensor, mask: Tensor, scale: Tensor | None = None) -> Tensor:
        rows: Tensor = self.table(ids) * mask[..., None]
        return rows if scale is None else rows * scale


class Counting(nn.Module):
    """A network whose buffer counts its calls."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.calls


def rows(path: Path, **arrays: Any) -> Path:
    """Write arrays to a `.npz` in a folder."""
    np.savez(path / "rows.npz", **arrays)
    return path / "rows.npz"


CONV = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(1), nn.Linear(72, 3))
IDS, MASK = np.ones((5, 6), np.int64), np.ones((5, 6), bool)


@pytest.mark.parametrize(
    ("network", "arrays", "expected"),
    [
        (nn.Linear(8, 3), {"input": np.ones((5, 8), np.float32)}, [("input", (1, 8), "float32")]),
        (nn.Linear(8, 3), {"arr_0": np.ones((5, 8))}, [("input", (1, 8), "float32")]),
        (CONV, {"input": np.ones((5, 1, 8, 8), np.float32)}, [("input", (1, 1, 8, 8), "float32")]),
        (CONV, {"input": np.ones((5, 1, 1, 8, 8), np.float32)}, [("input", (1, 1, 8, 8), "float32")]),
        (Tokens(), {"mask": MASK, "ids": IDS}, [("ids", (1, 6), "int64"), ("mask", (1, 6), "bool")]),
        (Tokens(), {"ids": IDS, "mask": MASK, "labels": np.ones(5)},
         [("ids", (1, 6), "int64"), ("mask", (1, 6), "bool")]),
        (Tokens(), {"ids": IDS, "mask": MASK, "scale": np.ones((5, 1, 1))},
         [("ids", (1, 6), "int64"), ("mask", (1, 6), "bool"), ("scale", (1, 1, 1), "float32")]),
    ],
)  # fmt: skip
def test_rows_have_the_shapes(
    tmp_path: Path, network: nn.Module, arrays: dict[str, Any], expected: list[tuple[str, Any, str]]
) -> None:
    """Rows with and without the batch axis give the inputs' shapes, types and order."""
    specs = resolve_network_inputs(network, None, None, (), rows(tmp_path, **arrays))
    assert specs == tuple(TensorSpec(*spec) for spec in expected)


@pytest.mark.parametrize(
    ("network", "arrays"),
    [
        (nn.Linear(8, 3), {"x": np.ones((5, 8), np.float32)}),
        (nn.Linear(8, 3), {"input": np.ones((5, 7), np.float32)}),
        (nn.Linear(8, 3), {"input": np.ones((0, 8), np.float32)}),
        (nn.Linear(8, 3), {"input": np.float32(1)}),
        (nn.Linear(8, 3), {"arr_0": np.ones((5, 8)), "arr_1": np.ones((5, 8))}),
        (Tokens(), {"ids": IDS}),
        (Tokens(), {"ids": IDS, "mask": np.array(["a"] * 5)}),
    ],
)
def test_rows_that_the_network_does_not_take_leave_the_shape_open(
    tmp_path: Path, network: nn.Module, arrays: dict[str, Any]
) -> None:
    """The user is asked for the shape where the arrays are not the network's inputs."""
    with pytest.raises(UsageError, match="does not say what shape"):
        resolve_network_inputs(network, None, None, (), rows(tmp_path, **arrays))


def test_what_was_asked_for_comes_before_the_rows(tmp_path: Path) -> None:
    """`--input-shape` decides where it is given, and the file is not read."""
    asked = (TensorSpec("", (1, 8)),)
    (spec,) = resolve_network_inputs(nn.Linear(8, 3), None, None, asked, tmp_path / "absent.npz")
    assert spec.shape == (1, 8)


def test_a_file_that_is_no_npz_is_named(tmp_path: Path) -> None:
    """A damaged file of rows is refused as such, and not as a missing shape."""
    (tmp_path / "rows.npz").write_bytes(b"rows")
    with pytest.raises(CalibrationError, match=r"rows\.npz cannot be used"):
        resolve_network_inputs(nn.Linear(8, 3), None, None, (), tmp_path / "rows.npz")


def test_trying_a_row_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    """Buffers that a call changes are the checkpoint's afterwards."""
    network = Counting()
    resolve_network_inputs(network, None, None, (), rows(tmp_path, x=np.ones((5, 8), np.float32)))
    assert network.calls.item() == 0
