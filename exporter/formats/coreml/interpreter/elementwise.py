"""Functions of single values, and of pairs of values that are broadcast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from exporter.formats.coreml.interpreter.mil_call import Call

Operator: TypeAlias = Callable[[Call], Tensor]

_CASTS: Mapping[str, torch.dtype] = {
    "bool": torch.bool,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "uint8": torch.uint8,
    "uint16": torch.int64,
}


def elementwise_unary(function: Callable[[Tensor], Tensor]) -> Operator:
    """Return the operator that applies a function to `x`."""
    return lambda call: function(call.tensor("x"))


def elementwise_binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """Return the operator that applies a function to `x` and `y`."""
    return lambda call: function(call.tensor("x"), call.tensor("y"))


def elementwise_real_division(x: Tensor, y: Tensor) -> Tensor:
    """Divide; integers are divided towards zero, as the result is one too."""
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def elementwise_log(call: Call) -> Tensor:
    """Compute `log` of x + epsilon."""
    return torch.log(call.tensor("x") + call.number("epsilon", 0.0))


def elementwise_inverse(call: Call) -> Tensor:
    """Compute `inverse` of x + epsilon."""
    return 1 / (call.tensor("x") + call.number("epsilon", 1e-4))


def elementwise_rsqrt(call: Call) -> Tensor:
    """Compute `rsqrt` of x + epsilon."""
    return torch.rsqrt(call.tensor("x") + call.number("epsilon", 1e-12))


def elementwise_cast(call: Call) -> Tensor:
    """Compute `cast`; numbers become integers towards zero."""
    name = call.text("dtype")
    if name not in _CASTS:
        raise call.refuse(f"dtype {name!a}")
    return call.tensor("x").to(_CASTS[name])


def elementwise_select(call: Call) -> Tensor:
    """Compute `select`: a where cond, else b."""
    return torch.where(call.tensor("cond").bool(), call.tensor("a"), call.tensor("b"))
