"""One call of a MIL operator: its name, and its arguments in the types that functions compute in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from exporter.errors import CannotRunHere
from exporter.records import Array

Value: TypeAlias = "Array | str | list[Any] | tuple[Any, ...] | dict[str, float] | None"
"""A value of a MIL program: an array, a string, a list (of MIL's list operators), the members of a tuple
argument, a classifier's probabilities, or nothing where an optional argument is left out."""
Result: TypeAlias = (
    "Tensor | Array | list[Any] | tuple[Tensor | Array | list[Any] | str | dict[str, float], ...]"
)
"""What an operator's function returns: one value, or one for each output."""


class UnknownOperator(CannotRunHere):
    """The program has an operator, or an option of one, that the interpreter does not compute."""

    def __init__(self, operator: str, detail: str = "") -> None:
        where = f"{operator} ({detail})" if detail else operator
        super().__init__(
            "Core ML executes on macOS and iOS only, and the reference interpreter does not know "
            f"the operator {where}"
        )
        self.operator = operator


@dataclass(frozen=True, eq=False)
class Call:
    """One operator of a program with its arguments' values."""

    operator: str
    """Its MIL name: "conv"."""
    arguments: Mapping[str, Value]
    """Name -> value. Arguments that are left out have coremltools' default, or are None or missing."""
    shapes: Sequence[tuple[int | None, ...]] = ()
    """The shape of each output as coremltools infers it; None stands for a size that depends on values."""
    operation: Any = None
    """coremltools' own object; operators that its value inference computes need it."""

    def has(self, name: str) -> bool:
        """Tell whether an optional argument is given."""
        return self.arguments.get(name) is not None

    def array(self, name: str) -> Array:
        """Return an argument as it is stored.

        Raises:
            TypeError: It is no array.
        """
        value = self.arguments.get(name)
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{self.operator} has no array {name}")
        return value

    def tensor(self, name: str) -> Tensor:
        """Return an argument as a tensor to compute with: float16 becomes float32, which holds it exactly."""
        return mil_call_tensor(self.array(name))

    def optional(self, name: str) -> Tensor | None:
        """Return an optional argument as a tensor; None where it is left out."""
        return self.tensor(name) if self.has(name) else None

    def members(self, name: str) -> tuple[Array, ...]:
        """Return the members of a tuple argument."""
        values = self.arguments.get(name)
        if not isinstance(values, tuple | list):
            raise TypeError(f"{self.operator} has no tuple {name}")
        return tuple(values)

    def integers(self, name: str, default: Sequence[int] = ()) -> list[int]:
        """Return a vector of whole numbers."""
        return [int(v) for v in self.array(name).reshape(-1)] if self.has(name) else list(default)

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a whole number."""
        return default if default is not None and not self.has(name) else int(self._scalar(name))

    def number(self, name: str, default: float | None = None) -> float:
        """Return a number as stored: an epsilon of 1e-5 in float16 is 1.0014e-5."""
        return default if default is not None and not self.has(name) else float(self._scalar(name))

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a truth value."""
        return bool(self._scalar(name)) if self.has(name) else default

    def text(self, name: str, default: str = "") -> str:
        """Return a string."""
        value = self.arguments.get(name)
        return str(value) if value is not None else default

    def refuse(self, detail: str) -> UnknownOperator:
        """Return the error for an option that the interpreter does not compute."""
        return UnknownOperator(self.operator, detail)

    def _scalar(self, name: str) -> Any:
        return self.array(name).reshape(-1)[0]


def mil_call_tensor(array: Array) -> Tensor:
    """Return an array as a tensor: float16 as float32, integers without a type in PyTorch as int64."""
    if array.dtype in (np.uint16, np.uint32):
        array = array.astype(np.int64)
    if not (array.flags.c_contiguous and array.flags.writeable):
        array = np.array(array, order="C")
    tensor = torch.from_numpy(array)
    return tensor.float() if tensor.dtype == torch.float16 else tensor
