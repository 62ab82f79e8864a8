"""ONNX models with more weights than one file holds: a folder of the graph and of its weights.

`model.onnx` names, for each large tensor, a place in `model.onnx.data` beside it. An app opens
`model.onnx` with both in one folder. Such a reference could name any file of the reader's machine, so
another name is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import LoweringError
from exporter.records import ONNX_GRAPH, ONNX_WEIGHTS

if TYPE_CHECKING:
    import onnx

MODEL, WEIGHTS = ONNX_GRAPH, ONNX_WEIGHTS
LARGE_TENSOR_BYTES = 1024
"""Tensors from this size on are stored in the second file; smaller ones stay in the graph."""


def onnx_model_file(path: Path) -> Path:
    """Return the file with the graph: the artifact itself, or one in its folder."""
    return path / MODEL if path.is_dir() else path


def check_external_weights(model: onnx.ModelProto, folder: Path) -> None:
    """Refuse a folder with other files, and a graph that refers to anything but the weights beside it.

    Raises:
        LoweringError: Why.
    """
    files = {path.name: path for path in folder.iterdir()}
    if set(files) != {MODEL, WEIGHTS} or any(p.is_symlink() or not p.is_file() for p in files.values()):
        raise LoweringError(
            f"{folder.name} holds {', '.join(sorted(files))[:200]}, expected {MODEL} and {WEIGHTS}."
        )
    size_bytes = files[WEIGHTS].stat().st_size
    for tensor in model.graph.initializer:
        if (place := external_place(tensor)) and (place[0] != WEIGHTS or sum(place[1:]) > size_bytes):
            raise LoweringError(f"Tensor '{tensor.name}' is not within {WEIGHTS}.")


def external_place(tensor: onnx.TensorProto) -> tuple[str, int, int] | None:
    """Return the file, offset and length of a tensor's bytes; None where the graph holds them.

    Raises:
        ValueError: A number is none.
    """
    from onnx.external_data_helper import uses_external_data

    if not uses_external_data(tensor):
        return None
    listed = {entry.key: entry.value for entry in tensor.external_data}
    offset, length = int(listed.get("offset", "0")), int(listed.get("length", "-1"))
    if offset < 0 or length < 0:
        raise ValueError(f"tensor '{tensor.name}' has no place in the file")
    return listed.get("location", ""), offset, length
