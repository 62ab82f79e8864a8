"""Resolves ties from one end: which of equal scores a top-k takes first is a runtime's own matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

ARGUMENTS = {
    torch.ops.aten.topk.default: ("self", "k", "dim", "largest"),
    torch.ops.aten.sort.default: ("self", "dim", "descending"),
}
"""Operator whose order of equal values is not defined -> the names of its positional arguments."""


class TiesFromOneEnd(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Give every top-k and sort the order in which the first, or the last, of equal values comes first."""

    def __init__(self, last: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.last, self.used = last, False

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if func not in ARGUMENTS or args[0].dim() == 0:
            return func(*args, **named)
        self.used = True
        given = dict(zip(ARGUMENTS[func], args, strict=False)) | named
        x, dim = given["self"], given.get("dim", -1)
        count = given.get("k", x.shape[dim])
        descending = given.get("largest", True) if "k" in given else given.get("descending", False)
        ordered = torch.sort(x.flip(dim) if self.last else x, dim=dim, descending=descending, stable=True)
        values, indices = (result.narrow(dim, 0, count).contiguous() for result in ordered)
        return values, x.shape[dim] - 1 - indices if self.last else indices
