"""Predict how far a network's outputs reach on scenes that calibration did not show.

The largest output is the answer: a class or a box. Where it is clipped, the two likeliest classes become one
number, and the first of them wins. Decibels hardly show it, as it is one value of a thousand. So an output is
never clipped to less than was seen, and its range holds the furthest of `SCENES_AHEAD` scenes if what scenes
reach falls off like an exponential distribution. For MobileNetV2's classes, sixty scenes add a tenth, and
eight two fifths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import fx

    from exporter.quantize.activation_ranges import Parts, RangeObserver

SCENES_AHEAD = 128
"""The number of scenes, with those of calibration, that an output's range is to hold."""

MOST = 2.0
"""The largest factor: one bit of eight."""


def returned_tensors(prepared: fx.GraphModule) -> frozenset[fx.Node]:
    """Return the tensors that a prepared module returns, before observers and moves of values."""
    from exporter.quantize.data_movement import is_data_movement

    tensors: set[fx.Node] = set()
    left = [node for node in prepared.graph.nodes if node.op == "output"]
    while left:
        for node in left.pop().all_input_nodes:
            tensors.add(node)
            if node.op == "call_module" or is_data_movement(node):
                left.append(node)
    return frozenset(tensors)


def reach_of_outputs(observers: Sequence[RangeObserver], scenes: Sequence[int]) -> Parts:
    """Return the factors of the lower and of the upper end of an output's observed range.

    Args:
        observers: Those of the output; they have seen a sample of each of `scenes`, in order.
        scenes: The scene of each sample.
    """
    furthest: dict[int, list[float]] = {}
    for observer in observers:
        for call, (low, high) in enumerate(observer.extremes):
            ends = furthest.setdefault(scenes[call * len(scenes) // len(observer.extremes)], [0.0, 0.0])
            ends[:] = max(ends[0], -float(low)), max(ends[1], float(high))
    lower, upper = zip(*furthest.values(), strict=True) if furthest else ((), ())
    return _factor_of_reach(lower), _factor_of_reach(upper)


def _factor_of_reach(reached: Sequence[float]) -> float:
    """Return the expected reach of the furthest of `SCENES_AHEAD` scenes, as a multiple of what was seen.

    The furthest of n exponential values is expected 1/2 + 1/3 + ... + 1/n deviations beyond their mean.
    """
    count = len(reached)
    if count < 2 or max(reached) <= 0:
        return 1.0
    beyond_mean = sum(1 / n for n in range(2, count + 1))
    ahead = sum(1 / n for n in range(count + 1, SCENES_AHEAD + 1))
    share = 1 - sum(reached) / count / max(reached)
    return min(MOST, 1 + share * ahead / beyond_mean)
