"""Finds the outputs that hold what a sigmoid gives: runtimes compute it to a unit in the last place of 1.

PyTorch's sigmoid is exact to the last place of the value itself. ONNX Runtime's is 0.5 plus a fraction: its
error is up to 1.1e-7 for any score, which is a tenth of one of 1e-6. Neither is a fault. A detector that
is not trained has such scores alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.capture.graph_operators import flat_graph_arguments, graph_operator, graph_operator_names

if TYPE_CHECKING:
    import torch
    from torch import fx

ERROR = 2.0**-24
"""The error of a sigmoid near zero: half a unit in the last place of 1."""
_MOVES = graph_operator_names(
    "view reshape flatten unflatten permute transpose squeeze unsqueeze expand clone contiguous detach alias "
    "to _to_copy dropout slice select getitem cat stack split split_with_sizes chunk max amax topk sort "
    "index gather min amin mean _assert_tensor_metadata"
)
"""Operators that hand on values of their operands as they are, or a mean of them: no error grows."""
_BOUNDED = ("sigmoid", "tanh")
"""Operators whose values are at most 1: a product with them has no larger error."""


def outputs_of_sigmoids(program: torch.export.ExportedProgram | None) -> tuple[bool, ...]:
    """Tell for each output whether it holds what a sigmoid gives; empty without a graph."""
    if program is None:
        return ()
    nodes = {node.name: node for node in program.graph.output_node().all_input_nodes}
    names = [name for name in program.graph_signature.user_outputs if isinstance(name, str)]
    return tuple(name in nodes and _holds_sigmoid(nodes[name]) for name in names)


def _holds_sigmoid(output: fx.Node) -> bool:
    from torch.fx import Node

    waiting, seen = [output], {output}
    while waiting:
        node = waiting.pop()
        operator = graph_operator(node)
        if operator == "sigmoid" or (operator == "mul" and _multiplies_sigmoid(node)):
            return True
        if operator in _MOVES:
            operands = {each for each in flat_graph_arguments(node.args) if isinstance(each, Node)}
            waiting += operands - seen
            seen |= operands
    return False


def _multiplies_sigmoid(product: fx.Node) -> bool:
    """Tell whether a sigmoid is multiplied with another or a tanh, as the gate of an LSTM's output is."""
    operators = [graph_operator(node) for node in product.all_input_nodes]
    two = len(operators) == 2  # with a number, it may be scaled
    return two and "sigmoid" in operators and all(operator in _BOUNDED for operator in operators)
