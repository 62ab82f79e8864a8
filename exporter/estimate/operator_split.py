"""Divide an estimate over the operators and modules of a model's graph: a division, not a count.

Counted is the whole call. Its arithmetic and its loads are divided by multiply-accumulates, its other
instructions by the values that operators read and write, starting threads by convolutions and matrix
products, and what memory takes by weights.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from exporter.records import EstimatedLatency, OperatorTime

NAMED = "onnx-fp32.onnx"
"""The artifact whose weights are named by module: "features.0.0.weight"."""
HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
INVENTED = re.compile(r"val_\d+|\d+|onnx::\w+_\d+|_to_copy\w*|scalar_tensor\w*")
"""Names of constants that PyTorch's exporters invent."""
FUSING = ("Conv", "Gemm")
FUSED = ("Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid")
"""Activations that runtimes compute within the convolution or product before them, without their own pass.
ONNX Runtime's ConvActivationFusion and GemmActivationFusion have this list."""
FUNCTIONS = ("Erf", "Gelu", "Sigmoid", "Tanh", "Exp", "Softplus", "Mish", "Elu", "Swish")
"""Operators that evaluate a series for each value, a dozen instructions or more. Softmax is not among them:
its exponentials cost less in published rows than functions on their own do."""
SHOWN = 40
"""Operators that an estimate keeps; of the rest, each kind is one entry without its module."""
LARGEST_BYTES = 512 << 20
"""Larger files are not read."""
REST = "others"


@dataclass(frozen=True)
class GraphOperator:
    """What one operator of a graph does in a call."""

    module: str
    """The model's module with the operator's weights; that of the operator before where it has none."""
    kind: str
    macs: int
    """Multiply-accumulates."""
    values: int
    """Values read, but for weights, and written; none for an activation that its convolution computes."""
    weights: int
    depthwise: bool = False
    """A convolution with one input channel a group."""
    patches: int = 0
    """Values of the patches that a convolution larger than 1x1 multiplies, a patch for each output pixel.
    Kernels that multiply matrices copy them before (im2col). None in a depthwise convolution."""
    functions: int = 0
    """Values of one of `FUNCTIONS`; a fused activation has no pass of its own, but is evaluated."""
    touched: tuple[tuple[str, int], ...] = field(default=(), compare=False)
    """The tensors that it reads and writes, with their number of values."""

    @property
    def kernels(self) -> int:
        """1 for a convolution or a matrix product: starting threads costs it."""
        return int(self.kind in HEAVY)


DIVIDED_BY: Mapping[str, str] = {
    "arithmetic": "macs",
    "loads": "macs",
    "other vector instructions": "values",
    "other instructions": "values",
    "starting threads": "kernels",
    "memory": "weights",
}
"""Part of an estimate -> what of an operator its share follows."""


def operators_to_split(path: Path, least_macs: int = 1) -> tuple[GraphOperator, ...]:
    """Return the operators of a float32 ONNX file whose weights are named by module, in the file's order.

    There are none where the file is missing, too large, no ONNX file, or states no shapes.

    Args:
        path: The file.
        least_macs: Multiply-accumulates below which nothing is returned.
    """
    import onnx

    try:
        if path.stat().st_size > LARGEST_BYTES:
            return ()
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception:  # protobuf's own DecodeError, or no such file
        return ()
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    shapes = {
        value.name: _operator_split_shape(value) for value in (*graph.value_info, *graph.input, *graph.output)
    }
    shapes |= weights
    fused = _fused_activations_in_operator_split(graph)
    readers = {name: node for node in graph.node for name in node.input}
    operators, module = [], ""
    for node in graph.node:
        own = [name for name in node.input if name in weights]
        module = _module_of_operator_split(node, weights, readers) or module
        operator = _operator_to_split(node, module, shapes, own)
        operators.append(replace(operator, values=0) if node.output[0] in fused else operator)
    return tuple(operators) if sum(operator.macs for operator in operators) >= least_macs else ()


def _module_of_operator_split(
    node: Any, weights: Mapping[str, tuple[int, ...]], readers: Mapping[str, Any]
) -> str:
    """Return the module whose weights an operator reads; empty where it has none.

    A linear layer is a MatMul with a transposed weight, whose name the exporter invents; the addition of its
    bias, which follows, has the model's own name.
    """
    follows = readers.get(node.output[0]) if node.op_type == "MatMul" else None
    for operator in (node, *([follows] if follows is not None and follows.op_type == "Add" else ())):
        for name in operator.input:
            if name in weights and weights[name] and not INVENTED.fullmatch(name):
                return str(name.rpartition(".")[0] or name)
    return ""


def _fused_activations_in_operator_split(graph: Any) -> set[str]:
    """Return the outputs of activations whose input only they read, and a convolution or product computes."""
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(value.name for value in graph.output)
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    return {
        node.output[0]
        for node in graph.node
        if node.op_type in FUSED and made_by.get(node.input[0]) in FUSING and readers[node.input[0]] == 1
    }


def _operator_split_shape(value: Any) -> tuple[int, ...]:
    """Return a value's shape; a dimension that is not fixed counts as one."""
    return tuple(max(dim.dim_value, 1) for dim in value.type.tensor_type.shape.dim)


def _operator_to_split(
    node: Any, module: str, shapes: Mapping[str, tuple[int, ...]], weights: Sequence[str]
) -> GraphOperator:
    read = sum(math.prod(shapes[name]) for name in node.input if name in shapes and name not in weights)
    written = sum(math.prod(shapes[name]) for name in node.output if name in shapes)
    return GraphOperator(
        module,
        node.op_type,
        macs=_macs_of_operator_split(node, shapes, written),
        values=read + written,
        weights=sum(math.prod(shapes[name]) for name in weights),
        depthwise=_is_depthwise_in_operator_split(node, shapes),
        patches=_patches_of_operator_split(node, shapes, written),
        functions=written if node.op_type in FUNCTIONS else 0,
        touched=tuple(
            (name, math.prod(shapes[name])) for name in (*node.input, *node.output) if name in shapes
        ),
    )


def _is_depthwise_in_operator_split(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return node.op_type == "Conv" and groups > 1 and shapes.get(node.input[1], (0, 0))[1] == 1


def _patches_of_operator_split(node: Any, shapes: Mapping[str, tuple[int, ...]], written: int) -> int:
    """Return the values of a convolution's patches: each output pixel has one, of all input channels."""
    weight = shapes.get(node.input[1], ()) if node.op_type == "Conv" else ()
    if len(weight) < 3 or math.prod(weight[2:]) == 1 or _is_depthwise_in_operator_split(node, shapes):
        return 0
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return written // max(weight[0], 1) * groups * math.prod(weight[1:])


def _macs_of_operator_split(node: Any, shapes: Mapping[str, tuple[int, ...]], written: int) -> int:
    """Return an operator's multiply-accumulates: for each output value, one for each value that it sums."""
    second = shapes.get(node.input[1]) if node.op_type in HEAVY and len(node.input) > 1 else None
    if not second or len(second) < 2:
        return 0
    if node.op_type == "Conv":
        return written * math.prod(second[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(shapes.get(node.input[0], ())) * math.prod(second[1:])
    turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return written * (second[-1] if turned else second[-2])


def operator_split_of_estimate(
    estimate: EstimatedLatency, operators: Sequence[GraphOperator]
) -> tuple[OperatorTime, ...]:
    """Return the milliseconds of each kind of operator in each module, slowest first. The sum is p50."""
    times: dict[tuple[str, str], float] = {}
    for part, share in estimate.shares.items():
        sizes = [getattr(operator, DIVIDED_BY[part]) for operator in operators] if part in DIVIDED_BY else []
        whole = sum(sizes)
        if not whole:  # what a call costs once belongs to no operator
            times[part, part] = times.get((part, part), 0.0) + share * estimate.p50_ms
            continue
        for operator, size in zip(operators, sizes, strict=True):
            key = (operator.module, operator.kind)
            times[key] = times.get(key, 0.0) + share * estimate.p50_ms * size / whole
    slowest = sorted(((ms, key) for key, ms in times.items() if ms > 0), reverse=True)
    kept = [OperatorTime(kind, kind, ms, module) for ms, (module, kind) in slowest[:SHOWN]]
    rest: dict[str, float] = {}
    for ms, (_, kind) in slowest[SHOWN:]:
        rest[kind] = rest.get(kind, 0.0) + ms
    return (*kept, *(OperatorTime(kind, kind, ms, REST) for kind, ms in rest.items()))
