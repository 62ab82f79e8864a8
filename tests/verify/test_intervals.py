"""Bounds over scenes hold as often as they say, and few scenes prove little."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from exporter.records import Array
from exporter.verify import intervals

TRIALS = 400


@pytest.mark.parametrize("count", [5, 20, 60])
@pytest.mark.parametrize("crops", [1, 4])
@pytest.mark.parametrize(("share", "correlation"), [(0.9, 0.0), (0.9, 0.5), (0.97, 0.3)])
def test_the_bounds_of_agreement_hold(count: int, crops: int, share: float, correlation: float) -> None:
    """The true share of beta-binomial scenes is below the lower bound in at most one of twenty draws."""
    generator = np.random.default_rng(count + crops)
    scenes = np.repeat(np.arange(count), crops)
    low_misses = high_misses = 0
    for _ in range(TRIALS):
        size = 1 / correlation - 1 if correlation else 1e6
        own = generator.beta(share * size, (1 - share) * size, count)
        right = (generator.random((count, crops)) < own[:, None]).astype(float).ravel()
        low, high = intervals.agreement_interval(right, 1, scenes)
        low_misses += low > share
        high_misses += high < share
    assert max(low_misses, high_misses) <= 0.075 * TRIALS  # one in twenty, and the draws' own noise


@pytest.mark.parametrize(("spread_db", "most"), [(0.5, 0.075), (1.5, 0.075), (3.0, 0.075)])
@pytest.mark.parametrize("count", [2, 5, 10, 30, 60])
def test_the_lower_bound_of_the_sqnr_holds(count: int, spread_db: float, most: float) -> None:
    """Where the noise of scenes differs by up to 3 dB, a lower bound promises too much once in twenty."""
    generator = np.random.default_rng(count)
    decibel = math.log(10) / 10
    misses = 0
    for _ in range(TRIALS):
        noise = 0.01 * np.exp(decibel * spread_db * generator.normal(size=count))
        low, _ = intervals.sqnr_db_interval(np.ones(count), noise, np.arange(count))
        misses += low > 20 - 10 * (decibel * spread_db) ** 2 / 2 / math.log(10)
    assert misses <= most * TRIALS


@pytest.mark.parametrize(("scenes", "low"), [(1, 0.05), (5, 0.549), (58, 0.9496), (59, 0.9505), (60, 0.951)])
def test_scenes_without_an_error_prove_what_their_number_allows(scenes: int, low: float) -> None:
    """Five scenes prove 55 %, fifty-nine 95 %; crops of them add nothing."""
    for crops in (1, 8):
        of = np.repeat(np.arange(scenes), crops)
        assert intervals.agreement_interval(np.ones(len(of)), 1, of) == pytest.approx((low, 1.0), abs=1e-3)


def test_scenes_are_witnesses_and_crops_are_not() -> None:
    """The same crops prove less as crops of few scenes."""
    shares = np.tile([1.0, 1, 1, 1, 1, 1, 1, 0], 8)
    alone = intervals.agreement_interval(shares, 1, np.arange(64))
    together = intervals.agreement_interval(shares, 1, np.repeat(np.arange(8), 8))
    assert together[0] < alone[0]
    assert together[1] > alone[1]


def test_masks_say_more_than_classes() -> None:
    """A call that gives thousands of answers is worth several, not thousands."""
    shares = np.full(8, 1.0)
    assert intervals.effective_count_for_interval(shares, 50_000, np.arange(8)) == pytest.approx(
        160, rel=0.01
    )


def signal(count: int, noise: Array) -> tuple[float, float]:
    return intervals.sqnr_db_interval(np.ones(count), noise, np.arange(count))


@pytest.mark.parametrize(("scenes", "half"), [(1, 38.1), (2, 6.45), (5, 1.54), (16, 0.397), (64, 0.0937)])
def test_few_scenes_are_not_taken_for_alike(scenes: int, half: float) -> None:
    """Scenes that happen to have the same noise still have bounds apart, the wider the fewer they are."""
    low, high = signal(scenes, np.full(scenes, 0.01))
    assert (low + high) / 2 == pytest.approx(20)
    assert (high - low) / 2 == pytest.approx(half, rel=0.02)


def test_half_precision_far_above_its_limit_needs_two_scenes() -> None:
    """Two scenes at 58 and 62 dB are above 35 dB whatever others do; two at 21 and 23 do not prove 20 dB."""
    assert signal(2, 10.0 ** -np.array([5.8, 6.2]))[0] > 35
    assert signal(2, 10.0 ** -np.array([2.1, 2.3]))[0] < 20
    assert signal(1, np.array([1e-6]))[0] < 35


def test_noise_in_one_scene_alone_bounds_both_sides() -> None:
    """The bounds stay finite where all the noise is of one scene; without noise they are infinite."""
    low, high = signal(20, np.eye(20)[0])
    assert 5 < high - low < 30
    assert signal(20, np.zeros(20)) == (math.inf, math.inf)


@pytest.mark.parametrize(("estimate", "limit"), [(1.0, 0.95), (0.98, 0.95), (0.9, 0.95), (0.85, 0.95)])
def test_as_many_scenes_as_are_said_decide_on_a_share(estimate: float, limit: float) -> None:
    """The bounds of a share leave the limit out with the number that is named, and not before."""
    scenes = 20
    bounds = intervals.binomial_interval(estimate, scenes)
    needed = intervals.scenes_for_share_interval(estimate, limit, scenes, bounds)
    assert needed is not None
    low, high = intervals.binomial_interval(estimate, needed)
    assert low >= limit or high < limit
    low, high = intervals.binomial_interval(estimate, max(scenes, 0.98 * needed - 1))
    assert low < limit <= high or needed == scenes


def test_the_limit_itself_is_never_decided() -> None:
    """No number of scenes tells a share, or an SQNR, from the limit that it is at."""
    assert intervals.scenes_for_share_interval(0.95, 0.95, 20, intervals.binomial_interval(0.95, 20)) is None
    assert intervals.scenes_for_decibel_interval(20.0, 20.0, 20, (18.0, 22.0)) is None


def test_the_interval_narrows_with_the_root_of_the_scenes() -> None:
    """Half the distance to the limit needs four times the scenes."""
    assert intervals.scenes_for_decibel_interval(21.0, 20.0, 16, (19.0, 23.0)) == 64
    assert intervals.scenes_for_decibel_interval(22.0, 20.0, 16, (20.0, 24.0)) == 16


@pytest.mark.parametrize(("right", "scenes"), [(8, 10), (1, 10), (19, 20), (3, 5)])
def test_single_answers_are_worth_one_less_than_their_number(right: int, scenes: int) -> None:
    """Single answers spread as a binomial does, whatever the share; few scenes lose by Student's factor."""
    shares = (np.arange(scenes) < right).astype(float)
    factor = (special.ndtri(intervals.CONFIDENCE) / special.stdtrit(scenes - 1, intervals.CONFIDENCE)) ** 2
    worth = intervals.effective_count_for_interval(shares, 1, np.arange(scenes))
    assert worth == pytest.approx((scenes - 1) * factor)


@pytest.mark.parametrize(
    ("shares", "scenes", "answers", "worth"),
    [
        ([1.0, 1.0, 1.0], [0, 1, 2], 1, 3.0),
        ([0.0, 0.0, 0.0], [0, 1, 2], 1, 3.0),
        ([1.0, 0.0], [4, 4], 1, 1.0),
        ([1.0, 1.0, 1.0, 1.0], [0, 0, 0, 1], 1, 1.6),
        ([0.5, 0.5], [0, 1], 1, 2.0),
    ],
)
def test_answers_that_do_not_differ_are_worth_their_scenes(
    shares: list[float], scenes: list[int], answers: int, worth: float
) -> None:
    """Scenes of unequal size are worth fewer of equal size; one scene is one witness."""
    counted = intervals.effective_count_for_interval(np.array(shares), answers, np.array(scenes))
    assert counted == pytest.approx(worth)


@pytest.mark.parametrize(
    ("signals", "noises", "scenes", "middle", "half"),
    [
        ([1, 1], [0.01, 0.03], [0, 1], 16.9897, 9.2358),
        ([1, 2, 1], [0.005, 0.015, 0.02], [7, 7, 9], 20.0, 9.2358),
        ([1, 1, 1, 1], [0.01, 0.01, 0.01, 0.05], [0, 1, 2, 3], 16.9897, 5.6212),
        ([4], [0.04], [0], 20.0, 38.1186),
    ],
)
def test_the_bounds_of_an_sqnr_are_known_by_hand(
    signals: list[float], noises: list[float], scenes: list[int], middle: float, half: float
) -> None:
    """The ratio estimator's spread over scenes, with one more of 3 dB, times Student's 97.5 %."""
    bounds = intervals.sqnr_db_interval(*map(np.array, (signals, noises, scenes)))
    assert bounds == pytest.approx((middle - half, middle + half), abs=2e-3)


def test_silence_has_no_bounds() -> None:
    """A reference of zeros is all noise."""
    assert intervals.sqnr_db_interval(np.zeros(2), np.ones(2), np.arange(2)) == (-math.inf, -math.inf)


@pytest.mark.parametrize(
    ("shares", "answers", "scenes", "count"),
    [
        ([1, 0, 1, 1], 1, [0, 0, 1, 1], 0.2036),
        ([1, 0, 1, 1], 1, [5, 5, 5, 5], 1.0),
        ([0, 0, 0], 1, [0, 1, 2], 3.0),
        ([1, 1, 1, 1], 1, [0, 0, 0, 1], 1.6),
        ([1, 1], 21, [0, 1], 21.0),
        ([1, 1, 0, 1, 0, 1], 1, [0, 1, 2, 3, 4, 5], 3.3320),
    ],
)
def test_the_number_of_independent_answers_is_known_by_hand(
    shares: list[float], answers: int, scenes: list[int], count: float
) -> None:
    """Scenes of unequal size are worth fewer, and those that differ fewer still."""
    effective = intervals.effective_count_for_interval(np.array(shares, float), answers, np.array(scenes))
    assert effective == pytest.approx(count, abs=1e-3)
