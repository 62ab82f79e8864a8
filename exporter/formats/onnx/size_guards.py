"""Makes an ONNX model refuse inputs whose sizes are not in its ranges (`--dynamic`).

ONNX has no assertion, and a named dimension takes any size. Each input is therefore reshaped to the nearest
sizes that are in the ranges, one axis after the other: runtimes refuse to reshape to another number of
elements, and copy nothing where it is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from exporter.records import DynamicSize, SizeRange

if TYPE_CHECKING:
    import onnx

NO_LIMIT = np.iinfo(np.int64).max


def guard_sizes_of_onnx(proto: onnx.ModelProto, sizes: Sequence[DynamicSize]) -> None:
    """Put a check of every size with a range before what reads the inputs, in place.

    Args:
        proto: A model whose inputs have these ranges.
        sizes: The ranges, with the inputs that have them.
    """
    guards = _OnnxGuards(proto.graph)
    for size in sizes:
        (first, first_axis), *others = size.places
        guards.guard_range(first, first_axis, size.range)
        for position, axis in others:  # the same range is the same size everywhere
            guards.guard_same(position, axis, (first, first_axis))
    guards.finish()


class _OnnxGuards:
    """Collects the nodes of the checks; each begins where the input's one before ended."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.names = [value.name for value in graph.input]
        self.checked = list(self.names)
        """Per input, the value that was checked last."""
        self.nodes: list[onnx.NodeProto] = []

    def guard_range(self, position: int, axis: int, allowed: SizeRange) -> None:
        """Check that one size is in its range."""
        rank = self._rank(position)

        def row(own: int, others: int) -> str:
            return self._constant([own if place == axis else others for place in range(rank)])

        highest = allowed.low + (allowed.high - allowed.low) // allowed.step * allowed.step
        steps = row(allowed.step, 1)
        lengths = self._node("Shape", self.names[position])
        lengths = self._node("Sub", lengths, row(allowed.low, 0))
        lengths = self._node("Mul", self._node("Div", lengths, steps), steps)
        lengths = self._node("Add", lengths, row(allowed.low, 0))
        lengths = self._node("Max", lengths, row(allowed.low, 0))
        self._reshape(position, self._node("Min", lengths, row(highest, NO_LIMIT)))

    def guard_same(self, position: int, axis: int, first: tuple[int, int]) -> None:
        """Check that one size is that of another input's, or of another axis."""
        rank = self._rank(position)
        other = self._node("Gather", self._node("Shape", self.names[first[0]]), self._constant([first[1]]))
        here = self._constant([int(place == axis) for place in range(rank)])
        elsewhere = self._constant([int(place != axis) for place in range(rank)])
        lengths = self._node("Mul", self._node("Shape", self.names[position]), elsewhere)
        self._reshape(position, self._node("Add", lengths, self._node("Mul", other, here)))

    def finish(self) -> None:
        """Let all nodes of the model read the checked inputs, after the checks."""
        checked = dict(zip(self.names, self.checked, strict=True))
        _read_checked_inputs(self.graph, checked)
        model = list(self.graph.node)
        del self.graph.node[:]
        self.graph.node.extend([*self.nodes, *model])

    def _rank(self, position: int) -> int:
        return len(self.graph.input[position].type.tensor_type.shape.dim)

    def _constant(self, values: list[int]) -> str:
        from onnx import numpy_helper

        name = f"sizes_{len(self.graph.initializer)}"
        self.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def _node(self, operator: str, *inputs: str) -> str:
        from onnx import helper

        name = f"check_sizes_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name))
        return name

    def _reshape(self, position: int, lengths: str) -> None:
        name = self._node("Reshape", self.checked[position], lengths)
        self.nodes[-1].name = f"refuse_sizes_of_{self.names[position]}_{len(self.nodes)}"
        checked = self.graph.value_info.add()  # a reshape to computed sizes loses those that are fixed
        checked.CopyFrom(self.graph.input[position])
        checked.name = self.checked[position] = name


def _read_checked_inputs(graph: onnx.GraphProto, checked: dict[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [checked.get(name, name) for name in node.input]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _read_checked_inputs(attribute.g, checked)
