"""Writes linear layers in ONNX whose inputs are quantised row by row at run time.

See `exporter.quantize.dynamic_int8`.

ONNX's own DynamicQuantizeLinear takes one range for a whole tensor, which one loud token spoils for all
others. So a row's range is written out in plain operators, and MatMulInteger multiplies:

    steps   round(x * 255 / (high - low)) + zero         uint8, with zero = round(-low * 255 / (high - low))
    result  (steps @ w - zero * sum of w's column) * (high - low) / 255 * w's scale

These are XNNPACK's numbers, 128 higher: its kernels give the same results.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from exporter.records import Array

if TYPE_CHECKING:
    import onnx

SMALLEST_RANGE = np.float32(1e-30)
"""Keeps the division finite for a row of zeros."""
MIDDLE = 128
"""The stored weights' zero point: without VNNI, sums of uint8 times int8 saturate, those of uint8 never."""


class _Rows(NamedTuple):
    """Names of an input's steps, and of each row's zero point and scale."""

    steps: str
    zero: str
    scale: str


def quantise_onnx_dynamic_rows(proto: onnx.ModelProto, constants: Mapping[str, Array]) -> None:
    """Turn every product with a dequantised weight into one of integers, in place.

    Args:
        proto: Activations in float, weights int8 per output channel behind DequantizeLinear.
        constants: The values of its tensors.
    """
    makers = {name: node for node in proto.graph.node for name in node.output}
    writer = _RowsWriter(proto)
    for node in list(proto.graph.node):
        weight = makers.get(node.input[1]) if node.op_type in ("MatMul", "Gemm") else None
        if weight is None or weight.op_type != "DequantizeLinear" or weight.input[0] not in constants:
            continue
        stored, scale = (constants[name] for name in weight.input[:2])
        if any(a.name == "transB" and a.i for a in node.attribute):
            stored = stored.T
        writer.layer(node, np.ascontiguousarray(stored), scale)
        proto.graph.node.remove(node)


class _RowsWriter:
    """Adds nodes to a graph; they are sorted afterwards.

    Names hold colons, which no name of PyTorch's does.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._graph = proto.graph
        self._rows: dict[str, _Rows] = {}
        self._constants: set[str] = set()

    def layer(self, node: onnx.NodeProto, weight: Array, scale: Array) -> None:
        """Compute a float layer's result from integers.

        Args:
            node: MatMul or Gemm.
            weight: int8, [inputs, outputs].
            scale: float32, one per output.
        """
        at, rows = node.output[0], self._quantised(node.input[0])
        sums = self._constant(f"rows:{at}:sums", weight.sum(0, dtype=np.int32))
        unsigned = (weight.astype(np.int16) + MIDDLE).astype(np.uint8)
        stored = self._constant(f"rows:{at}:weight", unsigned)
        middle = self._constant("rows:middle", np.uint8(MIDDLE))
        products = self._add("MatMulInteger", rows.steps, stored, "", middle, to=f"rows:{at}:products")
        shift = self._add("Mul", rows.zero, sums, to=f"rows:{at}:shift")
        total = self._add("Sub", products, shift, to=f"rows:{at}:total")
        real = self._add("Cast", total, to=f"rows:{at}:real", type=np.float32)
        scaled = self._add("Mul", real, rows.scale, to=f"rows:{at}:scaled")
        by_output = self._constant(f"rows:{at}:weight_scale", scale.reshape(-1))
        bias = node.input[2] if len(node.input) > 2 else ""
        result = self._add("Mul", scaled, by_output, to=f"rows:{at}:unbiased" if bias else at)
        if bias:
            self._add("Add", result, bias, to=at)

    def _quantised(self, x: str) -> _Rows:
        """Return an input's quantised rows, written once for all layers that read it."""
        if x not in self._rows:
            self._rows[x] = self._quantise(x)
        return self._rows[x]

    def _quantise(self, x: str) -> _Rows:
        last = self._constant("rows:axis", np.array([-1], np.int64))
        none = self._constant("rows:none", np.float32(0))
        all_steps = self._constant("rows:steps", np.float32(255))
        smallest = self._constant("rows:smallest", SMALLEST_RANGE)
        low = self._add("Min", self._add("ReduceMin", x, last, to=f"rows:{x}:min"), none, to=f"rows:{x}:low")
        high = self._add(
            "Max", self._add("ReduceMax", x, last, to=f"rows:{x}:max"), none, to=f"rows:{x}:high"
        )
        reach = self._add(
            "Max", self._add("Sub", high, low, to=f"rows:{x}:reach"), smallest, to=f"rows:{x}:range"
        )
        per_unit = self._add("Div", all_steps, reach, to=f"rows:{x}:per_unit")
        below = self._add("Neg", self._add("Mul", low, per_unit, to=f"rows:{x}:lowest"), to=f"rows:{x}:below")
        zero = self._add("Round", below, to=f"rows:{x}:zero")
        steps = self._add(
            "Round", self._add("Mul", x, per_unit, to=f"rows:{x}:scaled_up"), to=f"rows:{x}:rounded"
        )
        moved = self._add("Add", steps, zero, to=f"rows:{x}:moved")
        inside = self._add("Clip", moved, none, all_steps, to=f"rows:{x}:inside")
        return _Rows(
            self._add("Cast", inside, to=f"rows:{x}:steps", type=np.uint8),
            self._add("Cast", zero, to=f"rows:{x}:zero_point", type=np.int32),
            self._add("Reciprocal", per_unit, to=f"rows:{x}:scale"),
        )

    def _add(self, operator: str, *inputs: str, to: str, type: type | None = None) -> str:
        import onnx

        node = onnx.helper.make_node(operator, list(inputs), [to])
        if type is not None:
            number = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(type))
            node.attribute.append(onnx.helper.make_attribute("to", number))
        self._graph.node.append(node)
        return to

    def _constant(self, name: str, value: Array | np.generic) -> str:
        import onnx

        if name not in self._constants:
            self._graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
            self._constants.add(name)
        return name
