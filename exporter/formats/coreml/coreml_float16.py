"""Half precision for Core ML; `exporter.formats.half_precision` decides what stays in float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from exporter.formats import half_precision
from exporter.formats.coreml.coreml_package import coremltools_quietly_for_package

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Block, Operation, Var

# These stay unchanged: they have no float values, or coremltools never casts them.
_NO_COMPUTE = frozenset({"const", "cast"})


def coreml_float16_precision() -> Any:
    """Return the `coreml_float16_precision` of `coremltools.convert`: float16, except groups of operators."""
    return coremltools_quietly_for_package().transform.FP16ComputePrecision(op_selector=_Float16Selector())


class _Float16Selector:
    """Tells for each operator whether it is cast to float16.

    coremltools asks while it inserts casts, so a whole block is decided at its first operator, when no cast
    has been inserted yet.
    """

    def __init__(self) -> None:
        self._float32: dict[int, tuple[Block, frozenset[int]]] = {}

    def __call__(self, operation: Operation) -> bool:
        block = operation.enclosing_block
        if id(block) not in self._float32:  # kept with its block, so that no other gets the same id
            self._float32[id(block)] = (block, _operations_not_in_coreml_float16(block))
        return id(operation) not in self._float32[id(block)][1]


def _operations_not_in_coreml_float16(block: Block) -> frozenset[int]:
    """Return the ids of the operators of a block that stay in float32."""
    operations = [op for op in block.operations if op.op_type not in _NO_COMPUTE]
    nodes = [_coreml_float16_node(operation) for operation in operations]
    positions = half_precision.nodes_not_in_half_precision(nodes, [value.name for value in block.outputs])
    return frozenset(id(operations[i]) for i in positions)


def _coreml_float16_node(operation: Operation) -> half_precision.HalfNode:
    inputs = list(_coreml_float16_inputs(operation))
    values = tuple(value.name for value in inputs if value.val is None)
    twice = operation.op_type == "mul" and len(values) == 2 and values[0] == values[1]
    return half_precision.HalfNode(
        "Square" if twice else operation.op_type,
        values,
        tuple(value.name for value in operation.outputs),
        any(
            half_precision.is_half_precision_matrix(value.shape) for value in inputs if value.val is not None
        ),
    )


def _coreml_float16_inputs(operation: Operation) -> Iterator[Var]:
    for given in operation.inputs.values():
        yield from given if isinstance(given, list | tuple) else (given,)
