"""Measure the latency of one call against another's while other work on the machine comes and goes.

Short blocks of both take turns in one process, in alternating order. A pair's two blocks are neighbours in
time, so the ratio is the median over the pairs, with the quartiles of the pairs' ratios.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles

Call = Callable[[], object]
BLOCK_NS = 40_000_000
"""A block is at least this long, and at least `BLOCK_CALLS` calls."""
BLOCK_CALLS = 5
WARMUP_NS = 200_000_000


@dataclass(frozen=True)
class Paired:
    """Latencies in milliseconds, and their ratio."""

    ms: float
    other_ms: float
    ratio: float
    """The median over the pairs of `ms` / `other_ms`."""
    quartiles: tuple[float, float]
    pairs: int
    threads: int


def compare(call: Call, other: Call, pairs: int, threads: int) -> Paired:
    """Time both calls in turn.

    Args:
        call: What is judged.
        other: What it is judged against.
        pairs: At least 2.
        threads: What both were loaded with: only recorded here.
    """
    for each in (call, other):
        _block(each, WARMUP_NS)
    blocks = [_pair(call, other, swapped=bool(turn % 2)) for turn in range(pairs)]
    low, ratio, high = quantiles((a / b for a, b in blocks), n=4, method="inclusive")
    ours, theirs = (median(column) for column in zip(*blocks, strict=True))
    return Paired(ours, theirs, ratio, (low, high), pairs, threads)


def _pair(call: Call, other: Call, swapped: bool) -> tuple[float, float]:
    """Measure a block of each; the order alternates, because the second block finds a warmer cache."""
    if swapped:
        second = _block(other, BLOCK_NS)
        return _block(call, BLOCK_NS), second
    first = _block(call, BLOCK_NS)
    return first, _block(other, BLOCK_NS)


def _block(call: Call, least_ns: int) -> float:
    """Return the median of the block's calls, in ms."""
    durations: list[int] = []
    while sum(durations) < least_ns or len(durations) < BLOCK_CALLS:
        start = time.perf_counter_ns()
        call()
        durations.append(time.perf_counter_ns() - start)
    return median(durations) / 1e6
