"""Reads the operators of an exported graph by their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import fx


def graph_operator_names(text: str) -> frozenset[str]:
    """Return the names of operators that a text lists."""
    return frozenset(text.split())


def graph_operator(node: fx.Node) -> str:
    """Return the name of a call's ATen operator, without its overload; empty for what is no call."""
    if node.op != "call_function":
        return ""
    name = getattr(node.target, "__name__", str(node.target))
    return name.removeprefix("aten.").partition(".")[0].rstrip("_")


def flat_graph_arguments(values: Iterable[object]) -> Iterator[object]:
    """Yield the arguments of a call, those in lists too."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from flat_graph_arguments(value)
        else:
            yield value
