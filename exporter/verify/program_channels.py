"""Compares each channel of a quantised artifact with that of its quantised program.

A runtime on a processor computes what the program computes, but for rounding ties: right files of the zoo
differ from it by 38 dB of a channel's variation at worst. How much ties may do to each channel is measured on
the program (`Lowering.ties`). Against the float model the same channel may be
10 dB off, so that a shift by a third of its spread would pass there, and in the whole output's figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from exporter.records import Array
from exporter.verify.channels import Channels, measure_channels
from exporter.verify.noise_by_chance import noise_by_chance, noise_ratio_by_chance
from exporter.verify.observation import Observation
from exporter.verify.reference_io import Lowering, named_reference_io_output
from exporter.verify.tolerance import UNLIKE
from exporter.verify.worst_channel import worst_channel_expression

ROUNDING_MARGIN_DB = 3.0
"""How much further than its program's own rounding noise an artifact may be: half the energy again."""
SHARE = 0.9
"""Share of the samples that is judged, the best first: a tie turns a choice (top-k, a threshold) in a few."""
LEAST_SHARE = 1e-3
"""Energy of the difference, as a share of a channel's variation, that is always allowed before `UNLIKE`."""
STEPS = 2 / 127
"""A channel that is constant in the program may be off by a step or two of its largest value."""
EXACT = 1e-5
"""An output that is constant as a whole (priors, anchors) has no ties: it may be off by float32's limit."""
FLOOR_FACTOR = 10.0
"""Times eager float32's own error that any channel may be off."""


def program_channel_fault(observation: Observation) -> str:
    """Return which channel is further from the quantised program's than rounding ties explain, and how far.

    Returns:
        The subject and predicate of a sentence for the channel that is furthest beyond its limit; an empty
        string when every channel keeps its limit.
    """
    faults = [fault for fault in _program_channel_faults(observation) if fault[0] > 0]
    return max(faults)[1] if faults else ""


def _program_channel_faults(observation: Observation) -> Iterator[tuple[float, str]]:
    """Yield, for each axis of each output, how far its worst channel is beyond its limit in dB, in words."""
    assert observation.lowering is not None
    floors, names = observation.references.eager_errors, observation.references.output_names
    pairs = zip(observation.lowering.outputs, observation.outputs, strict=True)
    for index, (program, actual) in enumerate(pairs):
        if program.dtype.kind not in "fc":
            continue
        judged = _judged_program_samples(program, actual)
        floor = (floors[index],) if floors else ()
        for channels in measure_channels((program[judged],), (actual[judged],), floor):
            ties = _program_channel_ties(observation.lowering, index, channels)
            limits = _program_channel_limits(channels, observation.lowering.rounding_floor_db, ties)
            worst = int(np.argmax(channels.error / np.maximum(limits, np.finfo(float).tiny)))
            name = names[index] if index < len(names) else f"output{index}"
            where = named_reference_io_output(worst_channel_expression(name, channels, worst, program))
            beyond = _program_channel_db(channels.error[worst], limits[worst])
            yield beyond, f"{where} differs {_program_channel_figures(channels, worst, limits[worst])}"


def _judged_program_samples(program: Array, actual: Array) -> Array:
    wide = np.complex128 if program.dtype.kind == "c" else np.float64
    distance = np.abs(actual.astype(wide) - program.astype(wide)).reshape(len(program), -1)
    order = np.argsort((distance**2).sum(axis=1), kind="stable")
    judged: Array = np.sort(order[: math.ceil(SHARE * len(program))])
    return judged


def _program_channel_ties(lowering: Lowering, index: int, channels: Channels) -> Array:
    """Return the energy that rounding ties have in each channel of an axis of the program's own output."""
    if index >= len(lowering.ties):  # a file of an older version
        return np.zeros_like(channels.error)
    energies = lowering.ties[index].astype(np.float64)
    if channels.axis == lowering.ties[index].ndim:  # the real and the imaginary part
        return np.full_like(channels.error, energies.mean())
    rest = tuple(axis for axis in range(energies.ndim) if axis != channels.axis)
    ties: Array = np.atleast_1d(energies.mean(axis=rest))
    return ties


def _program_channel_limits(
    channels: Channels, rounding_floor_db: float, own_ties: Array | float = 0.0
) -> Array:
    """Return the error's energy that each channel may have against the program's.

    It is the fixed limit of the whole as a share of the channel's own variation, or what rounding ties do to
    the program itself, as a whole or in this channel, where that is louder, with what chance makes of it.
    Channels that behave alike may have each other's noise.
    """
    count = channels.error.size
    ties = 10 ** ((ROUNDING_MARGIN_DB - rounding_floor_db) / 10)
    share = UNLIKE * max(LEAST_SHARE, ties * noise_ratio_by_chance(max(channels.samples, 2), count))
    noise = UNLIKE * noise_by_chance(channels.samples, count) * _program_channel_noise(channels, share)
    floor = (FLOOR_FACTOR * channels.floor) ** 2
    if channels.constant.all():
        exact: Array = np.maximum((EXACT * channels.scale) ** 2, floor)
        return exact
    still = np.where(channels.constant, (STEPS * channels.scale) ** 2, 0.0)
    measured = UNLIKE * noise_by_chance(channels.samples, count) * (own_ties + np.zeros(count))
    limits: Array = np.maximum.reduce([share * channels.variation, noise, still, floor, measured])
    return limits


def _program_channel_noise(channels: Channels, share: float) -> Array:
    """Return the median error's energy of the other channels of each one's group: none excuses itself."""
    noise = np.zeros_like(channels.error)
    for group in np.unique(channels.groups):
        members = np.flatnonzero(channels.groups == group)
        if len(members) < 2:
            continue
        bound = share * channels.variation[members].mean()
        ranked, middle = np.sort(channels.error[members]), (len(members) - 2) // 2
        # The others of a channel in the lower half have their median one rank higher.
        medians = np.where(channels.error[members] <= ranked[middle], ranked[middle + 1], ranked[middle])
        noise[members] = np.minimum(medians, bound)
    return noise


def _program_channel_db(energy: float, limit: float) -> float:
    if energy <= 0:
        return -math.inf
    return 10 * math.log10(energy / limit) if limit > 0 else math.inf


def _program_channel_figures(channels: Channels, index: int, limit: float) -> str:
    error, variation = channels.error[index], channels.variation[index]
    if channels.constant[index] or limit <= 0:
        return f"by {math.sqrt(error):.3g} from a constant of its own quantised program"
    reached, allowed = (-_program_channel_db(energy, variation) for energy in (error, limit))
    return (
        f"from that of its own quantised program ({reached:.1f} dB against its own variation, expected "
        f"{allowed:.1f})"
    )
