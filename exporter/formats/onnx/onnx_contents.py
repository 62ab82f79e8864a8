"""Records of what an ONNX or ORT file holds, and the figures taken from them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from exporter.errors import LoweringError
from exporter.records import Structure, TensorSpec

WEIGHT_INPUTS = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "ConvInteger": (1,),
    "QLinearConv": (3,),
    "FusedConv": (1,),
    "NhwcFusedConv": (1,),
    "QLinearConvTranspose": (3,),
    "Gemm": (0, 1),
    "FusedGemm": (0, 1),
    "QGemm": (0, 3),
    "MatMul": (0, 1),
    "FusedMatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "DynamicQuantizeMatMul": (1,),
    "QLinearMatMul": (0, 3),
    "Attention": (1,),
    "QAttention": (1,),
    "Einsum": (0, 1),
    "Gather": (0,),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
}
"""Operator -> the inputs that may be weights, fused forms of ONNX Runtime included."""

PASS_THROUGH = frozenset(
    {
        "DequantizeLinear",
        "QuantizeLinear",
        "Cast",
        "Transpose",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Identity",
        "Expand",
        "Slice",
        "Split",
    }
)
"""Operators that may stand between a stored weight and the operator that uses it."""

ITEM_BITS = {
    "float64": 64,
    "int64": 64,
    "uint64": 64,
    "float32": 32,
    "int32": 32,
    "uint32": 32,
    "float16": 16,
    "bfloat16": 16,
    "int16": 16,
    "uint16": 16,
    "int8": 8,
    "uint8": 8,
    "bool": 8,
    "int4": 4,
    "uint4": 4,
}


@dataclass(frozen=True)
class StoredContents:
    """A tensor in the file."""

    dtype: str
    shape: tuple[int, ...]
    number: float | None = None
    """Its value, where it is a float of one element."""

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return (self.elements * ITEM_BITS[self.dtype] + 7) // 8


@dataclass(frozen=True)
class ContentsNode:
    """An operator of the graph, with the names of the values that it reads and gives."""

    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    epsilon: float | None = None
    """Its attribute of that name; None where it has none."""

    @property
    def name(self) -> str:
        return self.operator if self.domain in ("", "ai.onnx") else f"{self.domain}.{self.operator}"


@dataclass(frozen=True)
class Contents:
    """The graph, subgraphs flattened into it."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nodes: tuple[ContentsNode, ...]
    tensors: dict[str, StoredContents]


def onnx_contents_dtype(number: int) -> str:
    """Return NumPy's name of an ONNX element type; ORT files use the same numbers.

    Raises:
        ValueError: There is no such type.
    """
    from onnx import TensorProto

    name: str = TensorProto.DataType.Name(number).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def stored_onnx_contents(
    name: str,
    dtype: str,
    shape: tuple[int, ...],
    actual_bytes: int | None,
    number: Callable[[], float] | None = None,
) -> StoredContents:
    """Describe a tensor after checking that its data is there (None for `actual_bytes`: the caller did).

    Args:
        name: Its name in the file.
        dtype: NumPy's name of its type.
        shape: Its shape.
        actual_bytes: The length of its data.
        number: Reads the value of a tensor of one float.

    Raises:
        LoweringError: Its size differs from its shape's.
    """
    if dtype not in ITEM_BITS:
        raise LoweringError(f"Tensor '{name}' has type {dtype}, which none of our artifacts holds.")
    tensor = StoredContents(dtype, shape)
    if any(d < 0 for d in shape) or (actual_bytes is not None and tensor.size_bytes != actual_bytes):
        raise LoweringError(
            f"Tensor '{name}' holds {actual_bytes} bytes; {dtype} {list(shape)} needs another number."
        )
    if number and tensor.elements == 1 and dtype.startswith("float"):
        return replace(tensor, number=number())
    return tensor


def structure_of_onnx_contents(contents: Contents) -> Structure:
    """Count operators and weights."""
    weights = [contents.tensors[name] for name in _weight_names_in_onnx_contents(contents)]
    elements: Counter[str] = Counter()
    for weight in weights:
        elements[weight.dtype] += weight.elements
    return Structure(
        inputs=contents.inputs,
        outputs=contents.outputs,
        operators=dict(sorted(Counter(node.name for node in contents.nodes).items())),
        weight_bytes=sum(weight.size_bytes for weight in weights),
        weight_elements=dict(sorted(elements.items())),
        epsilons=tuple(_epsilons_in_onnx_contents(contents)),
    )


ROOTS = frozenset({"Sqrt", "Reciprocal", "Pow", "Rsqrt"})
"""Operators that take a norm's variance, once its epsilon is added, on the way to a division by its root."""
NORMS = frozenset({"BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization"})
DEFAULT_EPSILON = 1e-5
"""What ONNX's norms add where a file does not say."""


def _epsilons_in_onnx_contents(contents: Contents) -> Iterator[float]:
    """Yield the epsilons of norms, and the numbers that are added to what a root is taken of."""
    rooted = {value for node in contents.nodes if node.operator in ROOTS for value in node.inputs[:1]}
    cast = {n.outputs[0]: n.inputs[0] for n in contents.nodes if n.operator == "Cast" and n.inputs}
    rooted |= {cast[value] for value in rooted if value in cast}
    for node in contents.nodes:
        if node.epsilon is not None or node.operator in NORMS:
            yield DEFAULT_EPSILON if node.epsilon is None else node.epsilon
        if node.operator == "Add" and rooted.intersection(node.outputs):
            stored = (contents.tensors.get(cast.get(value, value)) for value in node.inputs)
            yield from (tensor.number for tensor in stored if tensor and tensor.number is not None)


def _weight_names_in_onnx_contents(contents: Contents) -> list[str]:
    sources = _constants_of_onnx_contents(contents)
    used = {
        name
        for node in contents.nodes
        for i in WEIGHT_INPUTS.get(node.operator, ())
        if i < len(node.inputs) and node.inputs[i] in sources
        for name in sources[node.inputs[i]]
    }
    return sorted(used.union(_tables_cut_in_onnx_contents(contents, sources)))


def _constants_of_onnx_contents(contents: Contents) -> dict[str, frozenset[str]]:
    """Return each value that no input of the model changes -> the weights that it is computed from.

    A weight may be joined from several in the file: the two directions of an LSTM, the gates in ONNX's order.
    Or it is computed from them: a direction, its norm and a length (weight norm), of which the largest
    counts. Where there is no weight behind a value, there are no names. A view's shape may be anything.
    """
    sources = {
        name: frozenset([name] if _is_weight_in_onnx_contents(tensor) else [])
        for name, tensor in contents.tensors.items()
    }

    def elements(names: frozenset[str]) -> int:
        return sum(contents.tensors[name].elements for name in names)

    needs = [
        set(node.inputs[:1]) if node.operator in PASS_THROUGH else set(node.inputs) - {""}
        for node in contents.nodes
    ]
    readers: dict[str, list[int]] = {}
    for index, values in enumerate(needs):
        for value in values:
            readers.setdefault(value, []).append(index)
    missing = [len(values) for values in needs]
    ready = list(sources)
    while ready:  # in any order of the nodes; a cycle never becomes ready
        for index in readers.pop(ready.pop(), ()):
            missing[index] -= 1
            if missing[index]:
                continue
            behind = sorted((sources[value] for value in needs[index]), key=sorted)
            joined = contents.nodes[index].operator == "Concat"
            weights = frozenset().union(*behind) if joined else max(behind, key=elements, default=frozenset())
            fresh = [output for output in contents.nodes[index].outputs if output and output not in sources]
            sources |= dict.fromkeys(fresh, weights)
            ready += fresh
    return sources


def _tables_cut_in_onnx_contents(contents: Contents, sources: dict[str, frozenset[str]]) -> Iterator[str]:
    """Yield tables that are cut to a computed length: ONNX Runtime writes a look-up of 0, 1, 2, … so."""
    for node in contents.nodes:
        computed = [bound for bound in node.inputs[1:3] if bound not in sources]
        if node.operator == "Slice" and computed and node.inputs[0] in sources:
            yield from sources[node.inputs[0]]


def _is_weight_in_onnx_contents(tensor: StoredContents) -> bool:
    return len(tensor.shape) >= 2 and tensor.dtype not in ("int64", "int32", "bool")
