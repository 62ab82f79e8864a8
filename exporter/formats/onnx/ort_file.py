"""Reads an .ort file (ONNX Runtime's own format, a flatbuffer) without running it, trusting nothing in it."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from exporter.errors import LoweringError
from exporter.formats.onnx.onnx_contents import (
    Contents,
    ContentsNode,
    StoredContents,
    onnx_contents_dtype,
    stored_onnx_contents,
)
from exporter.records import Array, TensorSpec

MAX_DEPTH = 16
"""The deepest nesting of subgraphs."""


def read_ort_file(path: Path) -> Contents:
    """Parse the file.

    Raises:
        LoweringError: It is not a whole, self-contained ORT-format model.
    """
    try:
        data = path.read_bytes()
        return _OrtFileReader(data).contents()
    except (LoweringError, OSError):
        raise
    except Exception as error:  # the flatbuffers reader checks nothing: struct, index, type, unicode errors
        raise LoweringError(f"It is not a whole ORT-format model: {error}") from error


def ort_file_operators(data: bytes) -> tuple[set[tuple[str, str, int]], int]:
    """Return each operator's name, domain and version, and the version of the file's layout.

    Raises:
        LoweringError: It is not a whole, self-contained ORT-format model.
    """
    try:
        return _OrtFileReader(data).operators(), int(ort_file_session_table(data).OrtVersion())
    except LoweringError:
        raise
    except Exception as error:  # as in `read_ort_file`
        raise LoweringError(f"It is not a whole ORT-format model: {error}") from error


class _OrtFileReader:
    """Reads one buffer; refuses more list items than it can hold, so that hostile lengths end quickly."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._items_left = len(data) // 4

    def contents(self) -> Contents:
        graph = ort_file_session_table(self._data).Model().Graph()
        graphs = list(self._graphs(graph, MAX_DEPTH))
        types = {v.Name().decode(): v.Type() for v in self._items(graph, "NodeArgs")}
        return Contents(
            inputs=tuple(_ort_file_spec(n.decode(), types[n.decode()]) for n in self._items(graph, "Inputs")),
            outputs=tuple(
                _ort_file_spec(n.decode(), types[n.decode()]) for n in self._items(graph, "Outputs")
            ),
            nodes=tuple(self._node(n) for g in graphs for n in self._items(g, "Nodes")),
            tensors={
                t.Name().decode(): self._tensor(t) for g in graphs for t in self._items(g, "Initializers")
            },
        )

    def operators(self) -> set[tuple[str, str, int]]:
        """Return the name, the domain and the version of the operators of all graphs."""
        graphs = self._graphs(ort_file_session_table(self._data).Model().Graph(), MAX_DEPTH)
        return {
            (n.OpType().decode(), (n.Domain() or b"").decode(), int(n.SinceVersion()))
            for graph in graphs
            for n in self._items(graph, "Nodes")
        }

    def _items(self, owner: Any, field: str) -> Iterator[Any]:
        length = getattr(owner, f"{field}Length")()
        self._items_left -= length
        if self._items_left < 0:
            raise LoweringError("It is not a whole ORT-format model: its lists are longer than the file.")
        return map(getattr(owner, field), range(length))

    def _graphs(self, graph: Any, depth: int) -> Iterator[Any]:
        if depth == 0:
            raise LoweringError(f"Its graphs are nested more than {MAX_DEPTH} deep.")
        yield graph
        for node in self._items(graph, "Nodes"):
            for attribute in self._items(node, "Attributes"):
                inner = [attribute.G(), *self._items(attribute, "Graphs")]
                for subgraph in (g for g in inner if g is not None):
                    yield from self._graphs(subgraph, depth - 1)

    def _node(self, node: Any) -> ContentsNode:
        return ContentsNode(
            operator=node.OpType().decode(),
            domain=(node.Domain() or b"").decode(),
            inputs=tuple(n.decode() for n in self._items(node, "Inputs")),
            outputs=tuple(n.decode() for n in self._items(node, "Outputs")),
            epsilon=next(
                (float(a.F()) for a in self._items(node, "Attributes") if a.Name() == b"epsilon"), None
            ),
        )

    def _tensor(self, tensor: Any) -> StoredContents:
        name = tensor.Name().decode()
        if tensor.RawDataIsNone():
            raise LoweringError(
                f"The data of tensor '{name}' is not in the file: an artifact must be self-contained."
            )
        # The file states the length; the view over the bytes fails where they are missing.
        raw_bytes = len(tensor.RawDataAsNumpy())
        shape = tuple(int(d) for d in self._items(tensor, "Dims"))
        dtype = onnx_contents_dtype(tensor.DataType())
        return stored_onnx_contents(
            name, dtype, shape, raw_bytes, lambda: _number_in_ort_file(tensor.RawDataAsNumpy(), dtype)
        )


def ort_file_session_table(data: bytes | mmap.mmap) -> Any:
    """Return the flatbuffer's root, as ONNX Runtime's own generated (and untyped) reader class.

    Raises:
        LoweringError: The file's mark or its last bytes are missing.
    """
    # Importing the package puts ONNX Runtime's generated flatbuffers classes on the path.
    import onnxruntime.tools.ort_format_model  # noqa: F401
    from ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

    if not InferenceSession.InferenceSessionBufferHasIdentifier(data, 0):
        raise LoweringError("It is not an ORT-format model: the file's mark is missing.")
    if len(data) % 4:  # flatbuffers are padded to their alignment: a cut in the padding would go unseen
        raise LoweringError(f"It is not a whole ORT-format model: {len(data)} bytes is no multiple of 4.")
    return InferenceSession.GetRootAs(data, 0)


def _number_in_ort_file(data: Array, dtype: str) -> float:
    return float(np.frombuffer(data.tobytes(), dtype)[0])


def _ort_file_spec(name: str, info: Any) -> TensorSpec:
    """Read a value's spec; a size that differs from call to call is -1."""
    from ort_flatbuffers_py.fbs.TensorTypeAndShape import TensorTypeAndShape

    kind = TensorTypeAndShape()
    kind.Init(info.Value().Bytes, info.Value().Pos)
    shape = kind.Shape()
    sizes = [shape.Dim(i).Value() for i in range(min(shape.DimLength(), 16))]
    dimensions = tuple(-1 if size.DimParam() else size.DimValue() for size in sizes)
    return TensorSpec(name, dimensions, onnx_contents_dtype(kind.ElemType()))
