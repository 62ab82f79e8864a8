"""Runs a network in float64 although its code insists on float32: by a cast, a dtype or a constant tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from exporter.records import Runner, Sample

WIDER = {torch.float32: torch.float64, torch.complex64: torch.complex128}
NARROWER = {wide: narrow for narrow, wide in WIDER.items()}


def with_widened_casts(run: Runner) -> Runner:
    """Return a runner whose calls compute in float64 what their code casts to float32."""

    def widened(sample: Sample) -> Sample:
        with WidenedCasts():  # type: ignore[no-untyped-call]
            return run(sample)

    return widened


class WidenedCasts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Make casts to float32 casts to float64, and compute with float32 tensors in float64.

    A tensor that an operator changes in place, or returns a view of, stays what it is: it may be the model's
    state, and a wider copy would be changed in its stead.
    """

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        aliased = _aliased_arguments(func, args, named)
        if any(tensor.dtype in WIDER for tensor in aliased):
            narrow = _casts_of(NARROWER, aliased) if func._schema.is_mutable else _leaves_as_is
            args, named = _pytree.tree_map(narrow, (args, named))
            return func(*args, **named)
        args, named = _pytree.tree_map(_casts_of(WIDER, aliased), (args, named))
        return func(*args, **named)


def _aliased_arguments(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> list[Tensor]:
    """Return the tensors that an operator changes in place, or returns views of."""
    values = [
        args[i] if i < len(args) else named.get(argument.name)
        for i, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None
    ]
    return [leaf for leaf in _pytree.tree_leaves(values) if isinstance(leaf, Tensor)]


def _casts_of(table: dict[torch.dtype, torch.dtype], aliased: list[Tensor]) -> Callable[[Any], Any]:
    """Return a function that replaces types by a table: those of tensors, and those that are arguments."""

    def cast(value: Any) -> Any:
        if isinstance(value, torch.dtype):
            return table.get(value, value)
        if isinstance(value, Tensor) and not any(value is tensor for tensor in aliased):
            return value.to(table[value.dtype]) if value.dtype in table else value
        return value

    return cast


def _leaves_as_is(value: Any) -> Any:
    return value
