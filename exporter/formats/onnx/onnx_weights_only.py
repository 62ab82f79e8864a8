"""Writes linear layers in ONNX with int8 weights and float inputs (see `exporter.quantize.weights_only`).

Each is a Gemm of rows with a dequantised weight in PyTorch's layout, [outputs, inputs]. ONNX Runtime
computes that in float, dequantising at every call. ONNX Runtime 1.32 would turn a MatMul with the same
weight into a MatMulNBits, which rounds its inputs to int8 unless the app's session forbids it
("session.qdq_matmulnbits_accuracy_level"), and such networks lose too much by that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx


def write_onnx_weights_only(proto: onnx.ModelProto) -> None:
    """Turn every product of a float tensor with a dequantised, transposed weight into a Gemm, in place.

    Args:
        proto: PyTorch's translation of linear layers without a bias; shapes are static. Its nodes must be
            sorted afterwards.
    """
    makers = {name: node for node in proto.graph.node for name in node.output}
    layers = [
        (node, weight)
        for node in proto.graph.node
        if (weight := _onnx_weights_only_weight(node, makers)) is not None
    ]
    shapes = _onnx_weights_only_shapes(proto) if layers else {}
    for layer, weight in layers:
        _replace_by_onnx_weights_only(proto, layer, weight, shapes)


def _onnx_weights_only_weight(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> str | None:
    """Return the dequantised weight, before it is transposed, of a layer whose input is float."""
    if node.op_type != "MatMul" or _onnx_weights_only_producer(makers, node.input[0], "DequantizeLinear"):
        return None
    turn = _onnx_weights_only_producer(makers, node.input[1], "Transpose")
    return (
        turn.input[0]
        if turn and _onnx_weights_only_producer(makers, turn.input[0], "DequantizeLinear")
        else None
    )


def _onnx_weights_only_producer(
    makers: Mapping[str, onnx.NodeProto], name: str, operator: str
) -> onnx.NodeProto | None:
    node = makers.get(name)
    return node if node and node.op_type == operator else None


def _onnx_weights_only_shapes(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    import onnx

    graph = onnx.shape_inference.infer_shapes(proto).graph
    return {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }


def _replace_by_onnx_weights_only(
    proto: onnx.ModelProto, layer: onnx.NodeProto, weight: str, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    import onnx

    x, result = layer.input[0], layer.output[0]
    # Names hold colons, which no name of PyTorch's does.
    rows, product, to_rows, back = (f"{name}:{result}" for name in ("rows", "product", "to_rows", "back"))
    for name, shape in ((to_rows, (-1, shapes[x][-1])), (back, shapes[result])):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape, np.int64), name))
    proto.graph.node.remove(layer)
    proto.graph.node.extend(
        [
            onnx.helper.make_node("Reshape", [x, to_rows], [rows]),
            onnx.helper.make_node("Gemm", [rows, weight], [product], transB=1),
            onnx.helper.make_node("Reshape", [product, back], [result]),
        ]
    )
