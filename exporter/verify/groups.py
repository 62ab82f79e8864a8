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
"""Idle channels that are fewer than this share are the tail of the next larger group."""
RESTS = 0.5
"""A unit hardly ever fires when this share of its values, or more, is exactly zero."""
FEW_PROBABILITIES = 4
"""If more channels than this are within 0..1, they are scores of one kind, however rare some classes are."""


def group_channels(low: Array, high: Array, samples: int, idle: Array) -> Array:
    """Number the groups of alike channels.

    Args:
        low: Each channel's smallest value in the reference.
        high: Each channel's largest value.
        samples: How many samples these are the extremes of.
        idle: Which channels make no group of their own where they are few: see `idle_channels`.

    Returns:
        A group number for each channel.
    """
    groups = _by_range(high - low, GAP * math.sqrt(ratio_margin(max(samples, 2), len(low))))
    numbers = _join_tails(groups, idle)
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


def _by_range(ranges: Array, gap: float) -> list[list[int]]:
    """Return the channels of each group, the group of the largest ranges first."""
    groups: list[list[int]] = []
    for channel in np.argsort(-ranges):
        smaller = groups and ranges[channel] * gap < ranges[groups[-1][-1]]
        if not groups or smaller:
            groups.append([])
        groups[-1].append(int(channel))
    return groups


def _join_tails(groups: list[list[int]], idle: Array) -> Array:
    """Number the groups; idle channels that are few join the next larger group.

    However few they are, other channels keep their own group: the noise of boxes in pixels does not excuse a
    single score beside them.
    """
    numbers = np.zeros(len(idle), np.int64)
    number = 0
    for members in map(np.array, groups[1:]):
        few = len(members) < STRAY_SHARE * len(idle)
        joins = idle[members] & few
        numbers[members[joins]] = number
        if not joins.all():
            number += 1
            numbers[members[~joins]] = number
    return numbers


def idle_channels(low: Array, zeros: Array, constant: Array) -> Array:
    """Return which channels hardly vary by themselves: constants, and units of a ReLU that hardly ever fire.

    Args:
        low: Each channel's smallest value in the reference.
        zeros: The share of each channel's values that is exactly zero.
        constant: Whether each channel moves by no more than rounding does.
    """
    rectified = low.min() >= 0 and np.mean(low == 0) > STRAY_SHARE  # not only the few are a ReLU's
    idle: Array = constant | (rectified & (zeros >= RESTS))
    return idle
