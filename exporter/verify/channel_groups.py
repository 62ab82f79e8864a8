"""Groups the channels of an output that behave alike: boxes in pixels, or scores from 0 to 1.

The noise of a group excuses its quiet channels, so that a channel must be shown to be like its group: its
range is near the group's median. Every other channel is a group of its own, judged by its own variation.
The outputs of activations that rest near zero are not grouped:
`exporter.capture.resting_activations` knows them.
"""

from __future__ import annotations

import math

import numpy as np

from exporter.records import Array
from exporter.verify.noise_by_chance import quiet_noise_by_chance

GAP = 4.0
"""Sorted by their ranges, channels whose range is so many times smaller than the next belong elsewhere. What
few samples make of equal ranges comes on top."""
REACH = 16.0
"""A channel whose range is so many times smaller or larger than its group's median is unlike the group, even
where channels of every range between lead up to it."""
STRAY_SHARE = 0.05
"""Constant channels that are fewer than this share are judged with the group that is next to them."""
FEW_PROBABILITIES = 4
"""If more channels than this are within 0..1, they are scores of one kind, however rare some classes are."""

RARE = 8.0
"""A class is rare when its scores' range is so many times smaller than the largest: 32 steps of int8."""


def group_channels(low: Array, high: Array, samples: int, idle: Array) -> Array:
    """Number the groups of alike channels.

    Args:
        low: Each channel's smallest value in the reference.
        high: Each channel's largest value.
        samples: How many samples these are the extremes of.
        idle: Which channels make no group of their own where they are few: constants.

    Returns:
        A group number for each channel.
    """
    numbers = _channel_groups_by_range(high - low, samples)
    _join_channel_groups(numbers, high - low, idle)
    probabilities = _probability_channel_groups(low, high)
    pure = [n for n in np.unique(numbers) if probabilities[numbers == n].all()]
    scores = np.isin(numbers, pure)
    if scores.sum() > FEW_PROBABILITIES:
        numbers[scores] = pure[0]
    silent, sounding = (low == 0) & (high == 0), (low != 0) | (high != 0)
    if silent.any() and sounding.any():  # zeros have no scale of their own
        smallest = np.flatnonzero(sounding)[np.argmin((high - low)[sounding])]
        numbers[silent] = numbers[smallest]
    return numbers


def _probability_channel_groups(low: Array, high: Array) -> Array:
    within: Array = (low >= 0) & (high <= 1)
    return within


def rare_classes_of_channel_groups(low: Array, high: Array) -> Array:
    """Return which channels are scores of one kind whose range is but a few steps of the largest score's."""
    probabilities, ranges = _probability_channel_groups(low, high), high - low
    if probabilities.sum() <= FEW_PROBABILITIES:
        return np.zeros(len(low), bool)
    rare: Array = probabilities & (ranges * RARE <= ranges[probabilities].max())
    return rare


def _channel_groups_by_range(ranges: Array, samples: int) -> Array:
    """Number the groups by range alone; the group of the largest ranges is first."""
    luck = quiet_noise_by_chance(samples, len(ranges))
    gap, reach = GAP * math.sqrt(luck), max(REACH, GAP * luck)
    order = np.argsort(-ranges, kind="stable")
    smaller = ranges[order[1:]] * gap < ranges[order[:-1]]
    numbers = np.zeros(len(ranges), np.int64)
    groups = 0
    for run in np.split(order, np.flatnonzero(smaller) + 1):
        median = float(np.median(ranges[run]))
        alike = (ranges[run] * reach >= median) & (ranges[run] <= median * reach)
        numbers[run] = groups
        numbers[run[~alike]] = groups + 1 + np.arange((~alike).sum())
        groups += 1 + int((~alike).sum())
    return numbers


def _join_channel_groups(numbers: Array, ranges: Array, idle: Array) -> None:
    """Move idle channels, where they are few, into the largest group."""
    largest = np.bincount(numbers).argmax()
    below = (numbers != largest) & (ranges < np.median(ranges[numbers == largest]))
    strays = idle & below
    if strays.sum() < STRAY_SHARE * len(numbers):
        numbers[strays] = largest
