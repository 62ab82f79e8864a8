"""Reads what a package's norms add to a variance before they divide by its root."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

NORMS = frozenset({"batch_norm", "instance_norm", "l2_norm", "layer_norm"})
ROOTS = frozenset({"sqrt", "rsqrt", "pow", "inverse"})
"""Operators that take a variance, once its epsilon is added, on the way to the division by its root."""


def epsilons_of_operations(operations: Sequence[Any]) -> Iterator[float]:
    """Yield the epsilons of norms, and the numbers that are added to what a root is taken of."""
    for operation in operations:
        if operation.op_type in NORMS:
            yield float(operation.epsilon.val)
        elif operation.op_type == "add" and any(
            reader.op_type in ROOTS for output in operation.outputs for reader in output.child_ops
        ):
            numbers = (operand.val for operand in (operation.x, operation.y))
            yield from (float(n) for n in numbers if n is not None and getattr(n, "size", 1) == 1)
