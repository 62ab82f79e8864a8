"""Converts an fp32 ONNX model to half precision; `formats.half_precision` decides what stays in float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np

from exporter.errors import LoweringError
from exporter.formats import half_precision
from exporter.formats.onnx.onnx_streamed import StreamedOnnx

if TYPE_CHECKING:
    import onnx
    import onnx_ir

BLOCK = 1 << 22
"""Values that are rounded at once: rounding holds several copies of them."""


def onnx_float16_model(model: StreamedOnnx) -> tuple[StreamedOnnx, str]:
    """Store weights and compute in float16; inputs, outputs and groups of nodes stay in float32.

    Args:
        model: An fp32 model. Its message is changed; its large tensors are converted as they are written.

    Returns:
        The model, and a note on what stayed in float32; empty when nothing did.
    """
    import onnx_ir
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST

    proto = model.proto
    proto.graph.ClearField("value_info")  # the converter takes constants that are listed here for values
    refuse_nested_float16(proto.graph)
    _compute_constants_for_onnx_float16(proto.graph)
    names = _names_not_in_onnx_float16(proto.graph, frozenset(DEFAULT_OP_BLOCK_LIST))
    note = _onnx_float16_note(proto.graph, names)
    _own_onnx_float16_constants(proto.graph, names)
    converted = _onnx_float16_message(proto, names)
    converted.graph.ClearField("value_info")  # not kept true around the casts it adds
    joined = onnx_ir.from_proto(converted)
    _join_onnx_float16_casts(joined)
    result = onnx_ir.to_proto(joined)
    result.graph.ClearField("value_info")  # the inferred types have served
    return model.restreamed(result, _halved_onnx_tensor), note


def _onnx_float16_message(proto: onnx.ModelProto, names: frozenset[str]) -> onnx.ModelProto:
    """Convert a message by ONNX Runtime's converter; references to large tensors get their new type only."""
    from onnx import helper
    from onnxruntime.transformers import float16

    def described(tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))

    operators = [*float16.DEFAULT_OP_BLOCK_LIST, *half_precision.FLOAT32]
    # The converter's own function reads all values of a tensor to know its shape, and there are none here.
    with mock.patch.object(float16, "make_value_info_from_tensor", described):
        converted: onnx.ModelProto = float16.convert_float_to_float16(
            proto, keep_io_types=True, op_block_list=operators, node_block_list=sorted(names)
        )
    return converted


def _halved_onnx_tensor(tensor: onnx_ir.TensorProtocol) -> onnx_ir.TensorProtocol:
    """Return a tensor whose values the converter rounds, in blocks, each time they are read."""
    import onnx_ir
    from onnxruntime.transformers.float16 import convert_np_to_float16

    def halved() -> onnx_ir.TensorProtocol:
        values = tensor.numpy().reshape(-1)
        halves = np.empty(values.shape, np.float16)
        for start in range(0, len(values), BLOCK):
            halves[start : start + BLOCK] = convert_np_to_float16(values[start : start + BLOCK])
        return onnx_ir.tensor(halves.reshape(tensor.shape.numpy()))

    shape = onnx_ir.Shape(tensor.shape.numpy())
    return onnx_ir.LazyTensor(halved, onnx_ir.DataType.FLOAT16, shape, name=tensor.name)


def refuse_nested_float16(graph: onnx.GraphProto) -> None:
    """Refuse branches and loops within others: the converter casts what they read in the wrong graph.

    Raises:
        LoweringError: The operators' names, and the way out.
    """
    for node in graph.node:
        for inner in (inner for graph in _float16_subgraphs(node) for inner in graph.node):
            if any(True for _ in _float16_subgraphs(inner)):
                raise LoweringError(
                    f"ONNX Runtime's converter to half precision does not know {inner.op_type} within "
                    f"{node.op_type}, which the network's branches, loops or operators become: use onnx-fp32"
                )


def _float16_subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def _compute_constants_for_onnx_float16(graph: onnx.GraphProto) -> None:
    """Give outputs that are stored constants a node of their own: the converter casts them under one name."""
    from onnx import helper

    outputs = {value.name for value in graph.output}
    for tensor in graph.initializer:
        if (name := tensor.name) in outputs:
            tensor.name = f"{name}_constant"
            for node in graph.node:
                node.input[:] = [tensor.name if i == name else i for i in node.input]
            graph.node.append(helper.make_node("Identity", [tensor.name], [name]))


def _onnx_float16_note(graph: onnx.GraphProto, names: frozenset[str]) -> str:
    kinds = sorted({node.op_type for node in graph.node if node.name in names})
    return f"{len(names)} operators compute in float32: {', '.join(kinds)}." if kinds else ""


def _names_not_in_onnx_float16(graph: onnx.GraphProto, unsupported: frozenset[str]) -> frozenset[str]:
    """Return the names of the nodes that stay in float32; operators in `unsupported` must."""
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{index}"  # the converter knows nodes by name only
    constants = {t.name: half_precision.is_half_precision_matrix(t.dims) for t in graph.initializer}
    nodes = [
        half_precision.HalfNode(
            "Square" if node.op_type == "Mul" and len(set(node.input)) == 1 else node.op_type,
            tuple(name for name in node.input if name and name not in constants),
            tuple(node.output),
            any(constants.get(name, False) for name in node.input),
        )
        for node in graph.node
    ]
    also = [i for i, node in enumerate(graph.node) if node.op_type in unsupported]
    also += _onnx_places_of_open_sizes(nodes)
    positions = half_precision.nodes_not_in_half_precision(
        nodes, [value.name for value in graph.output], also
    )
    return frozenset(graph.node[i].name for i in positions)


def _onnx_places_of_open_sizes(nodes: Sequence[half_precision.HalfNode]) -> list[int]:
    """Return the nodes that compute with an axis of any size, or the places in it, before any weight.

    Half precision counts to 2,048 only. A photo is resized with such places.
    """
    open_sizes: set[str] = set()
    places: set[str] = set()
    positions: list[int] = []
    for index, node in enumerate(nodes):
        if node.weights:
            continue
        read = {*node.inputs}
        computes_size = node.operator != "Range" and bool(read & open_sizes)
        counts = (node.operator == "Range" and bool(read & open_sizes)) or bool(read & places)
        if node.operator == "Shape" or computes_size:
            open_sizes |= {*node.outputs}
        if counts:
            places |= {*node.outputs}
        if counts or computes_size:
            positions.append(index)
    return positions


def _own_onnx_float16_constants(graph: onnx.GraphProto, names: frozenset[str]) -> None:
    """Copy constants that both float32 and float16 nodes read: in float16 an epsilon becomes 0."""
    readers = Counter((i, node.name in names) for node in graph.node for i in set(node.input))
    shared = {
        t.name: t for t in graph.initializer if all((t.name, side) in readers for side in (True, False))
    }
    for name, tensor in shared.items():
        copy = graph.initializer.add()
        copy.CopyFrom(tensor)
        copy.name = f"{name}_float32"
        for node in graph.node:
            if node.name in names:
                node.input[:] = [copy.name if i == name else i for i in node.input]


def _join_onnx_float16_casts(model: onnx_ir.Model) -> None:
    """Remove casts to float16 and back: between two float32 nodes they would bring the overflow back."""
    import onnx_ir
    from onnx_ir import convenience
    from onnx_ir.passes import common

    common.TopologicalSortPass()(model)
    common.ShapeInferencePass()(model)
    for node in model.graph:
        half_value = _source_of_onnx_float16_cast(node, "FLOAT")
        source = (
            _source_of_onnx_float16_cast(half_value.producer(), "FLOAT16") if half_value is not None else None
        )
        if source is None or source.dtype != onnx_ir.DataType.FLOAT:  # the model's own casts, from integers
            continue
        out = node.outputs[0]
        if out.is_graph_output() and (source.is_graph_output() or source.is_graph_input()):
            continue
        name = out.name if out.is_graph_output() else source.name
        convenience.replace_all_uses_with(out, source, replace_graph_outputs=True)
        out.name, source.name = None, name
    common.RemoveUnusedNodesPass()(model)


def _source_of_onnx_float16_cast(node: onnx_ir.Node | None, to: str) -> onnx_ir.Value | None:
    """Return the value that a node casts, when it is a cast to that type."""
    import onnx_ir

    if node is None or node.op_type != "Cast" or node.attributes["to"].as_int() != onnx_ir.DataType[to]:
        return None
    return node.inputs[0]
