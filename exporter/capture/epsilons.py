"""Lists the epsilons that a program adds to a variance or a norm before it divides by it.

Where the variance is near 1, another epsilon changes outputs by less than half precision rounds them, so
that no comparison of outputs can tell. The number itself is in the file, and must be one of the program's:
`exporter.verify.contract` compares them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from exporter.capture.graph_operators import graph_operator

if TYPE_CHECKING:
    import torch
    from torch import fx

EPSILON = "eps"
"""What PyTorch's operators call the argument."""
LARGEST = 0.5
"""A larger addend is no epsilon."""
_ROOTS = frozenset({"sqrt", "rsqrt", "pow", "reciprocal"})


def program_epsilons(program: torch.export.ExportedProgram | None) -> tuple[float, ...] | None:
    """Return every epsilon and every other small number in the program, smallest first.

    Returns:
        None without a graph, or where the network computes an epsilon of its parameters: the file then
        holds a number that no graph shows.
    """
    if program is None:
        return None
    import torch

    graphs = [m.graph for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    nodes = [node for graph in graphs for node in graph.nodes]
    if any(_takes_computed_addend(node) for node in nodes):
        return None
    numbers = [value for node in nodes for value in _epsilons_of_node(node)]
    stored = (*program.state_dict.values(), *program.constants.values())
    numbers += [
        float(t) for t in stored if isinstance(t, torch.Tensor) and t.numel() == 1 and not t.is_complex()
    ]
    return tuple(sorted(value for value in numbers if 0 <= value <= LARGEST))


def _takes_computed_addend(node: fx.Node) -> bool:
    """Tell whether a root is taken of a sum with one number that is computed of other values."""
    if graph_operator(node) not in _ROOTS or not node.all_input_nodes:
        return False
    addition = node.all_input_nodes[0]
    operands = addition.all_input_nodes if graph_operator(addition) == "add" else []
    return any(o.op == "call_function" and getattr(o.meta.get("val"), "numel", int)() == 1 for o in operands)


def _epsilons_of_node(node: fx.Node) -> Iterator[float]:
    """Yield an operator's epsilon, and the numbers among its operands."""
    import torch

    if not isinstance(node.target, torch._ops.OpOverload):
        return
    for place, argument in enumerate(node.target._schema.arguments):
        given = (
            node.args[place]
            if place < len(node.args)
            else node.kwargs.get(argument.name, argument.default_value)
        )
        if argument.name == EPSILON and given is None:
            yield from (torch.finfo(torch.float32).eps, torch.finfo(torch.float64).eps)
        elif isinstance(given, float):
            yield given
