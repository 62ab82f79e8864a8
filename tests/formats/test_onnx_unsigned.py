"""int8 activations are stored as uint8: the same numbers, of inputs and of constants."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from exporter.formats.onnx.onnx_quantized import unsigned_onnx_quantized
from exporter.formats.onnx.onnx_streamed import streamed_onnx
from exporter.records import Array
from tests.onnx_bytes import streamed_bytes


def model_with_a_constant() -> bytes:
    """Return a quantised sum of the input and a table, as a network with positions has it."""
    table = np.linspace(-1, 1, 8, dtype=np.float32)
    stored = np.arange(-4, 4, dtype=np.int8)
    constants = [
        numpy_helper.from_array(np.array(0.02, np.float32), "scale"),
        numpy_helper.from_array(np.array(3, np.int8), "zero"),
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(stored, "stored"),
    ]
    nodes = []
    for name in ("x", "table"):
        nodes.append(helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [f"{name}_d"]))
    nodes.append(helper.make_node("DequantizeLinear", ["stored", "scale", "zero"], ["stored_d"]))
    nodes.append(helper.make_node("Sum", ["x_d", "table_d", "stored_d"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "sum",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [8])],
        constants,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(proto.SerializeToString())


def outputs(model: bytes, x: Array) -> Array:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    return np.asarray(y)


def test_a_quantised_constant_keeps_its_numbers() -> None:
    """A float constant behind a quantiser and a stored int8 one both give the same sums as before."""
    model, x = model_with_a_constant(), np.linspace(-2, 2, 8, dtype=np.float32)
    parsed = onnx_ir.from_proto(onnx.load_model_from_string(model))
    unsigned = streamed_bytes(unsigned_onnx_quantized(streamed_onnx(parsed)))
    types = {c.name: c.data_type for c in onnx.load_model_from_string(unsigned).graph.initializer}
    assert TensorProto.INT8 not in types.values()
    assert TensorProto.FLOAT in types.values()
    assert np.array_equal(outputs(model, x), outputs(unsigned, x))
