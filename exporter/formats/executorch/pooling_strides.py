"""Writes out the strides of max pooling, which XNNPACK's partitioner expects to be given."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

KERNEL, STRIDE = 1, 2
"""Places of the arguments of `aten::max_pool2d`."""


def write_pooling_strides(module: torch.fx.GraphModule) -> None:
    """Give every max pooling without strides those that it has by default, its kernel's sizes, in place."""
    import torch

    for node in module.graph.nodes:
        if node.target is torch.ops.aten.max_pool2d.default and len(node.args) == STRIDE:
            node.args = (*node.args, node.args[KERNEL])
    module.recompile()
