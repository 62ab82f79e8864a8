"""The types of arrays, calls and figures that records are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from annotated_types import Ge, Gt, Le

if TYPE_CHECKING:
    from numpy.typing import NDArray


Array: TypeAlias = "NDArray[Any]"
Sample: TypeAlias = "tuple[Array, ...]"
"""One call of the model: an array per input, in the model's own order, shaped as its inputs (batch 1)."""
Runner: TypeAlias = "Callable[[Sample], tuple[Array, ...]]"
"""Runs an artifact once in its real runtime; outputs in the model's own order."""
Count = Annotated[int, Ge(0)]
Milliseconds = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Side = Annotated[int, Gt(0), Le(65536)]
"""Pixels."""
DTYPE_PATTERN = r"^(bool|u?int(8|16|32|64)|b?float(16|32|64)|float8_\w+|complex(64|128))$"
"""The dtype names that a manifest or a model card may hold."""


def decibel_value(noise: float) -> float:
    """SQNR by the error's energy as a share of the output's; infinite where there is none."""
    return -10 * math.log10(noise) if noise else math.inf


INPUT_DTYPES = ("float32", "float64", "float16", "int64", "int32", "int8", "uint8", "bool")
"""What `--input-shape` can declare."""
NARROW_DTYPES = frozenset({"int8", "uint8", "int4", "uint4", "int2", "uint2", "int1", "uint1"})
Bounds = tuple[float, float]
"""The lower and the upper bound of a figure over scenes, each one-sided 95 % (`verify.intervals`)."""
