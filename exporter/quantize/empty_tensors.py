"""Leave tensors without elements out of concatenations: a range of no values cannot be measured.

Rotary embeddings of a share of each head (Phi-3, GPT-NeoX) join what is turned and what is not; where all of
it is turned, the other is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import fx


def leave_out_empty_tensors(module: fx.GraphModule) -> None:
    """Join what has elements only, in place.

    Args:
        module: A float module from `torch.export`.
    """
    import torch

    for node in module.graph.find_nodes(op="call_function", target=torch.ops.aten.cat.default):
        tensors, *axis = node.args
        kept = [tensor for tensor in tensors if not _is_tensor_empty(tensor)]
        if len(kept) == 1 < len(tensors):
            node.replace_all_uses_with(kept[0])
        elif kept:
            node.args = (kept, *axis)
    module.graph.eliminate_dead_code()
    module.recompile()


def _is_tensor_empty(node: fx.Node) -> bool:
    """Tell whether a size is 0; one that differs from call to call is not asked."""
    return any(type(size) is int and size == 0 for size in node.meta["val"].shape)
