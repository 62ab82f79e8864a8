"""Finds batch norms that compute with the statistics of their own batch, as in training."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from exporter.capture.lowering_errors import lowering_error_source_in_text

if TYPE_CHECKING:
    import torch
    from torch import fx

FLAGS = ("training", "train")
"""What PyTorch's batch norms call the argument."""


class BatchStatistics(NamedTuple):
    """A batch norm that computes with its own batch's statistics."""

    source: str | None
    """The line of the network that calls it; None where it is not known."""


def batch_statistics_of_program(program: torch.export.ExportedProgram | None) -> BatchStatistics | None:
    """Return the first batch norm in training mode; None without one, or without a graph.

    Compilers drop the argument in silence: the file would compute with running statistics.
    """
    nodes = program.graph.nodes if program is not None else ()
    norm = next((node for node in nodes if _uses_batch_statistics(node)), None)
    return norm and BatchStatistics(lowering_error_source_in_text(norm.stack_trace or ""))


def _uses_batch_statistics(node: fx.Node) -> bool:
    import torch

    if not isinstance(node.target, torch._ops.OpOverload) or "batch_norm" not in node.target._schema.name:
        return False
    arguments = [argument.name for argument in node.target._schema.arguments]
    place = next((arguments.index(flag) for flag in FLAGS if flag in arguments), None)
    if place is None:
        return "with_update" in node.target._schema.name
    return (node.args[place] if place < len(node.args) else node.kwargs.get(arguments[place])) is True
