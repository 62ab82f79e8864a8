"""A simple model of a core's caches: which bytes of a call come from beyond a cache of a given size. Pure.

A cache keeps what was used last. The reuse distance of a tensor is the sum of the different tensors that are
read and written from one use of it to the next, itself included; where that exceeds the cache, the tensor is
read again from beyond. Calls repeat, so that a weight's last use is one call ago. Tensors are whole: what a
kernel reads in tiles, or twice, is not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TensorUse:
    """An operator reads or writes a tensor."""

    tensor: str
    size_bytes: int


def reuse_distances(uses: Sequence[TensorUse]) -> tuple[int, ...]:
    """Return, for each use in a call, the bytes of different tensors since the use before, maybe a call ago.

    The sums of sizes by the position of each tensor's last use are a Fenwick tree, so that thousands of
    operators take milliseconds.
    """
    count = len(uses)
    tree = [0] * (2 * count + 1)
    last: dict[str, int] = {}

    def add(position: int, size: int) -> None:
        while position <= 2 * count:
            tree[position] += size
            position += position & -position

    def until(position: int) -> int:
        total = 0
        while position:
            total += tree[position]
            position -= position & -position
        return total

    distances = []
    for position, use in enumerate((*uses, *uses), 1):
        before = last.get(use.tensor)
        if before is not None:
            distances.append(until(position - 1) - until(before - 1))
            add(before, -use.size_bytes)
        else:
            distances.append(0)
        add(position, use.size_bytes)
        last[use.tensor] = position
    return tuple(distances[count:])


def missed_bytes(uses: Sequence[TensorUse], cache_bytes: float) -> int:
    """Return how many bytes of a call come from beyond a cache."""
    pairs = zip(uses, reuse_distances(uses), strict=True)
    return sum(use.size_bytes for use, distance in pairs if distance > cache_bytes)
