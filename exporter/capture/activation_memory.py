"""How much memory one call of a program takes in float64, beside its weights.

PyTorch frees a value after its last reader, and convolves in float64 by writing out the inputs of every
product (im2col). Both are read from the graph's shapes: nothing runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from exporter.capture.graph_operators import flat_graph_arguments, graph_operator, graph_operator_names

if TYPE_CHECKING:
    import torch
    from torch import fx

CONVOLUTIONS = graph_operator_names("conv1d conv2d conv3d convolution")
ATTENTION = graph_operator_names("scaled_dot_product_attention")
FLOAT64_BYTES = 8


def activation_memory_bytes(program: torch.export.ExportedProgram) -> int:
    """Return the most that values and workspaces take at once, as float64 where they are floats."""
    nodes = [node for node in program.graph.nodes if node.op in ("call_function", "placeholder")]
    stored = {*program.graph_signature.parameters, *program.graph_signature.buffers}
    weights = {spec.arg.name for spec in program.graph_signature.input_specs if spec.target in stored} | {
        *program.graph_signature.inputs_to_lifted_tensor_constants
    }
    owners = _activation_owners(nodes)
    last = _last_activation_readers(nodes, owners)
    live: dict[fx.Node, int] = {}
    most = 0
    for place, node in enumerate(nodes):
        if node.name not in weights and owners[node] is node:
            live[node] = _activation_bytes(node)
        most = max(most, sum(live.values()) + _workspace_of_activation(node))
        live = {value: size for value, size in live.items() if last[value] > place}
    return most


def _activation_owners(nodes: Sequence[fx.Node]) -> dict[fx.Node, fx.Node]:
    """Return, for each value, the one whose memory it has: itself, unless it is a view."""
    owners: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        source = next(iter(node.all_input_nodes), None) if _gives_view_of_activation(node) else None
        owners[node] = owners.get(source, node) if source else node
    return owners


def _gives_view_of_activation(node: fx.Node) -> bool:
    if getattr(node.target, "__name__", "") == "getitem":
        return True
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(result.alias_info for result in schema.returns)


def _last_activation_readers(nodes: Sequence[fx.Node], owners: dict[fx.Node, fx.Node]) -> dict[fx.Node, int]:
    """Return the place of the last reader of each value's memory; what nothing reads ends where it begins."""
    last = {node: place for place, node in enumerate(nodes)}
    for place, node in enumerate(nodes):
        for source in node.all_input_nodes:
            if source in owners:
                last[owners[source]] = place
    for node in nodes:
        if any(user.op == "output" for user in node.users):
            last[owners[node]] = len(nodes)
    return last


def _called_with_activation(node: fx.Node) -> list[fx.Node]:
    """Return the arguments of a call that are nodes, in order; one that is passed twice is there twice."""
    from torch import fx

    return [value for value in (*node.args, *node.kwargs.values()) if isinstance(value, fx.Node)]


def _activation_bytes(node: fx.Node) -> int:
    """Return what a node's results take; a size that differs from call to call is its example's."""
    import torch

    values = flat_graph_arguments([node.meta.get("val")])
    return sum(_tensor_activation_bytes(value) for value in values if isinstance(value, torch.Tensor))


def _tensor_activation_bytes(tensor: torch.Tensor) -> int:
    each = FLOAT64_BYTES if tensor.dtype.is_floating_point else tensor.dtype.itemsize
    return math.prod(_activation_sizes(tensor)) * each


def _activation_sizes(tensor: torch.Tensor) -> list[int]:
    """Return a value's sizes without fixing those that are open."""
    return [size if isinstance(size, int) else int(size.node.hint or 1) for size in tensor.shape]


def _workspace_of_activation(node: fx.Node) -> int:
    """Return what an operator takes while it computes."""
    operator = graph_operator(node)
    if operator in CONVOLUTIONS:
        return _convolution_workspace_of_activation(node)
    if operator in ATTENTION:
        query, key = (argument.meta["val"] for argument in _called_with_activation(node)[:2])
        rows = math.prod(_activation_sizes(query)[:-1])
        return 2 * FLOAT64_BYTES * rows * _activation_sizes(key)[-2]  # the scores, and their softmax
    return 0


def _convolution_workspace_of_activation(node: fx.Node) -> int:
    """Return the size of one sample's written-out inputs, for one group; of a group's results, too."""
    sources = _called_with_activation(node)
    weight, result = _activation_sizes(sources[1].meta["val"]), _activation_sizes(node.meta["val"])
    kernel, places = math.prod(weight[1:]), math.prod(result[2:])
    grouped = _activation_sizes(sources[0].meta["val"])[1] != weight[1]
    columns = 0 if math.prod(weight[2:]) == 1 else kernel * places * FLOAT64_BYTES
    return columns + (_activation_bytes(node) if grouped else 0)
