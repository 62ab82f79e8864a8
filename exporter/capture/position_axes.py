"""Finds the axes of outputs along which every position is computed alike: a score map's height and width.

The weights of a convolution are the same for every position, so that a column of its output is no quantity of
its own: what it shows in a few samples is the samples' doing. A class of scores, which has weights of its
own, is one. Values look the same in both; the graph tells the two apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from math import prod
from operator import mul
from typing import TYPE_CHECKING, Any

from exporter.capture.graph_operators import flat_graph_arguments, graph_operator, graph_operator_names

if TYPE_CHECKING:
    import torch
    from torch import fx

Axes = frozenset[int]
NONE: Axes = frozenset()

_CONVOLVES = graph_operator_names(
    "conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d"
)
_KEEPS = graph_operator_names(
    "batch_norm _native_batch_norm_legit_no_training group_norm instance_norm dropout clone contiguous "
    "detach alias to _to_copy slice split split_with_sizes chunk expand constant_pad_nd pad reflection_pad2d "
    "replication_pad2d "
    "avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d max_pool2d_with_indices pixel_shuffle "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d upsample_bicubic2d "
    "_upsample_bilinear2d_aa getitem linear layer_norm softmax _softmax log_softmax _log_softmax cumsum"
)
"""Operators whose result has their first operand's positions, but for those of `_axes_mixed_by_position`."""
_RESHAPES = graph_operator_names("view reshape flatten unflatten _unsafe_view")


def position_axes(program: torch.export.ExportedProgram | None) -> tuple[tuple[int, ...], ...]:
    """Return each output's axes along which every position is computed alike; empty without a graph."""
    if program is None:
        return ()
    nodes = {node.name: node for node in program.graph.output_node().all_input_nodes}
    known: dict[fx.Node, Axes] = {}
    for node in program.graph.nodes:  # in order: what a call reads comes before it
        known[node] = _position_axes_of(node, known)
    names = [name for name in program.graph_signature.user_outputs if isinstance(name, str)]
    return tuple(tuple(sorted(known[nodes[name]])) if name in nodes else () for name in names)


def _position_axes_of(node: fx.Node, known: Mapping[fx.Node, Axes]) -> Axes:
    operator, operands = graph_operator(node), node.all_input_nodes
    if not operator or not operands:
        return NONE
    first = known[operands[0]]
    if operator in _CONVOLVES:
        return frozenset(range(2, _position_rank(node)))
    if operator == "getitem":
        return first
    if operator in _KEEPS:
        return first - _axes_mixed_by_position(node, operator)
    if operator in _RESHAPES:
        return _position_axes_reshaped(first, _position_shape(operands[0]), _position_shape(node))
    if operator in _MOVES:
        return _MOVES[operator](node, first)
    if operator in {"cat", "stack"}:
        return _position_axes_joined(node, operator, known)
    return _position_axes_of_pointwise(node, known)


def _position_shape(node: fx.Node) -> tuple[int, ...]:
    """Return the sizes of a call's first result; open sizes are those of the example, or 0."""
    from exporter.quantize.graphs import example_sizes_in_graph

    value = node.meta.get("val")
    first = next((each for each in flat_graph_arguments([value]) if hasattr(each, "shape")), None)
    return () if first is None else example_sizes_in_graph(first.shape)


def _position_rank(node: fx.Node) -> int:
    return len(_position_shape(node))


def _positive_position(axis: Any, rank: int) -> int:
    return int(axis) % rank if rank else 0


def _axes_mixed_by_position(node: fx.Node, operator: str) -> Axes:
    """Return the axes along which an operator that keeps the others does not treat positions alike."""
    rank = _position_rank(node)
    if operator == "linear":
        return frozenset({rank - 1})
    if operator == "layer_norm":
        normalized = node.args[1]
        assert isinstance(normalized, (list, tuple))
        return frozenset(range(rank - len(normalized), rank))
    if operator in {"softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum"}:
        return frozenset({_positive_position(node.args[1], rank)})
    if operator == "expand":
        before = _position_shape(node.all_input_nodes[0])
        return frozenset(range(rank)) if before != _position_shape(node) else NONE
    return NONE


def _position_axes_permuted(node: fx.Node, axes: Axes) -> Axes:
    order = node.args[1]
    assert isinstance(order, (list, tuple))
    rank = _position_rank(node)
    return frozenset(new for new, old in enumerate(order) if _positive_position(old, rank) in axes)


def _position_axes_transposed(node: fx.Node, axes: Axes) -> Axes:
    rank = _position_rank(node)
    one, other = (_positive_position(axis, rank) for axis in node.args[1:3])
    swapped = {one: other, other: one}
    return frozenset(swapped.get(axis, axis) for axis in axes)


def _position_axes_unsqueezed(node: fx.Node, axes: Axes) -> Axes:
    new = _positive_position(node.args[1], _position_rank(node))
    return frozenset(axis + (axis >= new) for axis in axes)


def _position_axes_reduced(node: fx.Node, axes: Axes) -> Axes:
    """Map axes through an operator that leaves some of them out, or keeps them with size 1."""
    rank = _position_rank(node.all_input_nodes[0])
    given = node.args[1] if len(node.args) > 1 else None
    dims = list(range(rank)) if given is None else given if isinstance(given, (list, tuple)) else [given]
    gone = {_positive_position(dim, rank) for dim in dims}
    if _position_rank(node) == rank:
        return axes - gone
    left = [axis for axis in range(rank) if axis not in gone]
    return frozenset(new for new, old in enumerate(left) if old in axes)


_MOVES: Mapping[str, Callable[[fx.Node, Axes], Axes]] = {
    "permute": _position_axes_permuted,
    "transpose": _position_axes_transposed,
    "unsqueeze": _position_axes_unsqueezed,
    "squeeze": _position_axes_reduced,
    "select": _position_axes_reduced,
    "mean": _position_axes_reduced,
    "sum": _position_axes_reduced,
    "amax": _position_axes_reduced,
}


def _position_axes_joined(node: fx.Node, operator: str, known: Mapping[fx.Node, Axes]) -> Axes:
    """Return the positions that all parts have; parts themselves may have weights of their own."""
    rank = _position_rank(node)
    dim = _positive_position(node.args[1] if len(node.args) > 1 else 0, rank)
    shared = frozenset.intersection(*(known[part] for part in node.all_input_nodes))
    if operator == "stack":
        return frozenset(axis + (axis >= dim) for axis in shared)
    return shared - {dim}


def _position_axes_of_pointwise(node: fx.Node, known: Mapping[fx.Node, Axes]) -> Axes:
    """Return the axes that are positions in every operand that has more than one value along them."""
    import torch

    if torch.Tag.pointwise not in getattr(node.target, "tags", ()):
        return NONE
    rank = _position_rank(node)
    axes, others = set(), set()
    for operand in node.all_input_nodes:
        shape = _position_shape(operand)
        for axis, size in enumerate(shape, start=rank - len(shape)):
            if axis - rank + len(shape) in known[operand]:
                axes.add(axis)
            elif size != 1:
                others.add(axis)
    return frozenset(axes - others)


def _position_axes_reshaped(axes: Axes, before: tuple[int, ...], after: tuple[int, ...]) -> Axes:
    """Map axes through a change of shape: merged or divided axes are positions where all of them are."""
    mapped: set[int] = set()
    for old, new in _reshaped_position_runs(before, after):
        if all(axis in axes or before[axis] == 1 for axis in old) and any(axis in axes for axis in old):
            mapped |= set(new)
    return frozenset(mapped)


def _reshaped_position_runs(before: tuple[int, ...], after: tuple[int, ...]) -> Iterator[tuple[range, range]]:
    """Yield the shortest runs of axes of both shapes that hold the same values."""
    if 0 in before or 0 in after or prod(before) != prod(after):
        return
    ends_before, ends_after = (list(accumulate(shape, mul)) for shape in (before, after))
    start_before = start_after = 0
    for end in sorted({*ends_before} & {*ends_after}):
        stop_before = len(ends_before) - ends_before[::-1].index(end)
        stop_after = len(ends_after) - ends_after[::-1].index(end)
        yield range(start_before, stop_before), range(start_after, stop_after)
        start_before, start_after = stop_before, stop_after
