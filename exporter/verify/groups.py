"""Groups the channels of an output that behave alike: boxes in pixels, or scores from 0 to 1."""

from __future__ import annotations

import math

import numpy as np

from exporter.records import Array
from exporter.verify.chance import ratio_margin

GAP = 4.0
"""Sorted by their ranges, channels whose range is so many times smaller than the next belong elsewhere. What
few samples make of equal ranges comes on top."""
STRAY_SHARE = 0.05
"""A group of fewer channels than this share is the tail of the next larger: units that hardly ever fire."""
FEW_PROBABILITIES = 4
"""If more channels than this are within 0..1, they are scores of one kind, however rare some classes are."""


def group_channels(low: Array, high: Array, samples: int) -> Array:
    """Number the groups of alike channels.

    Args:
        low: Each channel's smallest value in the reference.
        high: Each channel's largest value.
        samples: How many samples these are the extremes of.

    Returns:
        A group number for each channel.
    """
    numbers = _by_range(high - low, GAP * math.sqrt(ratio_margin(max(samples, 2), len(low))))
    probabilities = (low >= 0) & (high <= 1)
    pure = [n for n in np.unique(numbers) if probabilities[numbers == n].all()]
    scores = np.isin(numbers, pure)
    if scores.sum() > FEW_PROBABILITIES:
        numbers[scores] = pure[0]
    silent, sounding = (low == 0) & (high == 0), (low != 0) | (high != 0)
    if silent.any() and sounding.any():  # zeros have no scale of their own
        smallest = np.flatnonzero(sounding)[np.argmin((high - low)[sounding])]
        numbers[silent] = numbers[smallest]
    return numbers


def _by_range(ranges: Array, gap: float) -> Array:
    numbers = np.zeros(len(ranges), np.int64)
    order = np.argsort(-ranges)
    sizes: list[list[int]] = []
    for channel in order:
        smaller = sizes and ranges[channel] * gap < ranges[sizes[-1][-1]]
        if not sizes or smaller:
            sizes.append([])
        sizes[-1].append(int(channel))
    number = 0
    for position, members in enumerate(sizes):
        if position and len(members) >= STRAY_SHARE * len(ranges):
            number += 1
        numbers[members] = number
    return numbers
