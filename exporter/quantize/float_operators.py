"""Names the operators that stay in float in an int8 program, because 8 bits would lose what they compute.

Each search has a module of its own, which says why. One that is added goes into the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, fx

from exporter.quantize.constant_arithmetic import additions_of_masks
from exporter.quantize.float_head import float_head
from exporter.quantize.float_tail import float_tail
from exporter.quantize.index_arithmetic import index_arithmetic
from exporter.quantize.magnitudes import magnitudes

SEARCHES: tuple[Callable[[fx.GraphModule], frozenset[str]], ...] = (
    float_head,
    magnitudes,
    additions_of_masks,
    index_arithmetic,
)
"""What finds such operators in a graph alone."""


def operators_in_float(module: fx.GraphModule, samples: Sequence[tuple[Tensor, ...]]) -> frozenset[str]:
    """Return the names of these operators.

    Args:
        module: A float module from `torch.export`.
        samples: One call of the model each: the tail's parts are told by how far they reach.
    """
    return float_tail(module, samples).union(*(search(module) for search in SEARCHES))
