"""Adds operators to a converted package's program, in Core ML's own protobuf."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from exporter.formats.coreml.coreml_package import coremltools_quietly_for_package

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def coreml_edited_block(spec: Any) -> Any:
    """Return the block of a package's main function."""
    main = spec.mlProgram.functions["main"]
    return main.block_specializations[main.opset]


def unused_coreml_edit_name(spec: Any, wanted: str) -> str:
    """Return a name that no value of the program has."""
    taken = set(_list_coreml_edit_names(coreml_edited_block(spec)))
    taken |= {value.name for value in spec.mlProgram.functions["main"].inputs}
    while wanted in taken:
        wanted += "_"
    return wanted


def _list_coreml_edit_names(block: Any) -> Iterator[str]:
    for operation in block.operations:
        yield from (output.name for output in operation.outputs)
        for inner in operation.blocks:
            yield from (value.name for value in inner.inputs)
            yield from _list_coreml_edit_names(inner)


def coreml_edit_constant(name: str, value: NDArray[np.generic]) -> Any:
    """Make an operator that gives a constant, which is stored in the program itself."""
    from coremltools.converters.mil.backend.mil import helper

    stored = helper.create_tensor_value(value)
    operation = _coreml_edit_operation("const", name)
    operation.attributes["val"].CopyFrom(stored)
    operation.outputs.add(name=name).type.CopyFrom(stored.type)
    return operation


def coreml_edit_call(kind: str, inputs: Mapping[str, str], outputs: Mapping[str, Any]) -> Any:
    """Make an operator.

    Args:
        kind: Its MIL name.
        inputs: Argument -> name of the value.
        outputs: Name of each result -> its type.
    """
    operation = _coreml_edit_operation(kind, next(iter(outputs)))
    for argument, name in inputs.items():
        operation.inputs[argument].arguments.add().name = name
    for name, value_type in outputs.items():
        operation.outputs.add(name=name).type.CopyFrom(value_type)
    return operation


def _coreml_edit_operation(kind: str, name: str) -> Any:
    from coremltools.converters.mil.backend.mil import helper

    operation = coremltools_quietly_for_package().proto.MIL_pb2.Operation(type=kind)
    operation.attributes["name"].CopyFrom(helper.create_scalar_value(name))
    return operation


def coreml_edit_uses(block: Any, old: str, new: str) -> None:
    """Let every operator of a block, and of blocks within, read another value."""
    for operation in block.operations:
        for argument in operation.inputs.values():
            for binding in argument.arguments:
                if binding.WhichOneof("binding") == "name" and binding.name == old:
                    binding.name = new
        for inner in operation.blocks:
            coreml_edit_uses(inner, old, new)
            inner.outputs[:] = [new if name == old else name for name in inner.outputs]


def insert_coreml_edits(block: Any, operations: list[Any]) -> None:
    """Put operators before all others of a block."""
    rest = list(block.operations)
    del block.operations[:]
    block.operations.extend([*operations, *rest])
