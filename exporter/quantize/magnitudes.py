"""Find magnitudes, the root of a sum of squares: 8 bits of squares hold half the decibels of what is squared.

A spectrogram's bands are quiet or loud. A step of their squares is as large as all that is quieter than a
sixteenth of the loudest, so that a network of speech hears noise between words. The arithmetic is cheap, and
what goes into it and comes out of it is rounded as ever.
"""

from __future__ import annotations

from torch import fx

from exporter.quantize.graphs import PRODUCTS, SUMS, aten

ROOTS = (aten.sqrt.default, aten.sqrt_.default)


def magnitudes(module: fx.GraphModule) -> frozenset[str]:
    """Return the names of the operators that compute magnitudes.

    Args:
        module: A float module from `torch.export`.
    """
    names: set[str] = set()
    for root in (node for node in module.graph.nodes if node.target in ROOTS):
        total = root.all_input_nodes[0]
        squares = [node for node in total.all_input_nodes if _is_square(node)]
        if total.target in SUMS and squares and len(squares) == len(total.all_input_nodes):
            names |= {node.name for node in (root, total, *squares)}
    return frozenset(names)


def _is_square(node: fx.Node) -> bool:
    if node.target is aten.pow.Tensor_Scalar:
        return bool(node.args[1] == 2)
    return node.target is aten.square.default or (node.target in PRODUCTS and node.args[0] is node.args[1])
