"""Runs a MIL program operator by operator, and rounds every result to the type that it declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exporter.errors import CannotRunHere, LoweringError
from exporter.formats.coreml.coreml_compress import (
    coreml_operations_to_compress,
    load_coreml_program_to_compress,
)
from exporter.formats.coreml.coreml_package import Package
from exporter.formats.coreml.interpreter.mil_call import Call, Result, UnknownOperator, Value
from exporter.formats.coreml.interpreter.table import OPERATORS
from exporter.records import Array

MAX_ELEMENTS = 2**28
"""The most values of one computed tensor: what a program declares must not take all memory."""
VALUES_OF_BYTE = 8
"""The most values that a compressed weight holds in one byte of the file."""
MAX_OPERATORS = 5_000_000
"""The most operators of one run, so that a loop ends."""
CONTROL_FLOW = ("cond", "while_loop")

_DTYPES = {np.dtype(np.float16): torch.float16, np.dtype(np.float32): torch.float32}


class Program:
    """The main function of a package, ready to run. Nothing is kept from run to run."""

    def __init__(self, function: Any, inputs: Sequence[str], outputs: Sequence[Any]) -> None:
        """Take a function of coremltools' in-memory program.

        Args:
            function: It has `operations`, and `inputs` by name.
            inputs: The names of its inputs, in the order in which `run` takes them.
            outputs: The variables that `run` returns.

        Raises:
            UnknownOperator: It has an operator that the interpreter does not compute.
        """
        check_mil_program_operators(function)
        self._function, self._inputs, self._outputs = function, tuple(inputs), tuple(outputs)
        self._constants: dict[int, Value] = {}
        self._count = 0
        self._last_uses = last_uses_in_mil_program(function.operations, outputs)

    @classmethod
    def of_package(cls, package: Package, weights: Path) -> Program:
        """Read the main function of a package. Nothing is written: a confined process may not.

        Args:
            package: What was read from it.
            weights: The folder of its weight file.

        Raises:
            UnknownOperator: It has an operator that the interpreter does not compute.
            LoweringError: Its description names other inputs or outputs than the function has.
        """
        function = load_coreml_program_to_compress(package, weights).functions["main"]
        inputs, outputs = (
            [feature.name for feature in features]
            for features in (package.spec.description.input, package.spec.description.output)
        )
        variables = {variable.name: variable for variable in function.outputs}
        if set(inputs) != set(function.inputs) or not set(outputs) <= set(variables):
            raise LoweringError("Its description names other inputs or outputs than its program has.")
        return cls(function, inputs, [variables[name] for name in outputs])

    def run(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        """Compute the outputs as arrays, in the order of the description; see `values`."""
        return tuple(np.asarray(value) for value in self.values(arrays).values())

    def values(self, arrays: Sequence[Array]) -> dict[str, Value]:
        """Compute the outputs by name, in the order of the description.

        A label is a text, and a classifier's probabilities are a dictionary.

        Args:
            arrays: An array for each described input.

        Raises:
            UnknownOperator: An operator has an option that the interpreter does not compute.
            ValueError: An operator cannot be computed on these values; the message names it.
        """
        self._count = 0
        values: dict[int, Value] = {}
        for name, array in zip(self._inputs, arrays, strict=True):
            variable = self._function.inputs[name]
            values[id(variable)] = (
                np.ascontiguousarray(array).astype(mil_program_dtype(variable)).reshape(array.shape)
            )
        for index, operation in enumerate(self._function.operations):
            self._run_operation(operation, values)
            for key in self._last_uses.get(index, ()):
                values.pop(key, None)
        return {variable.name: self._value(variable, values) for variable in self._outputs}

    def _run_operation(self, operation: Any, values: dict[int, Value]) -> None:
        if all(variable.val is not None or id(variable) in self._constants for variable in operation.outputs):
            return
        self._count += 1
        if self._count > MAX_OPERATORS:
            raise ValueError(f"it takes more than {MAX_OPERATORS} operators: a loop does not end")
        arguments = {name: self._argument(given, values) for name, given in operation.inputs.items()}
        if operation.op_type in CONTROL_FLOW:
            results: Sequence[Value | Tensor] = self._run_blocks(operation, arguments, values)
        else:
            results = _compute_in_mil_program(operation, arguments)
        keep = self._constants if operation.op_type.startswith("constexpr_") else values
        for variable, result in zip(operation.outputs, results, strict=True):
            keep[id(variable)] = _stored_in_mil_program(operation, variable, result)

    def _run_blocks(
        self, operation: Any, arguments: Mapping[str, Value], values: dict[int, Value]
    ) -> Sequence[Value]:
        if operation.op_type == "cond":
            chosen = operation.blocks[0 if bool(np.asarray(arguments["pred"]).reshape(-1)[0]) else 1]
            return self._run_block(chosen, (), values)
        condition, body = operation.blocks
        state: Sequence[Value] = list(arguments["loop_vars"] or ())
        while bool(np.asarray(self._run_block(condition, state, values)[0]).reshape(-1)[0]):
            state = self._run_block(body, state, values)
        return state

    def _run_block(self, block: Any, arguments: Sequence[Value], values: dict[int, Value]) -> list[Value]:
        for variable, value in zip(block.inputs, arguments, strict=True):
            values[id(variable)] = value
        for operation in block.operations:
            self._run_operation(operation, values)
        return [self._value(variable, values) for variable in block.outputs]

    def _argument(self, given: Any, values: Mapping[int, Value]) -> Value:
        if given is None:
            return None
        if isinstance(given, tuple | list):
            return tuple(self._value(variable, values) for variable in given)
        return self._value(given, values)

    def _value(self, variable: Any, values: Mapping[int, Value]) -> Value:
        key = id(variable)
        if key in values:
            return values[key]
        if key not in self._constants:
            if variable.val is None:
                raise ValueError(f"{variable.name} is used before it is computed")
            self._constants[key] = _constant_of_mil_program(variable)
        return self._constants[key]


def check_mil_program_operators(function: Any) -> None:
    """Refuse a function with an operator that is not in the table, also in nested blocks.

    Raises:
        UnknownOperator: It names the operator.
    """
    for operation in coreml_operations_to_compress(function):
        known = operation.op_type in OPERATORS or operation.op_type in ("const", *CONTROL_FLOW)
        if not known:
            raise UnknownOperator(operation.op_type)


def last_uses_in_mil_program(operations: Sequence[Any], results: Sequence[Any]) -> dict[int, list[int]]:
    """Return, for the position of each operator, the variables that nothing needs after it."""
    last: dict[int, int] = {}
    for index, operation in enumerate(operations):
        for variable in (*_variables_of_mil_program(operation), *operation.outputs):
            last[id(variable)] = index
    needed = {id(variable) for variable in results}
    uses: dict[int, list[int]] = {}
    for key, index in last.items():
        if key not in needed:
            uses.setdefault(index, []).append(key)
    return uses


def _variables_of_mil_program(operation: Any) -> list[Any]:
    used = list(operation.get_flattened_inputs())
    for block in operation.blocks:
        for inner in block.operations:
            used += _variables_of_mil_program(inner)
        used += block.outputs
    return used


def mil_program_dtype(variable: Any) -> np.dtype[Any]:
    """Return the dtype that a variable is declared with, as NumPy's."""
    from coremltools.converters.mil.mil import types

    dtype: np.dtype[Any] = np.dtype(types.nptype_from_builtin(variable.dtype))
    return dtype


def _constant_of_mil_program(variable: Any) -> Value:
    value = variable.val
    return str(value) if isinstance(value, str) else np.asarray(value)


def _declared_in_mil_program(variable: Any) -> tuple[int | None, ...]:
    """Return the sizes that coremltools infers; None for one that depends on values."""
    from coremltools.converters.mil.mil import types

    if types.is_list(variable.sym_type):
        return ()
    return tuple(int(size) if isinstance(size, int | np.integer) else None for size in variable.shape)


def _compute_in_mil_program(operation: Any, arguments: Mapping[str, Value]) -> Sequence[Value | Tensor]:
    shapes = [_declared_in_mil_program(variable) for variable in operation.outputs]
    most = MAX_ELEMENTS
    if operation.op_type.startswith("constexpr_"):  # a table of words may be larger: it is in the file
        stored = sum(given.nbytes for given in arguments.values() if isinstance(given, np.ndarray))
        most = max(most, VALUES_OF_BYTE * stored)
    if any(None not in shape and prod(filter(None, shape)) > most for shape in shapes):
        raise ValueError(f"{operation.op_type} ({operation.name}) makes more than {most} values")
    try:
        with np.errstate(all="ignore"), torch.no_grad():
            result: Result = OPERATORS[operation.op_type](
                Call(operation.op_type, arguments, tuple(shapes), operation)
            )
    except CannotRunHere:
        raise
    except Exception as error:
        raise ValueError(
            f"the reference interpreter stops at {operation.op_type} ({operation.name}): {error}"
        ) from error
    return result if isinstance(result, tuple) else (result,)


def _stored_in_mil_program(operation: Any, variable: Any, result: Value | Tensor) -> Value:
    """Round a result to the type that the program declares; float16 overflows to infinity."""
    if isinstance(result, list | tuple | str | dict) or result is None:
        return result
    dtype = mil_program_dtype(variable)
    if isinstance(result, Tensor):
        if dtype in _DTYPES:
            result = result.to(_DTYPES[dtype])
        result = result.numpy()
    with np.errstate(all="ignore"):
        array = np.asarray(result).astype(dtype, copy=False)
    declared = _declared_in_mil_program(variable)
    if len(declared) != array.ndim or any(
        expected not in (None, size) for expected, size in zip(declared, array.shape, strict=True)
    ):
        raise ValueError(
            f"the reference interpreter computes {list(array.shape)} at {operation.op_type} "
            f"({operation.name}), which declares {list(declared)}"
        )
    return array
