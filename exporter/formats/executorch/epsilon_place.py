"""Finds an operator's epsilon among the arguments of a call in a file."""

from __future__ import annotations

import functools

from exporter.capture.epsilons import EPSILON


@functools.cache
def epsilon_place(name: str, overload: str) -> int | None:
    """Return the position of an ATen operator's epsilon; None where it has none.

    Args:
        name: "native_layer_norm"; it may be one that PyTorch does not have.
        overload: "out"; "default", or nothing, for the one without a name.
    """
    import torch

    packet = getattr(torch.ops.aten, name, None) if name.isidentifier() else None
    operator = getattr(packet, overload or "default", None) if packet is not None else None
    if not isinstance(operator, torch._ops.OpOverload):
        return None
    names = [argument.name for argument in operator._schema.arguments]
    return names.index(EPSILON) if EPSILON in names else None
