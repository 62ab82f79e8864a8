"""Makes a `.ptl` refuse inputs whose sizes are not in its ranges (`--dynamic`): a trace checks none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from exporter.records import DynamicSize

if TYPE_CHECKING:
    import torch


def guard_sizes_of_torchscript(script: torch.jit.ScriptModule, sizes: Sequence[DynamicSize]) -> None:
    """Let a module first raise an error, naming the axis, for a size that is not in its range.

    Args:
        script: The finished module, whose graph is changed.
        sizes: The ranges, with the inputs that have them; without any, the graph stays as it is.
    """
    import torch

    if not sizes:
        return
    graph = script.graph
    inputs = list(graph.inputs())[1:]  # after the module itself
    names = ", ".join(f"x{position}" for position in range(len(inputs)))
    body = "\n".join(f"    {line}" for size in sizes for line in _size_check_lines(size))
    checks = torch.jit.CompilationUnit(f"def check_sizes({names}):\n{body}\n")
    with graph.insert_point_guard(next(iter(graph.nodes()))):
        graph.insertGraph(checks.check_sizes.graph, inputs)


def _size_check_lines(size: DynamicSize) -> Iterator[str]:
    (position, axis), *others = size.places
    own, low, high, step = f"x{position}.size({axis})", size.range.low, size.range.high, size.range.step
    steps = f" or ({own} - {low}) % {step} != 0" if step > 1 else ""
    text = f"{low} to {high}" + (f" in steps of {step}" if step > 1 else "")
    yield f"if {own} < {low} or {own} > {high}{steps}:"
    yield f"    raise RuntimeError('axis {axis} of input {position} must be {text}')"
    for other, other_axis in others:  # the same range is the same size everywhere
        yield f"if x{other}.size({other_axis}) != {own}:"
        same = f"axis {other_axis} of input {other} must be as long as axis {axis} of input {position}"
        yield f"    raise RuntimeError('{same}')"
