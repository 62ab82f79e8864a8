"""Gives operators that only move values one quantisation before and after: nothing is rounded twice.

A slice of a quantised tensor whose reader was given a range of its own would be rounded a second time, and
XNNPACK refuses to run such a slice at all: it copies bytes.
"""

from __future__ import annotations

from typing import Any

from torch import fx

from exporter.quantize.graphs import DEQUANTIZE, QUANTIZE, aten

MOVES = frozenset(
    {
        "slice",
        "select",
        "narrow",
        "chunk",
        "split",
        "split_with_sizes",
        "unbind",
        "view",
        "reshape",
        "flatten",
        "permute",
        "transpose",
        "t",
        "squeeze",
        "unsqueeze",
        "expand",
        "contiguous",
        "clone",
        "max_pool2d",
        "getitem",
    }
)
"""Operators whose outputs hold nothing but values of their first argument."""
PADS = frozenset({"pad", "constant_pad_nd"})
"""Operators that add a border. Zero is on every grid of int8, so that a border of zeros is a move as well."""


def share_quantisation_of_data_movement(module: fx.GraphModule) -> int:
    """Quantise what only moves values as its input was, in place.

    Args:
        module: As PT2E converted it.

    Returns:
        How many quantisers changed.
    """
    changed = 0
    for node in module.graph.nodes:
        if node.target is not QUANTIZE:
            continue
        source = _data_movement_source(node.args[0])
        if source is None or source.args[1:] == node.args[1:]:
            continue
        for each in (node, *(user for user in node.users if user.target is DEQUANTIZE)):
            each.args = (each.args[0], *source.args[1:])
        changed += 1
    for node in list(module.graph.nodes):
        _join_on_one_grid(module.graph, node)
    for node in list(module.graph.nodes):
        _close_data_movement(module.graph, node)
    for node in list(module.graph.nodes):
        _open_scalar(module.graph, node)
    module.recompile()
    return changed


def _join_on_one_grid(graph: fx.Graph, node: fx.Node) -> None:
    """Round the parts of a concatenation anew where they came to have another quantisation than it.

    XNNPACK copies bytes there as well. A part that was moved has its source's range.
    """
    after = next(iter(node.users)) if len(node.users) == 1 else None
    if node.target is not aten.cat.default or after is None or after.target is not QUANTIZE:
        return
    for part in node.all_input_nodes:
        if part.target is not DEQUANTIZE or part.args[1:] == after.args[1:]:
            continue
        with graph.inserting_after(part):
            quantised = graph.call_function(QUANTIZE, (part, *after.args[1:]))
        with graph.inserting_after(quantised):
            restored = graph.call_function(DEQUANTIZE, (quantised, *after.args[1:]))
        for new in (quantised, restored):
            new.meta = dict(part.meta)
        node.replace_input_with(part, restored)


def _open_scalar(graph: fx.Graph, node: fx.Node) -> None:
    """Take the quantisation from a moved value without an axis: XNNPACK has no such quantised tensors.

    No value changes: it is on its source's grid.
    """
    quantised = node.args[0] if node.target is DEQUANTIZE else None
    if not isinstance(quantised, fx.Node) or quantised.target is not QUANTIZE:
        return
    moved = quantised.args[0]
    if not isinstance(moved, fx.Node) or _data_movement_source(moved) is None:
        return
    if getattr(moved.meta.get("val"), "ndim", None) != 0:
        return
    node.replace_all_uses_with(moved)
    graph.erase_node(node)
    if not quantised.users:
        graph.erase_node(quantised)


def _close_data_movement(graph: fx.Graph, node: fx.Node) -> None:
    """Quantise moved values as their source before an operator that is not quantised reads them.

    XNNPACK refuses a slice of quantised values whose output is float, and a border that no quantiser follows.
    No value changes: all of them are on the source's grid.
    """
    source = _data_movement_source(node)
    moves_on = is_data_movement if not _is_pad(node) else lambda _: False
    readers = [user for user in node.users if user.target is not QUANTIZE and not moves_on(user)]
    if source is None or not readers or not hasattr(node.meta.get("val"), "dtype"):
        return
    with graph.inserting_after(node):
        quantised = graph.call_function(QUANTIZE, (node, *source.args[1:]))
    with graph.inserting_after(quantised):
        restored = graph.call_function(DEQUANTIZE, (quantised, *source.args[1:]))
    quantised.meta = {**node.meta, "val": node.meta["val"].to(source.args[-1])}
    restored.meta = dict(node.meta)
    for reader in readers:
        reader.replace_input_with(node, restored)


def _data_movement_source(node: fx.Node) -> fx.Node | None:
    """Return the dequantiser that a value comes from by moves alone, at least one."""
    moves = 0
    while is_data_movement(node):
        node, moves = node.args[0], moves + 1  # type: ignore[assignment]
    return node if moves and node.target is DEQUANTIZE else None


def is_data_movement(node: fx.Node) -> bool:
    """Return whether a node's output holds nothing but values of its first argument, and zeros."""
    name = getattr(node.target, "_opname", getattr(node.target, "__name__", ""))
    return (
        node.op == "call_function"
        and (name in MOVES or (_is_pad(node) and _pads_with_zeros(node)))
        and isinstance(node.args[0], fx.Node)
    )


def _is_pad(node: fx.Node) -> bool:
    return getattr(node.target, "_opname", "") in PADS


def _pads_with_zeros(node: fx.Node) -> bool:
    """Tell whether a border is of zeros: `pad(x, sizes, mode, value)`, `constant_pad_nd(x, sizes, value)`."""
    given: dict[int | str, Any] = {**dict(enumerate(node.args))}
    given.update(node.kwargs)
    if getattr(node.target, "_opname", "") == "constant_pad_nd":
        return not given.get(2, given.get("value", 0))
    constant = given.get(2, given.get("mode", "constant")) == "constant"
    return constant and not given.get(3, given.get("value"))
