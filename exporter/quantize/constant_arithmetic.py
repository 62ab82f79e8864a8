"""Compute what depends on no input once, and take constant factors and terms into the layer before them.

Detectors freeze their batch norms, and write them as arithmetic: `x * (w * rsqrt(var + eps)) + …`. Quantised
step by step, a variance would keep 8 bits, as would the frequencies of a table of positions; XNNPACK even
crashes on some of these chains. A layer's own scale (`LayerScale`) is such a factor, too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from exporter.quantize.graphs import LAYERS, PRODUCTS, SUMS, graph_attribute, remove_graph_attribute

MOST_ELEMENTS = 2**18
"""A larger constant is left to be computed: it would enlarge the file."""
PREFIX = "constant_"
LARGEST_VALUE = 1e4
"""Masks hold larger values, and infinite ones; they are left as they are."""


def compute_constants(module: fx.GraphModule) -> None:
    """Replace every value that depends on no input with a stored one, and fold factors and terms, in place.

    Args:
        module: A float module from `torch.export`.
    """
    before = _names_of_stored_constants(module)
    values = _constant_values(module)
    loaded: set[fx.Node] = set()
    for node, value in values.items():
        if node.op == "get_attr" or any(source in loaded for source in node.all_input_nodes):
            loaded.add(node)
        readers = [user for user in node.users if user not in values]
        if node.op == "call_function" and readers and _is_constant_worth_storing(value, node in loaded):
            stored = _stored_before(module, node, node.name, value)
            for reader in readers:
                reader.replace_input_with(node, stored)
    for layer in [node for node in module.graph.nodes if node.target in LAYERS]:
        while _fold_what_follows(module, layer):
            pass
    module.graph.eliminate_dead_code()
    module.recompile()
    made = {name for name, _ in module.named_buffers() if name.startswith(PREFIX)}
    for name in (before | made) - _names_of_stored_constants(module):
        remove_graph_attribute(module, name)  # or it would be written into the file


def additions_of_masks(module: fx.GraphModule) -> frozenset[str]:
    """Return the names of additions of a constant mask, whose range would leave the scores no steps."""
    values = _constant_values(module)
    return frozenset(
        node.name
        for node in module.graph.nodes
        if node.target in SUMS and any(_is_mask(values.get(operand)) for operand in node.all_input_nodes)
    )


def _is_mask(value: Any) -> bool:
    return (
        isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 0 and not _is_small(value)
    )


def _is_small(value: Tensor) -> bool:
    return bool(value.abs().max() < LARGEST_VALUE)  # NaN is not


def _names_of_stored_constants(module: fx.GraphModule) -> set[str]:
    return {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}


def _constant_values(module: fx.GraphModule) -> dict[fx.Node, Any]:
    """Compute the nodes that depend on no input and draw nothing; stored tensors are among them."""
    values: dict[fx.Node, Any] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            value = graph_attribute(module, str(node.target))
            if isinstance(value, Tensor):  # of `cond` it is a graph
                values[node] = value.detach()
        elif _is_constant_node(node, values):
            arguments, keywords = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            with torch.no_grad():
                values[node] = node.target(*arguments, **keywords)
    return values


def _is_constant_node(node: fx.Node, values: dict[fx.Node, Any]) -> bool:
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    if torch.Tag.nondeterministic_seeded in node.target.tags or node.target in LAYERS:
        return False  # a layer's weights must be found in the file
    near = (node, *node.all_input_nodes, *(user for source in node.all_input_nodes for user in source.users))
    changed = any(_changes_its_argument(other) for other in (*near, *node.users))
    return not changed and all(source in values for source in node.all_input_nodes)


def _changes_its_argument(node: fx.Node) -> bool:
    return bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))


def _is_constant_worth_storing(value: Any, loaded: bool) -> bool:
    """Return whether a value is a float tensor, and neither a mask nor large.

    One number everywhere is made and not stored, such as an initial state of zeros, unless stored tensors
    happen to give it: the variances of a batch norm that was never trained.

    Args:
        value: What a node computes.
        loaded: Whether it depends on a stored tensor.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return False
    if not 0 < value.numel() <= MOST_ELEMENTS or not _is_small(value):
        return False
    return loaded or value.numel() == 1 or bool(value.min() < value.max())


def _stored_before(module: fx.GraphModule, place: fx.Node, name: str, value: Tensor) -> fx.Node:
    name = f"{PREFIX}{name}"
    module.register_buffer(name, value.contiguous().clone())
    with module.graph.inserting_before(place):
        node = module.graph.get_attr(name)
    node.meta["val"] = value
    return node


def _fold_what_follows(module: fx.GraphModule, layer: fx.Node) -> bool:
    """Fold a factor or a term of each output channel behind a layer into it, if there is one."""
    weight, bias = layer.args[1], layer.args[2] if len(layer.args) > 2 else None
    after = next(iter(layer.users)) if len(layer.users) == 1 else None
    stored = all(isinstance(node, fx.Node) and node.op == "get_attr" for node in (weight, bias) if node)
    if after is None or after.target not in (*PRODUCTS, *SUMS) or not stored or after.kwargs:
        return False
    assert isinstance(weight, fx.Node)
    own = graph_attribute(module, str(weight.target)).detach()
    constant = _constant_of_channels(module, own, after.args[1] if after.args[0] is layer else after.args[0])
    if constant is None:
        return False
    term = (
        graph_attribute(module, str(bias.target)).detach()
        if isinstance(bias, fx.Node)
        else torch.zeros_like(constant)
    )
    if after.target in PRODUCTS:
        scaled = own * constant.reshape(-1, *(1 for _ in own.shape[1:]))
        weight, term = _stored_before(module, layer, f"{after.name}_weight", scaled), term * constant
    else:
        term = term + constant
    own_bias = _stored_before(module, layer, f"{after.name}_bias", term)
    layer.args = (layer.args[0], weight, own_bias, *layer.args[3:])
    after.replace_all_uses_with(layer)
    module.graph.erase_node(after)
    return True


def _constant_of_channels(module: fx.GraphModule, weight: Tensor, other: Any) -> Tensor | None:
    """Return a stored operand's value for each output channel; None if it has more, or is computed."""
    if not isinstance(other, fx.Node) or other.op != "get_attr":
        return None
    constant, behind = graph_attribute(module, str(other.target)).detach(), weight.dim() - 2
    channels = len(weight)
    if constant.numel() == 1:
        return constant.reshape(1).expand(channels)
    if constant.numel() == channels and constant.dim() > behind and constant.shape[-behind - 1] == channels:
        return constant.reshape(channels)
    return None
