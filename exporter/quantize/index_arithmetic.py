"""Find arithmetic in float that ends in whole numbers: 8 bits would give other rows of a table, or none.

T5's and DeBERTa's attention looks up how far two tokens are apart, in steps that grow with the distance:
a logarithm, scaled and cut off to a row of a table. Rounded to 256 values, a distance of 0, whose logarithm
is minus infinity, leaves no steps for the others, and rows come out that the table does not have.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from exporter.quantize.graphs import LAYERS, aten

TABLES = (aten.embedding.default,)


def index_arithmetic(module: fx.GraphModule) -> frozenset[str]:
    """Return the names of the float operators that no layer is before, and that only whole numbers depend on.

    Args:
        module: A float module from `torch.export`.
    """
    behind: set[fx.Node] = set()
    for node in module.graph.nodes:
        if node.target in (*LAYERS, *TABLES) or any(source in behind for source in node.all_input_nodes):
            behind.add(node)
    found: set[fx.Node] = set()
    for node in reversed(module.graph.nodes):
        readers = [user for user in node.users if user.users or user.op == "output"]  # others assert its type
        plain = node.op == "call_function" and node not in behind and _is_float(node)
        if plain and readers and all(user in found or _is_whole(user) for user in readers):
            found.add(node)
    return frozenset(node.name for node in found)


def _is_float(node: fx.Node) -> bool:
    value: Any = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()


def _is_whole(node: fx.Node) -> bool:
    """Return whether a node gives whole numbers or truth values."""
    value: Any = node.meta.get("val")
    return isinstance(value, Tensor) and not value.is_floating_point() and not value.is_complex()
