"""Finds the channel that is nearest to its limit or furthest beyond it, and says what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from exporter.records import Array, WorstChannel
from exporter.verify.channels import Channels, measure_channels
from exporter.verify.reference_io import Stacks, named_reference_io_output
from exporter.verify.tolerance import (
    Tolerance,
    dead_beyond_tolerance,
    tolerance_of_coarse,
    tolerance_of_energy,
)

FEW_VALUES = 16
"""This many different values, or fewer, are few where the reference has several times as many."""
MOST_STEPS = 4
"""A channel with more values than this is not judged by its steps. The least varying of MobileNetV2's classes
has seven in int8."""
FEWEST_VALUES = 8
"""The reference must have this many values for the artifact's to be few."""
COUNTED = 256
"""Samples whose values are counted first: most channels have enough of them there."""
CLIPPED_SHARE = 0.02
"""A channel is clipped when this share of its values is its extreme one, and the reference goes further."""
BOUND_DB = 300.0
"""Stands for infinite ratios, which a manifest cannot hold."""


@dataclass(frozen=True)
class _WorstPlace:
    channels: Channels
    index: int
    excess_db: float
    """How far the error is beyond what is allowed."""
    dead: bool
    wrong: int
    """Channels of this axis that are beyond what is allowed."""

    @property
    def key(self) -> tuple[bool, float]:
        return self.dead, self.excess_db


def worst_channel(
    reference: Stacks,
    actual: Stacks,
    eager_errors: Stacks,
    tolerance: Tolerance,
    names: Sequence[str] = (),
    labels: Sequence[str] = (),
    resting: Sequence[bool] = (),
    positions: Stacks = (),
) -> WorstChannel | None:
    """Return the channel with the least room to its limit; None where no channel has an error.

    Args:
        reference: Per output [N, *shape].
        actual: The artifact's outputs.
        eager_errors: See `ReferenceIO`.
        tolerance: What the precision may cost.
        names: The outputs' names; their numbers stand in where there are none.
        labels: The classes' names; used for an axis of as many channels.
        resting: See `ReferenceIO`.
        positions: See `ReferenceIO`.
    """
    places = [
        place
        for channels in measure_channels(reference, actual, eager_errors, resting, positions)
        for place in _worst_channel_of_axis(
            channels, tolerance, reference[channels.output], actual[channels.output]
        )
    ]
    if not places:
        return None
    place = max(places, key=lambda place: place.key)
    channels, index = place.channels, place.index
    output = names[channels.output] if channels.output < len(names) else f"output{channels.output}"
    signal = channels.scale[index] ** 2 if channels.constant[index] else channels.variation[index]
    error = channels.error[index]
    limit = _worst_channel_db(signal, error) + place.excess_db
    figure = WorstChannel(
        output=output,
        channel=worst_channel_expression(output, channels, index, reference[channels.output]),
        label=labels[index] if len(labels) == channels.error.size > 1 else "",
        sqnr_db=_worst_channel_db(signal, error),
        limit_db=max(-BOUND_DB, min(BOUND_DB, limit)),
        fault="",
    )
    if place.excess_db <= 0 and not place.dead:
        return figure
    y, a = (
        _worst_channel_values(stacks[channels.output], channels.axis, index) for stacks in (reference, actual)
    )
    return WorstChannel(**{**figure.__dict__, "fault": _worst_channel_fault(figure, place, y, a)})


def _worst_channel_of_axis(
    channels: Channels, tolerance: Tolerance, y: Array, a: Array
) -> Iterator[_WorstPlace]:
    coarse = tolerance_of_coarse(channels, tolerance)
    for i in map(int, np.flatnonzero(coarse)):
        coarse[i] = _is_worst_channel_coarse(
            _worst_channel_values(y, channels.axis, i), _worst_channel_values(a, channels.axis, i)
        )
    limits, stopped = (
        tolerance_of_energy(channels, tolerance, coarse),
        dead_beyond_tolerance(channels, tolerance),
    )
    excess = np.array(
        [_worst_channel_db(error, limit) for error, limit in zip(channels.error, limits, strict=True)]
    )
    order = excess + np.where(stopped, 2 * BOUND_DB, 0)
    index = int(np.argmax(order))
    if channels.error[index] > 0:
        wrong = int(((excess > 0) | stopped).sum())
        yield _WorstPlace(channels, index, float(excess[index]), bool(stopped[index]), wrong)


def _is_worst_channel_coarse(y: Array, a: Array) -> bool:
    """Return whether so few values are left of a channel that its steps can be counted."""
    if len(np.unique(a[:COUNTED])) > MOST_STEPS:
        return False
    here, model = len(np.unique(a)), len(np.unique(y))
    return here <= MOST_STEPS and model >= max(2 * here, FEWEST_VALUES)


def _worst_channel_db(signal: float, noise: float) -> float:
    if signal <= 0 or noise <= 0:
        return -BOUND_DB if signal <= 0 else BOUND_DB
    return max(-BOUND_DB, min(BOUND_DB, 10 * math.log10(signal / noise)))


def worst_channel_expression(output: str, channels: Channels, index: int, reference: Array) -> str:
    """Write a channel as NumPy indexes it: "boxes[..., 4]", "boxes[:, 4, :]"; complex parts by name."""
    axes = reference.ndim - 1
    if channels.axis == -1:
        return output
    if channels.axis == axes:  # complex numbers have their parts along one axis more
        return f"{output}.{('real', 'imag')[index]}"
    if channels.axis == axes - 1 and axes > 1:
        return f"{output}[..., {index}]"
    places = [":"] * axes
    places[channels.axis] = str(index)
    return f"{output}[{', '.join(places)}]"


def _worst_channel_values(stack: Array, axis: int, index: int) -> Array:
    if stack.dtype.kind == "c":
        stack = np.stack([stack.real, stack.imag], axis=-1)
    values: Array = stack if axis == -1 else np.take(stack, index, axis=axis + 1)
    return values.reshape(len(values), -1)


def _worst_channel_fault(figure: WorstChannel, place: _WorstPlace, y: Array, a: Array) -> str:
    size = place.channels.error.size
    others = f" ({place.wrong} of {size} such channels are wrong)" if place.wrong > 1 else ""
    where = f"{figure.channel}, class '{figure.label}'," if figure.label else figure.channel
    return (
        f"Its {named_reference_io_output(where)} {_worst_channel_description(figure, place, y, a)}{others}."
    )


def _worst_channel_description(figure: WorstChannel, place: _WorstPlace, y: Array, a: Array) -> str:
    if place.channels.constant[place.index]:
        return f"is a constant in the model and is off by {np.abs(a - y).max():.3g} here"
    model, here = len(np.unique(y)), len(np.unique(a))
    if place.dead:
        return (
            f"is dead: it varies by {_worst_channel_range(y):.3g} in the model and by "
            f"{_worst_channel_range(a):.3g} here"
        )
    if here <= FEW_VALUES and model >= 4 * here:
        varies = f"and varies by {_worst_channel_range(y):.3g} in the model"
        return f"has {here} different value(s), the model's {model}, {varies}"
    numbers = (
        f"reaches {figure.sqnr_db:.1f} dB against its own variation; the limit is {figure.limit_db:.1f} dB"
    )
    return f"is clipped: it {numbers}" if _is_worst_channel_clipped(y, a) else numbers


def _worst_channel_range(values: Array) -> float:
    """Return by how much the values at one position vary over the inputs, at most."""
    return float((values.max(axis=0) - values.min(axis=0)).max())


def _is_worst_channel_clipped(y: Array, a: Array) -> bool:
    top, bottom = a >= a.max(), a <= a.min()
    reach = 0.02 * (y.max() - y.min())
    over = top.sum() > 1 and top.mean() >= CLIPPED_SHARE and (y[top] > a.max() + reach).mean() > 0.5
    under = bottom.sum() > 1 and bottom.mean() >= CLIPPED_SHARE and (y[bottom] < a.min() - reach).mean() > 0.5
    return bool(over or under)
