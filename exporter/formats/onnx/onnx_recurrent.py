"""Stores the int8 weights of LSTM and GRU in the order in which ONNX reads them.

PyTorch orders a layer's gates unlike ONNX, and its translation slices and joins the dequantised weights anew
at every call. Rows keep their integers and scales wherever they go, so they are put in order here, once:

    int8 [directions * gates, inputs] -> DequantizeLinear by row -> Reshape [directions, gates, inputs]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from exporter.records import Array

if TYPE_CHECKING:
    import onnx

RECURRENT = ("LSTM", "GRU")
WEIGHTS = (1, 2)
"""The inputs of both that are weights: [directions, gates, inputs]."""


class _Rows(NamedTuple):
    """Rows of weights, and the scale of each."""

    steps: Array
    scales: Array


def order_onnx_recurrent_rows(proto: onnx.ModelProto, constants: Mapping[str, Array]) -> None:
    """Put the rows of dequantised recurrent weights in order, in place; others are left alone.

    Args:
        proto: The model.
        constants: The values of its tensors.
    """
    makers = {name: node for node in proto.graph.node for name in node.output}
    for node in list(proto.graph.node):
        for place in WEIGHTS if node.op_type in RECURRENT else ():
            rows = _onnx_recurrent_rows(node.input[place], makers, constants)
            if rows is not None:
                directions = _onnx_recurrent_directions(node)
                node.input[place] = _stored_onnx_recurrent_rows(
                    proto, f"{node.output[0]}:{place}", rows, directions
                )


def _onnx_recurrent_directions(node: onnx.NodeProto) -> int:
    attributes = {attribute.name: attribute.s for attribute in node.attribute}
    return 2 if attributes.get("direction") == b"bidirectional" else 1


def _onnx_recurrent_rows(
    name: str, makers: Mapping[str, onnx.NodeProto], constants: Mapping[str, Array]
) -> _Rows | None:
    """Follow the rows back to their integers; None where anything but slices and joins is on the way."""
    node = makers.get(name)
    if node is None or node.op_type == "DequantizeLinear":
        return None if node is None else _dequantized_onnx_recurrent_rows(node, constants)
    parts = [_onnx_recurrent_rows(source, makers, constants) for source in _onnx_recurrent_sources(node)]
    rows = [part for part in parts if part is not None]
    if not rows or len(rows) < len(parts):
        return None
    if node.op_type == "Slice":
        return _sliced_onnx_recurrent_rows(rows[0], [constants.get(source) for source in node.input[1:]])
    return _Rows(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def _dequantized_onnx_recurrent_rows(node: onnx.NodeProto, constants: Mapping[str, Array]) -> _Rows | None:
    steps, scales = (constants.get(source) for source in node.input[:2])
    if steps is None or scales is None or steps.ndim != 2 or scales.shape != steps.shape[:1]:
        return None
    return _Rows(steps, scales)


def _sliced_onnx_recurrent_rows(rows: _Rows, bounds: Sequence[Array | None]) -> _Rows | None:
    """Return the rows of a Slice, whose bounds are its first place, its end and its axis."""
    known = [int(bound[0]) for bound in bounds if bound is not None]
    if len(known) != 3 or len(bounds) != 3 or known[2] != 0:
        return None
    return _Rows(rows.steps[known[0] : known[1]], rows.scales[known[0] : known[1]])


def _onnx_recurrent_sources(node: onnx.NodeProto) -> list[str]:
    """Return the inputs whose rows an operator passes on; none for operators that may change them."""
    if node.op_type in ("Slice", "Unsqueeze"):
        return [node.input[0]]
    return list(node.input) if node.op_type == "Concat" else []


def _stored_onnx_recurrent_rows(proto: onnx.ModelProto, stem: str, rows: _Rows, directions: int) -> str:
    import onnx

    shape = np.array((directions, -1, rows.steps.shape[1]), np.int64)
    # Names hold colons, which no name of PyTorch's does.
    values = {"steps": rows.steps, "scales": rows.scales, "zeros": np.zeros(len(rows.scales), np.int8)}
    for name, value in {**values, "shape": shape}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(value, f"{stem}:{name}"))
    proto.graph.node.extend(
        [
            onnx.helper.make_node(
                "DequantizeLinear", [f"{stem}:{name}" for name in values], [f"{stem}:rows"], axis=0
            ),
            onnx.helper.make_node("Reshape", [f"{stem}:rows", f"{stem}:shape"], [f"{stem}:weights"]),
        ]
    )
    return f"{stem}:weights"
