"""Find what resizes a photo before a network: it computes with places up to the photo's side."""

from __future__ import annotations

from torch import fx

RESIZE = "exporter.capture.photo_resize.PhotoResize"


def float_head(module: fx.GraphModule) -> frozenset[str]:
    """Return the names of the operators of `PhotoResize`, which 8 bits cannot count for.

    Args:
        module: A float module from `torch.export`, which says of each operator what module it is in.
    """
    return frozenset(
        node.name
        for node in module.graph.nodes
        if any(kind == RESIZE for _, kind in (node.meta.get("nn_module_stack") or {}).values())
    )
