"""Measures every channel of an output against its own variation.

A single figure per output hides what is small in it: scores from 0 to 1 next to boxes in pixels, a pressure's
variation next to the pressure, one class of a thousand. So every index of every axis is a channel, and its
error is measured against how the reference varies around that channel's own mean over the inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from exporter.records import Array
from exporter.verify.channel_groups import group_channels, rare_classes_of_channel_groups
from exporter.verify.reference_io import Stacks

CONSTANT = 20.0
"""A channel is constant when it varies over the inputs by less than this many of float32's own errors."""
CONSTANT_SHARE = 1e-6
"""The same, as a share of the channel's largest value: below this float32 cannot vary."""
FEW_POSITIONS = 64
"""A channel with fewer positions is no map: how its movement is spread over the samples is chance."""


@dataclass(frozen=True, eq=False)
class Channels:
    """One output's channels along one axis: an item per channel in every array. Energies are mean squares."""

    output: int
    axis: int
    """The axis of the model's output: 0 is usually the batch. -1: the output as one channel."""
    samples: int
    variation: Array
    """Energy of the reference around the channel's mean, over inputs and positions."""
    movement: Array
    """Energy of the reference around each position's mean, over the inputs only."""
    artifact_movement: Array
    error: Array
    low: Array
    high: Array
    floor: Array
    """Eager float32's largest error."""
    groups: Array
    """The number of each channel's group."""
    small_by_nature: Array
    """Whether a channel may vary by less than a step of the others."""
    moving_samples: Array
    """How many samples the movement is spread over, from 1 to `samples`: 1 where one sample has all of it, as
    for a detector's class that one photo shows. Noise is loud where a score moves, so its energy has no more
    samples than this. Of a channel with few positions it is `samples`."""

    @property
    def scale(self) -> Array:
        largest: Array = np.maximum(np.abs(self.low), np.abs(self.high))
        return largest

    @property
    def constant(self) -> Array:
        """Whether the reference does not move by more than rounding does."""
        return _constant_channel(self.movement, self.floor, self.scale)


def _constant_channel(movement: Array, floor: Array, scale: Array) -> Array:
    still: Array = movement <= np.maximum(CONSTANT * floor, CONSTANT_SHARE * scale) ** 2
    return still


def measure_channels(
    reference: Stacks,
    actual: Stacks,
    eager_errors: Stacks,
    resting: Sequence[bool] = (),
    positions: Stacks = (),
) -> Iterator[Channels]:
    """Measure every channel of every float or complex output, axis by axis.

    Args:
        reference: Per output [N, *shape].
        actual: The artifact's outputs.
        eager_errors: Eager float32's largest error per element; empty where it is not known.
        resting: See `ReferenceIO`.
        positions: See `ReferenceIO`.
    """
    for index, (y, a) in enumerate(zip(reference, actual, strict=True)):
        if y.dtype.kind in "fc" and len(y) > 1 and y.size:
            floors = eager_errors[index] if eager_errors else np.zeros(y.shape[1:])
            rests = bool(resting) and resting[index]
            alike = range(-1, y.ndim) if rests else positions[index].tolist() if positions else ()
            yield from _channels_of_output(
                index, _real_channels(y), _real_channels(a), _real_channel_floor(y, floors), alike
            )


def _real_channels(array: Array) -> Array:
    """View complex numbers as two real ones along a new last axis."""
    if array.dtype.kind != "c":
        return array
    parts: Array = np.stack([array.real, array.imag], axis=-1)
    return parts


def _real_channel_floor(reference: Array, floors: Array) -> Array:
    return np.stack([floors, floors], axis=-1) if reference.dtype.kind == "c" else floors


def _channels_of_output(
    output: int, y: Array, a: Array, floors: Array, alike: Sequence[int]
) -> Iterator[Channels]:
    """Measure an output's channels; along the axes in `alike` they are one group and may be small."""
    elements = _ChannelElements.of(y, a, floors)
    axes: Sequence[int] = [axis for axis, size in enumerate(y.shape[1:]) if size > 1] or [-1]
    for axis in axes:
        channels = elements.along(output, axis)
        low, high = channels.low, channels.high
        if axis in alike:
            yield replace(channels, small_by_nature=np.ones(len(low), bool))
        else:
            groups = group_channels(low, high, channels.samples, channels.constant)
            yield replace(channels, groups=groups, small_by_nature=rare_classes_of_channel_groups(low, high))


@dataclass(frozen=True, eq=False)
class _ChannelElements:
    """Figures over the samples, per element of one output."""

    reference: Array
    mean: Array
    movement: Array
    artifact_movement: Array
    error: Array
    low: Array
    high: Array
    floor: Array

    @classmethod
    def of(cls, y: Array, a: Array, floors: Array) -> _ChannelElements:
        """Sum over the samples one by one: large outputs are not copied as a whole."""
        start = y[0].astype(np.float64)
        sums, squares, artifact_sums, artifact_squares, error = (np.zeros_like(start) for _ in range(5))
        low, high = start.copy(), start.copy()
        for exact, computed in zip(y, a, strict=True):
            moved, artifact_moved = exact.astype(np.float64) - start, computed.astype(np.float64) - start
            sums += moved
            squares += moved**2
            artifact_sums += artifact_moved
            artifact_squares += artifact_moved**2
            error += (artifact_moved - moved) ** 2
            low, high = np.minimum(low, exact), np.maximum(high, exact)
        n = len(y)
        return cls(
            y,
            start + sums / n,
            np.maximum(squares / n - (sums / n) ** 2, 0),
            np.maximum(artifact_squares / n - (artifact_sums / n) ** 2, 0),
            error / n,
            low,
            high,
            floors.astype(np.float64),
        )

    def along(self, output: int, axis: int) -> Channels:
        """Average over every other axis; all are one group."""
        rest = tuple(i for i in range(self.mean.ndim) if i != axis)
        movement, means = np.atleast_1d(self.movement.mean(rest)), self.mean.mean(rest, keepdims=True)
        low, high = np.atleast_1d(self.low.min(rest)), np.atleast_1d(self.high.max(rest))
        floor = np.atleast_1d(self.floor.max(rest))
        return Channels(
            output=output,
            axis=axis,
            samples=len(self.reference),
            variation=movement + ((self.mean - means) ** 2).mean(rest),
            movement=movement,
            artifact_movement=np.atleast_1d(self.artifact_movement.mean(rest)),
            error=np.atleast_1d(self.error.mean(rest)),
            low=low,
            high=high,
            floor=floor,
            groups=np.zeros(len(low), np.int64),
            small_by_nature=np.zeros(len(low), bool),
            moving_samples=self._moving_samples(rest, len(low)),
        )

    def _moving_samples(self, rest: tuple[int, ...], channels: int) -> Array:
        """Return over how many samples each channel's movement is spread (see `Channels`).

        Args:
            rest: The axes of a channel's positions.
            channels: How many channels the output has along its other axis.
        """
        samples = len(self.reference)
        if self.mean.size < FEW_POSITIONS * channels:
            return np.full(channels, float(samples))
        energies = np.stack(
            [np.atleast_1d(((y.astype(np.float64) - self.mean) ** 2).mean(rest)) for y in self.reference]
        )
        sums, squares = energies.sum(0), (energies**2).sum(0)
        spread: Array = np.divide(sums**2, squares, out=np.full(channels, float(samples)), where=squares > 0)
        return spread
