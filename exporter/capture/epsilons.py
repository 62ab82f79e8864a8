"""Lists the epsilons that a program adds to a variance or a norm before it divides by it.

Where the variance is near 1, another epsilon changes outputs by less than half precision rounds them, so
that no comparison of outputs can tell. The number itself is in the file, and must be one of the program's:
`exporter.verify.contract` compares them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import fx

EPSILON = "eps"
"""What PyTorch's operators call the argument."""
LARGEST = 0.5
"""A larger addend is no epsilon."""


def program_epsilons(program: torch.export.ExportedProgram | None) -> tuple[float, ...] | None:
    """Return every epsilon and every small number that is added, smallest first; None without a graph.

    A number that the program computes of constants (a buffer, a parameter) counts where it is a scalar.
    """
    if program is None:
        return None
    import torch

    modules = [m for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    numbers = [
        value for module in modules for node in module.graph.nodes for value in _epsilons_of_node(node)
    ]
    stored = (*program.state_dict.values(), *program.constants.values())
    numbers += [
        float(t) for t in stored if isinstance(t, torch.Tensor) and t.numel() == 1 and not t.is_complex()
    ]
    return tuple(sorted(value for value in numbers if 0 < value <= LARGEST))


def _epsilons_of_node(node: fx.Node) -> Iterator[float]:
    """Yield an operator's epsilon, and the numbers among its operands."""
    import torch

    if not isinstance(node.target, torch._ops.OpOverload):
        return
    arguments = node.target._schema.arguments
    for place, argument in enumerate(arguments):
        given = (
            node.args[place]
            if place < len(node.args)
            else node.kwargs.get(argument.name, argument.default_value)
        )
        if argument.name == EPSILON and given is None:
            yield from (torch.finfo(torch.float32).eps, torch.finfo(torch.float64).eps)
        elif isinstance(given, float):
            yield given
