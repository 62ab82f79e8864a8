"""Computes how far off each channel of a right artifact may be, and which channels are dead.

Channels that behave alike are a group, with one noise: in a group, what varies less than the noise of the
others cannot be expected to be right. Between groups there is no such excuse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exporter.records import Array
from exporter.verify.channels import Channels
from exporter.verify.noise_by_chance import noise_by_chance, noise_ratio_by_chance

UNLIKE = 4.0
"""Noise energy by which alike channels differ: four times, as their weights' norms do (MobileNetV2: 3.4)."""
FOLLOWED = 0.5
"""A channel follows the reference when its error's energy is less than this share of its variation's."""
DEAD = 0.01
"""A channel is dead when it varies over the inputs by less than this share of the reference's energy."""
WORST_OWN_DB = 20.0
"""The rounding of an offset excuses no channel below this: a tenth of its variation."""


@dataclass(frozen=True, eq=False)
class Tolerance:
    """What a precision may cost each channel."""

    sqnr_db: float
    """A channel's SQNR against its own variation, before the margins for luck and unlike channels."""
    floor_factor: float
    """Multiple of eager float32's own error."""
    constant: float
    """The error of a constant channel, as a share of its largest value."""
    rounding: float = 0.0
    """The rounding error of a stored number, as a share of it, which a channel with an offset may have."""


def tolerance_of_energy(channels: Channels, tolerance: Tolerance, coarse: Array) -> Array:
    """Return the error's energy that each channel may have.

    Args:
        channels: What was measured.
        tolerance: What the precision may cost.
        coarse: Which channels have few values left. Their error is no noise: neither chance nor the noise of
            the others excuses it.
    """
    own = _own_tolerance(channels, tolerance) * channels.variation
    by_own = own * _tolerance_by_chance(channels) * _tolerance_between_channels(channels)
    by_noise = _tolerance_of_noise(channels, tolerance, channels.moving_samples)
    still = np.maximum((tolerance.constant * channels.scale) ** 2, by_noise)
    varying = np.where(coarse, own, np.maximum(by_own, by_noise))
    limits: Array = np.where(channels.constant, still, varying)
    return np.maximum(limits, _tolerance_floor(channels, tolerance))


def tolerance_of_coarse(channels: Channels, tolerance: Tolerance) -> Array:
    """Return which channels are further off than the precision may cost, before any margin."""
    own = _own_tolerance(channels, tolerance) * channels.variation
    loud: Array = ~channels.constant & ~channels.small_by_nature & (channels.error > own)
    return loud


def _own_tolerance(channels: Channels, tolerance: Tolerance) -> Array:
    """Return the error's energy as a share of each channel's variation, before the margins."""
    rounded = (tolerance.rounding * channels.scale) ** 2
    share = np.divide(rounded, channels.variation, out=np.zeros_like(rounded), where=channels.variation > 0)
    shares: Array = np.maximum(
        _tolerance_of_share(tolerance.sqnr_db), np.minimum(share, _tolerance_of_share(WORST_OWN_DB))
    )
    return shares


def _tolerance_of_share(sqnr_db: float) -> float:
    return float(10 ** (-sqnr_db / 10))


def _tolerance_by_chance(channels: Channels) -> Array:
    """Return what chance makes of the noise and, where no group excuses it, of the variation."""
    counts = channels.samples, channels.error.size
    excused = _has_others_to_tolerate(channels) & ~channels.small_by_nature
    chance: Array = np.where(excused, noise_by_chance(*counts), noise_ratio_by_chance(*counts))
    return chance


def _tolerance_between_channels(channels: Channels) -> Array:
    """Return by how much alike channels may differ; a channel that is alone has no others to differ from."""
    unlike: Array = np.where(_has_others_to_tolerate(channels), UNLIKE, 1.0)
    return unlike


def _has_others_to_tolerate(channels: Channels) -> Array:
    """Return which channels have others in their group."""
    _, group, sizes = np.unique(channels.groups, return_inverse=True, return_counts=True)
    others: Array = sizes[group] > 1
    return others


def _tolerance_of_noise(channels: Channels, tolerance: Tolerance, samples: Array) -> Array:
    """Return the energy that the group's noise may have in each channel.

    Args:
        channels: What was measured.
        tolerance: What the precision may cost.
        samples: How many samples each channel's noise is spread over.
    """
    margin = np.array([noise_by_chance(count, channels.error.size) for count in samples])
    noise: Array = (
        margin
        * _tolerance_between_channels(channels)
        * group_noise_for_tolerance(channels, _tolerance_of_share(tolerance.sqnr_db))
    )
    return noise


def _tolerance_floor(channels: Channels, tolerance: Tolerance) -> Array:
    floor: Array = (tolerance.floor_factor * channels.floor) ** 2
    return floor


def group_noise_for_tolerance(channels: Channels, own: float) -> Array:
    """Return for each channel the noise energy of its group.

    It is measured on the channels that follow the reference, so that dead ones are no excuse for each other,
    and bounded by what the tolerance allows the group.
    """
    noise = np.zeros_like(channels.error)
    followed = ~channels.constant & (channels.error < FOLLOWED * channels.variation)
    for group in np.unique(channels.groups):
        members = channels.groups == group
        good = members & followed
        if good.any():
            bound = own * channels.variation[members].mean()
            noise[members] = min(float(channels.error[good].mean()), float(bound))
    return noise


def dead_beyond_tolerance(channels: Channels, tolerance: Tolerance) -> Array:
    """Return which channels stand still in the artifact though the reference moves by more than the noise."""
    every = np.full(channels.error.size, channels.samples)
    noise = _tolerance_of_noise(channels, tolerance, every)
    excused = np.maximum(noise, _tolerance_floor(channels, tolerance))
    moves = ~channels.constant & (channels.movement > excused)
    still: Array = moves & (channels.artifact_movement < DEAD * channels.movement)
    return still
