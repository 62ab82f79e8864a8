"""Gives every attention the four dimensions that PyTorch's translation to ONNX takes.

`scaled_dot_product_attention` takes any number of dimensions before the last two, such as Hiera's
[photos, heads, windows, length, width]; the translation refuses all but [batch, heads, length, width].
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.fx import Graph, Node

DIMENSIONS = 4


def give_attention_four_dimensions(program: torch.export.ExportedProgram) -> None:
    """Reshape the inputs and the output of attention over more or fewer dimensions, in place.

    What has dimensions that differ, or sizes that are not fixed, is left to PyTorch.
    """
    import torch

    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten.scaled_dot_product_attention.default:
            _give_one_attention_four_dimensions(program.graph, node)
    program.graph_module.recompile()


def _give_one_attention_four_dimensions(graph: Graph, node: Node) -> None:
    matrices: list[Any] = list(node.args[:3])
    shapes = [_attention_shape(value) for value in matrices]
    before = {shape[:-2] for shape in shapes}
    if len(before) != 1 or len(shapes[0]) == DIMENSIONS or not _are_attention_sizes_fixed(shapes):
        return
    (outer,) = before
    mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
    masked = _attention_shape(mask) if mask is not None else ()
    if not _are_attention_sizes_fixed([masked]):
        return
    joined = (math.prod(outer[:-1]), outer[-1] if outer else 1)
    with graph.inserting_before(node):
        for place, value in enumerate(matrices):
            matrices[place] = _attention_call(graph, "reshape", value, [*joined, *shapes[place][-2:]])
        arguments: list[Any] = [*matrices, *node.args[3:]]
        options = dict(node.kwargs)
        if len(masked) > 2:
            whole = _attention_call(graph, "expand", mask, [*outer, *masked[-2:]])
            four = _attention_call(graph, "reshape", whole, [*joined, *masked[-2:]])
            if len(node.args) > 3:
                arguments[3] = four
            else:
                options["attn_mask"] = four
    result = node.meta["val"]
    node.args, node.kwargs = tuple(arguments), options
    node.meta["val"] = result.reshape([*joined, *result.shape[-2:]])
    with graph.inserting_after(node):
        restored = _attention_call(graph, "reshape", node, list(result.shape))
    node.replace_all_uses_with(restored, delete_user_cb=lambda user: user is not restored)


def _attention_shape(value: Any) -> tuple[Any, ...]:
    return tuple(value.meta["val"].shape)


def _are_attention_sizes_fixed(shapes: list[tuple[Any, ...]]) -> bool:
    return all(type(size) is int for shape in shapes for size in shape)


def _attention_call(graph: Graph, name: str, value: Any, sizes: list[Any]) -> Node:
    """Insert a call of an operator that takes sizes, with the value that it gives."""
    import torch

    operator = getattr(torch.ops.aten, name).default
    call = graph.call_function(operator, (value, sizes))
    call.meta["val"] = operator(value.meta["val"], sizes)
    return call
