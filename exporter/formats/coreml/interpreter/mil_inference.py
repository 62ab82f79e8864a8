"""Operators that coremltools itself computes: its value inference on constants, given values of a run.

Only operators that move values, make shapes or count are computed so. Some others of its inferences are wrong
(`scatter_along_axis` ignores its mode, `concat` its `interleave`, an exclusive `cumsum` raises) or sum in
float16, and have functions of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from exporter.formats.coreml.interpreter.mil_call import Call, Result, Value
from exporter.records import Array


@dataclass(frozen=True, eq=False)
class _Inferred:
    """A value as coremltools' inference reads one: a stand-in for its `Var`."""

    val: Any
    var: Any
    """The Var that it stands for: its type, and its name in messages."""

    @property
    def sym_val(self) -> Any:
        return self.val

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(self.val)

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.var, name)


class _Operation:
    """An operation whose inputs are values of a run; everything else is the operation's own."""

    def __init__(self, operation: Any, inputs: dict[str, Any]) -> None:
        self._operation = operation
        self._input_vars = inputs

    def __getattr__(self, name: str) -> Any:
        if name in self._input_vars:
            return self._input_vars[name]
        attribute = getattr(type(self._operation), name, None)
        if callable(attribute) and not isinstance(attribute, type | staticmethod):
            own = mil_inference_vars(type(self._operation), name)
            return own.__get__(self, type(self)) if own is not None else getattr(self._operation, name)
        return getattr(self._operation, name)


def mil_inference_vars(kind: type, name: str) -> Any:
    """Return a method as its class defines it (static methods stay static), or None."""
    return next((base.__dict__[name] for base in kind.__mro__ if name in base.__dict__), None)


def mil_inference(call: Call) -> Result:
    """Compute an operator by coremltools' value inference.

    Raises:
        UnknownOperator: It cannot compute this one.
    """
    inputs = {
        name: _mil_inference_input(call.arguments[name], var)
        for name, var in call.operation.inputs.items()
        if name in call.arguments
    }
    stand_in = _Operation(call.operation, inputs)
    try:
        values = type(call.operation).value_inference(stand_in)
    except NotImplementedError as error:
        raise call.refuse(str(error)) from error
    if values is None or (isinstance(values, tuple) and any(v is None for v in values)):
        raise call.refuse("coremltools infers no value")
    return tuple(map(np.asarray, values)) if isinstance(values, tuple | list) else np.asarray(values)


def _mil_inference_input(value: Value, var: Any) -> Any:
    if var is None:
        return None
    if isinstance(var, tuple | list):
        assert isinstance(value, tuple | list)
        return tuple(_mil_inference_input(v, own) for v, own in zip(value, var, strict=True))
    return _Inferred(_mil_inference_scalar(value) if isinstance(value, np.ndarray) else value, var)


def _mil_inference_scalar(value: Array) -> Any:
    """Coremltools holds scalars as NumPy's scalars, not as arrays without dimensions."""
    return value[()] if value.ndim == 0 else value
