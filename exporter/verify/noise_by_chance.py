"""Computes how much louder chance alone makes the loudest of many channels, over few samples."""

from __future__ import annotations

import math
from statistics import NormalDist

FALSE_ALARMS = 1e-3
"""Accepted probability that noise alone condemns any channel of a right output."""


def noise_by_chance(samples: float, channels: int) -> float:
    """Return how much louder than its group's noise the loudest channel of a right output is, in energy.

    Every channel's noise energy, averaged over the samples, is a chi-squared variable; this is its quantile
    for the loudest of all channels (Wilson and Hilferty's approximation).
    """
    spread = 2 / (9 * samples)
    return float((1 - spread + _noise_by_chance_quantile(channels) * math.sqrt(spread)) ** 3)


def noise_ratio_by_chance(samples: int, channels: int) -> float:
    """Return the same for the noise as a share of the channel's own variation, which is a sample as well.

    The ratio of two such energies has an F distribution; its logarithm is nearly normal (Fisher's z).
    """
    spread = math.sqrt(2 / samples + 2 / (samples - 1))
    return math.exp(_noise_by_chance_quantile(channels) * spread)


def quiet_noise_by_chance(samples: int, channels: int) -> float:
    """Return how many times less than expected the quietest of alike channels varies, in amplitude.

    Its variation's energy is a chi-squared variable; this is the quantile of its lower tail, by the first
    term of the distribution's series, which is a little too small: the margin is on the safe side.
    """
    freedom = max(samples, 2) - 1
    logarithm = math.log(FALSE_ALARMS / channels) + math.lgamma(freedom / 2 + 1)
    return math.sqrt(freedom / 2) * math.exp(-logarithm / freedom)


def _noise_by_chance_quantile(channels: int) -> float:
    return NormalDist().inv_cdf(1 - FALSE_ALARMS / channels)
