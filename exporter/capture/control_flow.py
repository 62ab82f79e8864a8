"""Names the operators of a program that hold programs of their own: branches, loops and maps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def control_flow_of_program(program: torch.export.ExportedProgram) -> tuple[str, ...]:
    """Return the names of the operators that branch or loop: "torch.cond", "while_loop", "map"."""
    names = dict.fromkeys(_control_flow_names(program.graph_module))
    return tuple(f"torch.{name}" if name == "cond" else name for name in names)


def _control_flow_names(module: torch.fx.GraphModule) -> Iterator[str]:
    import torch

    for each in module.modules():
        for node in each.graph.nodes if isinstance(each, torch.fx.GraphModule) else ():
            if isinstance(node.target, torch._ops.HigherOrderOperator):
                yield str(node.target).removesuffix("_impl")
