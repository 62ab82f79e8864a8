"""Bounds of agreement and SQNR over scenes: what the figures of few scenes say about others. Pure.

A scene counts once, whatever the number of its crops. Both bounds are one-sided 95 %: a lower bound
promises too much once in twenty times.

Agreement is a share of successes in clusters: beta-binomial. Its overdispersion is estimated by the variance
between scenes, which gives an effective number of independent answers, and that gives Clopper and Pearson's
exact bounds (Korn and Graubard, Survey Methodology 24, 1998). There are never more independent answers than
scenes where a call gives one, so that sixty scenes without an error prove 95 %, and five prove 55 %. A
bootstrap could not: it draws only what was seen, and of scenes without an error it gives the interval 1 to 1.

SQNR is a ratio of two sums over scenes, of signal and noise; its variance is the ratio estimator's, as in
cluster sampling, in decibels. Few scenes say little about their own spread, so one more is added to it, of
the 3 dB by which scenes differ in int8 networks. The bounds are Student's of 97.5 %: noise is skewed, as a
few scenes have much more than the rest, and then these hold about as often as 95 %.

`tests/verify/test_intervals.py` simulates how often the bounds hold.
"""

from __future__ import annotations

import math

import numpy as np

from exporter.records import Array, Bounds

CONFIDENCE = 0.95
"""Either bound's."""
SKEWED = 0.975
"""Student's confidence of an SQNR's bounds."""
WITHIN = 0.05
"""Correlation of the answers within a call that gives many (a mask's pixels), where none differs."""
SPREAD_DB = 3.0
"""The spread of scenes that is assumed beside the measured one, as if one more scene had shown it."""
MOST_SCENES = 100_000


def agreement_interval(shares: Array, answers: int, scenes: Array) -> Bounds:
    """Return the bounds of a share of right answers.

    Args:
        shares: [samples] share of right answers.
        answers: Number of answers in a sample: 1 for a class, thousands for a mask.
        scenes: [samples] number of each sample's scene.
    """
    estimate = float(shares.mean())
    return binomial_interval(estimate, effective_count_for_interval(shares, answers, scenes))


def effective_count_for_interval(shares: Array, answers: int, scenes: Array) -> float:
    """Return how many independent answers the samples are worth."""
    from scipy import special

    _, group = np.unique(scenes, return_inverse=True)
    sizes = np.bincount(group).astype(np.float64)
    scenes_worth = float(sizes.sum() ** 2 / (sizes**2).sum())  # that many scenes of equal size say as much
    most = scenes_worth * answers / (1 + WITHIN * (answers - 1))
    estimate, count = float(shares.mean()), len(sizes)
    if count < 2:
        return most
    errors = np.bincount(group, shares - estimate)
    variance = count / (count - 1) * float((errors**2).sum()) / float(sizes.sum()) ** 2
    if variance == 0 or not 0 < estimate < 1:
        return most
    normal, student = special.ndtri(CONFIDENCE), special.stdtrit(count - 1, CONFIDENCE)
    return min(most, float(estimate * (1 - estimate) / variance * (normal / student) ** 2))


def binomial_interval(estimate: float, answers: float) -> Bounds:
    """Return Clopper and Pearson's bounds of a share of so many independent answers."""
    from scipy import special

    right = estimate * answers
    wrong = answers - right
    low = float(special.betaincinv(right, wrong + 1, 1 - CONFIDENCE)) if right > 0 else 0.0
    high = float(special.betaincinv(right + 1, wrong, CONFIDENCE)) if wrong > 1e-9 else 1.0
    return low, high


def sqnr_db_interval(signal: Array, noise: Array, scenes: Array) -> Bounds:
    """Return the bounds of the signal-to-noise ratio in decibels.

    Args:
        signal: [samples] energy of the reference.
        noise: [samples] energy of the error.
        scenes: [samples] number of each sample's scene.
    """
    from scipy import special

    _, group = np.unique(scenes, return_inverse=True)
    signals, noises = np.bincount(group, signal), np.bincount(group, noise)
    whole, lost = float(signals.sum()), float(noises.sum())
    if lost == 0:
        return math.inf, math.inf
    if whole == 0:
        return -math.inf, -math.inf
    count = len(signals)
    rest = noises - lost / whole * signals
    spread = 10 / math.log(10) * math.sqrt(count**2 / max(count - 1, 1) * float((rest**2).sum())) / lost
    pooled = math.sqrt((SPREAD_DB**2 + (count - 1) * spread**2) / count)
    half = float(special.stdtrit(count, SKEWED)) * pooled / math.sqrt(count)
    estimate = -10 * math.log10(lost / whole)
    return estimate - half, estimate + half


def scenes_for_share_interval(estimate: float, limit: float, scenes: int, bounds: Bounds) -> int | None:
    """Return how many scenes in all would decide whether a share reaches a limit; None when none would.

    The scenes to come are taken to be like those seen: so many independent answers each.
    """
    if estimate == limit or not scenes:
        return None
    each = _answers_of_interval(estimate, bounds) / scenes
    count = scenes
    while count <= MOST_SCENES:
        low, high = binomial_interval(estimate, each * count)
        if low >= limit or high < limit:
            return count
        count = max(count + 1, math.floor(1.01 * count))
    return None


def _answers_of_interval(estimate: float, bounds: Bounds) -> float:
    """Return the number of independent answers whose bounds these are."""
    few, many = 0.1, 1e7
    for _ in range(60):
        middle = math.sqrt(few * many)
        low, high = binomial_interval(estimate, middle)
        few, many = (middle, many) if high - low > bounds[1] - bounds[0] else (few, middle)
    return many


def scenes_for_decibel_interval(estimate: float, limit: float, scenes: int, bounds: Bounds) -> int | None:
    """Return how many scenes in all would decide whether an SQNR reaches a limit; None when none would.

    The interval narrows with the root of the number of scenes.
    """
    away = abs(estimate - limit)
    half = (bounds[1] - bounds[0]) / 2
    if not scenes or away == 0 or not math.isfinite(half):
        return None
    count = math.ceil(scenes * (half / away) ** 2)
    return count if count <= MOST_SCENES else None


def more_scenes_for_interval(estimate: float, limit: float, count: int, bounds: Bounds, noun: str) -> str:
    """Say how many more scenes or samples would decide whether a figure keeps its limit.

    The interval narrows with the root of their number.
    """
    needed = scenes_for_decibel_interval(estimate, limit, count, bounds)
    if needed is None:
        return f"The figure is at the limit: no number of {noun}s like these would decide."
    more = max(1, needed - count)
    return f"About {more} more {noun}{'' if more == 1 else 's'} like these would decide."
