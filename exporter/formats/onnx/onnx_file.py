"""Reads an .onnx file without running it, trusting nothing in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import LoweringError
from exporter.formats.onnx import onnx_external
from exporter.formats.onnx.onnx_contents import (
    Contents,
    ContentsNode,
    StoredContents,
    onnx_contents_dtype,
    stored_onnx_contents,
)
from exporter.records import TensorSpec

if TYPE_CHECKING:
    import onnx


def read_onnx_file(path: Path) -> Contents:
    """Parse and check the file.

    Raises:
        LoweringError: It is not a whole, valid, self-contained ONNX model.
    """
    import onnx

    try:
        file = onnx_external.onnx_model_file(path)
        model = onnx.load_model_from_string(file.read_bytes())
        if path.is_dir():
            onnx_external.check_external_weights(model, path)
        _refuse_onnx_external_data(model, within_folder=path.is_dir())
        onnx.checker.check_model(str(file) if path.is_dir() else model)
        return _onnx_file_contents(model)
    except (LoweringError, OSError):
        raise
    except Exception as error:  # protobuf, onnx and Python each have their own for bad input
        raise LoweringError(f"It is not a whole ONNX model: {_first_line_of_onnx_error(error)}") from error


def _first_line_of_onnx_error(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _refuse_onnx_external_data(model: onnx.ModelProto, within_folder: bool) -> None:
    # Such a reference may name any file of this machine. Those of the main graph were checked in a folder.
    from onnx.external_data_helper import uses_external_data

    for graph in onnx_file_graphs(model):
        sparse = [t for s in graph.sparse_initializer for t in (s.values, s.indices)]
        checked = within_folder and graph is model.graph
        stored = () if checked else graph.initializer
        for tensor in (*stored, *sparse, *_onnx_file_attribute_tensors(graph.node)):
            if uses_external_data(tensor):
                raise LoweringError(
                    f"Tensor '{tensor.name}' is stored in another file: an artifact must be self-contained."
                )


def onnx_file_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Yield the main graph and all graphs within it.

    Raises:
        LoweringError: The model holds functions or training graphs.
    """
    if model.functions or model.training_info:
        raise LoweringError("It holds functions or training graphs, which none of our artifacts does.")
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        for attribute in (a for node in graph.node for a in node.attribute):
            waiting.extend(attribute.graphs)
            if attribute.HasField("g"):
                waiting.append(attribute.g)


def _onnx_file_attribute_tensors(nodes: Iterator[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in (a for node in nodes for a in node.attribute):
        yield from attribute.tensors
        yield attribute.t


def _onnx_file_contents(model: onnx.ModelProto) -> Contents:
    all_graphs = list(onnx_file_graphs(model))
    tensors = {t.name: _stored_in_onnx_file(t) for graph in all_graphs for t in graph.initializer}
    return Contents(
        inputs=tuple(_onnx_file_spec(v) for v in model.graph.input if v.name not in tensors),
        outputs=tuple(_onnx_file_spec(v) for v in model.graph.output),
        nodes=tuple(
            ContentsNode(n.op_type, n.domain, tuple(n.input), tuple(n.output), _onnx_file_epsilon(n))
            for graph in all_graphs
            for n in graph.node
        ),
        tensors=tensors,
    )


def _stored_in_onnx_file(tensor: onnx.TensorProto) -> StoredContents:
    # The checker has compared the lengths of typed fields with the shape, but not that of raw data.
    place = onnx_external.external_place(tensor)
    raw_bytes = place[2] if place else len(tensor.raw_data) if tensor.HasField("raw_data") else None
    return stored_onnx_contents(
        tensor.name,
        onnx_contents_dtype(tensor.data_type),
        tuple(tensor.dims),
        raw_bytes,
        lambda: _number_in_onnx_file(tensor),
    )


def _number_in_onnx_file(tensor: onnx.TensorProto) -> float:
    from onnx import numpy_helper

    if onnx_external.external_place(tensor):
        raise LoweringError(f"Tensor '{tensor.name}' of one number is not in the graph.")
    return float(numpy_helper.to_array(tensor).reshape(-1)[0])


def _onnx_file_epsilon(node: onnx.NodeProto) -> float | None:
    return next((float(a.f) for a in node.attribute if a.name == "epsilon"), None)


def _onnx_file_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    """Read a value's spec; a size that differs from call to call is -1."""
    kind = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
    return TensorSpec(value.name, shape, onnx_contents_dtype(kind.elem_type))
