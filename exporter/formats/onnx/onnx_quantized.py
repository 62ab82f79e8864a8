"""Translates a PT2E-quantised program into ONNX with the QDQ pairs that runtimes fuse.

PyTorch translates the pairs (QuantizeLinear, DequantizeLinear) itself. This module adds what runtimes also
expect: biases as int32 in their accumulator's scale, and weights in the layout that MatMul reads.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from exporter.errors import LoweringError
from exporter.formats.onnx.onnx_dynamic_rows import quantise_onnx_dynamic_rows
from exporter.formats.onnx.onnx_export import clean_onnx_export, export_to_onnx
from exporter.formats.onnx.onnx_recurrent import order_onnx_recurrent_rows
from exporter.formats.onnx.onnx_streamed import StreamedOnnx, streamed_onnx
from exporter.formats.onnx.onnx_weights_only import write_onnx_weights_only
from exporter.records import Array, Captured, DynamicSize

if TYPE_CHECKING:
    import onnx
    import torch

PAIR = ("QuantizeLinear", "DequantizeLinear")
BIASED = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}
"""Operator -> which of its inputs is the bias."""


@functools.lru_cache(maxsize=1)
def make_onnx_quantized_model(captured: Captured) -> StreamedOnnx:
    """Translate a quantised program, once per program; the model computes the program's numbers.

    Who changes the model changes a copy. It is checked where it is written.

    Raises:
        LoweringError: There is no program.
        Exception: Whatever PyTorch or ONNX raise when they cannot express it.
    """
    from onnx_ir.passes import common

    if captured.program is None:
        raise LoweringError(captured.program_error, captured.program_source)
    # PyTorch has no translation for ranges that are chosen as the program runs: `rows` writes them.
    fixed = _onnx_quantized_without_ranges(captured.program, captured.ranges)
    translated = export_to_onnx(fixed or captured.program, captured.inputs, captured.outputs)
    # PyTorch quantises a tensor once for each reader; kernels are fused with one quantiser only.
    common.CommonSubexpressionEliminationPass()(translated)
    clean_onnx_export(translated)
    model = streamed_onnx(translated)
    proto, constants = model.proto, model.constants()
    makers = {name: node for node in proto.graph.node for name in node.output}
    order_onnx_recurrent_rows(proto, constants)
    _part_onnx_quantized_weights(proto, constants)
    if not fixed:
        write_onnx_weights_only(proto)
    _turn_onnx_quantized_weights(proto, makers, constants)
    _onnx_quantized_biases(proto, makers, constants)
    if fixed:
        quantise_onnx_dynamic_rows(proto, model.constants())
    _drop_unused_of_onnx_quantized(proto)
    return model.restreamed()


def _onnx_quantized_without_ranges(
    program: torch.export.ExportedProgram, sizes: tuple[DynamicSize, ...]
) -> torch.export.ExportedProgram | None:
    """Return the program with float activations if their ranges are chosen as it runs, else None."""
    import torch

    from exporter.capture.dynamic_shapes import torch_dynamic_shapes
    from exporter.quantize import dynamic_int8

    module: torch.fx.GraphModule = program.module()
    if not dynamic_int8.is_dynamic_int8(module):
        return None
    in_float = dynamic_int8.dynamic_int8_in_float(module)
    example = program.example_inputs[0]
    shapes = torch_dynamic_shapes(in_float, sizes, len(example))
    return torch.export.export(in_float, example, dynamic_shapes=shapes)


def unsigned_onnx_quantized(model: StreamedOnnx) -> StreamedOnnx:
    """Store activations as uint8, 128 higher, which represents the same numbers.

    ONNX Runtime's x86 build turns int8 activations into uint8 itself, but not those with several readers, and
    fuses no kernel where the two meet. Its ARM build has kernels for both.
    """
    import onnx

    unsigned = model.copy()
    proto, constants = unsigned.proto, unsigned.constants()
    for node in proto.graph.node:
        if node.op_type not in PAIR or len(node.input) < 3 or constants[node.input[2]].dtype != np.int8:
            continue
        if constants[node.input[1]].size != 1:
            continue
        stored = constants.get(node.input[0])  # a quantiser's constant is in float, and stays as it is
        for place in (2, 0) if stored is not None and stored.dtype == np.int8 else (2,):
            name = f"{node.input[place]}_unsigned"
            if name not in constants:
                constants[name] = (constants[node.input[place]].astype(np.int16) + 128).astype(np.uint8)
                proto.graph.initializer.append(onnx.numpy_helper.from_array(constants[name], name))
            node.input[place] = name
    _drop_unused_of_onnx_quantized(proto)
    proto.graph.ClearField("value_info")  # it still says int8
    return unsigned.restreamed()


def _part_onnx_quantized_weights(proto: onnx.ModelProto, constants: Mapping[str, Array]) -> None:
    """Give each weight its own zero point: ONNX Runtime's x86 build converts both, a shared one twice."""
    import onnx

    for node in proto.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants and len(node.input) > 2:
            name = f"{node.input[0]}_zero"
            zero = constants[node.input[2]]
            if name not in {c.name for c in proto.graph.initializer}:
                proto.graph.initializer.append(onnx.numpy_helper.from_array(zero, name))
            node.input[2] = name


def _turn_onnx_quantized_weights(
    proto: onnx.ModelProto, makers: Mapping[str, onnx.NodeProto], constants: Mapping[str, Array]
) -> None:
    """Transpose weights now that would be transposed before a MatMul: kernels fuse with dequantisers only."""
    import onnx

    for turn in [node for node in proto.graph.node if node.op_type == "Transpose"]:
        dequantize = makers.get(turn.input[0])
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue
        weight = constants.get(dequantize.input[0])
        if weight is None or weight.ndim != 2:
            continue
        name = f"{dequantize.input[0]}_turned"
        if name not in {c.name for c in proto.graph.initializer}:
            proto.graph.initializer.append(onnx.numpy_helper.from_array(weight.T.copy(), name))
        scale, zero = dequantize.input[1:3]
        turned = onnx.helper.make_node("DequantizeLinear", [name, scale, zero], list(turn.output), axis=1)
        turn.CopyFrom(turned)


def _onnx_quantized_biases(
    proto: onnx.ModelProto, makers: Mapping[str, onnx.NodeProto], constants: Mapping[str, Array]
) -> None:
    import onnx

    for node in list(proto.graph.node):
        place = BIASED.get(node.op_type)
        if place is None or len(node.input) <= place or node.input[place] not in constants:
            continue
        scales = [_onnx_quantized_scale(makers.get(name), constants) for name in node.input[:2]]
        if scales[0] is None or scales[1] is None:
            continue
        scale = (scales[0] * scales[1]).astype(np.float32).reshape(-1)
        bias = constants[node.input[place]]
        # As XNNPACK computes it: in float32, by the reciprocal. Outside int32 there is no such bias.
        steps = np.round(bias * (np.float32(1) / scale))
        if not np.all(np.abs(steps) < 2**31 - 1):
            continue
        name = f"{node.output[0]}_bias"
        for suffix, value in (("", steps.astype(np.int32)), ("_scale", np.broadcast_to(scale, bias.shape))):
            proto.graph.initializer.append(onnx.numpy_helper.from_array(value.copy(), name + suffix))
        proto.graph.node.append(
            onnx.helper.make_node("DequantizeLinear", [name, f"{name}_scale"], [f"{name}_float"], axis=0)
        )
        node.input[place] = f"{name}_float"


def _onnx_quantized_scale(dequantize: onnx.NodeProto | None, constants: Mapping[str, Array]) -> Array | None:
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return None
    return constants.get(dequantize.input[1])


def _drop_unused_of_onnx_quantized(proto: onnx.ModelProto) -> None:
    """Remove what nothing reads any more: a dequantiser before its constants."""
    while True:
        read = {name for node in proto.graph.node for name in node.input} | {
            o.name for o in proto.graph.output
        }
        idle = [node for node in proto.graph.node if not read & set(node.output)]
        if not idle:
            break
        for node in idle:
            proto.graph.node.remove(node)
    for constant in [c for c in proto.graph.initializer if c.name not in read]:
        proto.graph.initializer.remove(constant)
