"""Counts on labelled samples, their intervals, and the rule that fails an artifact."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.errors import CalibrationError
from exporter.records import Accuracy
from exporter.verify import accuracy, labelled_loss
from exporter.verify.accuracy import Predictions


def lost(count: int, before: int, lost: int, gained: int = 0) -> Accuracy:
    """An artifact's counts: float32 right about `before` of `count`."""
    return Accuracy(count, before - lost + gained, None, lost, gained, count - lost - gained)


def test_rank_gives_the_largest_first() -> None:
    """Five of them; of equal scores the lower class; NaN after every number."""
    scores = np.array([[0.1, 7.0, 3.0, np.nan, 3.0, -1.0], [np.nan] * 6])
    assert accuracy.rank_for_accuracy(scores).tolist() == [[1, 2, 4, 0, 5], [0, 1, 2, 3, 4]]


def test_counts_are_paired_with_float32() -> None:
    """Right, among five, lost, gained and same, sample by sample; what could not be read does not count."""
    floats = np.array([[0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [2, 1, 0, 3, 4], [-1] * 5])
    mine = np.array([[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 5, 2, 3, 4], [0, 1, 2, 3, 4]])
    labels = np.array([0, 0, 2, 0])
    counts = accuracy.count_accuracy(labels, Predictions(mine), Predictions(floats), 10)
    assert counts == Accuracy(count=3, right=2, right5=3, lost=1, gained=1, same=1)
    assert accuracy.count_accuracy(labels, Predictions(mine), Predictions(floats), 5).right5 is None


@pytest.mark.parametrize(
    ("right", "of", "low", "high"), [(0, 10, 0, 0.2775), (8, 10, 0.4902, 0.9433), (10, 10, 0.7225, 1)]
)
def test_the_interval_of_a_share_is_wilsons(right: int, of: int, low: float, high: float) -> None:
    """Figures of published tables."""
    assert accuracy.accuracy_interval(right, of) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("both", "lost", "gained"), [(0.7, 0.03, 0.02), (0.9, 0.05, 0.0), (0.4, 0.1, 0.1)])
@pytest.mark.parametrize("count", [60, 400])
def test_the_drops_interval_holds_the_truth(both: float, lost: float, gained: float, count: int) -> None:
    """Drawn 4000 times, the true drop lies in 93 to 99.9 % of its 95 % intervals."""
    drawn = np.random.default_rng(0).multinomial(count, [both, lost, gained, 1 - both - lost - gained], 4000)
    inside = 0
    for b, minus, plus, _ in drawn:
        counts = Accuracy(count, int(b + plus), None, int(minus), int(plus), 0)
        low, high = accuracy.accuracy_drop_interval(counts)
        inside += low <= 100 * (lost - gained) <= high
    assert 0.93 <= inside / 4000 <= 0.999


def test_the_measured_drop_decides() -> None:
    """At the limit it passes, above it fails with the counts and the interval."""
    assert labelled_loss.labelled_loss_reason(lost(200, 180, 3, 1), 1.0) == ""
    assert labelled_loss.labelled_loss_reason(lost(200, 180, 4, 1), 1.0) == (
        "It loses 1.5 points of top-1 (4 lost, 1 gained of 200; 95 % interval -1.2 to 4.4); 1 may be lost."
    )


def test_doubt_is_said_on_both_sides() -> None:
    """Where the interval holds the limit, over or within it, and only there."""
    counts = {"over": lost(200, 180, 4, 1), "within": lost(200, 180, 0), "bad": lost(200, 180, 100)}
    assert labelled_loss.labelled_loss_doubt(counts, 1.0) == (
        "200 labelled samples cannot tell for certain if more than 1 point(s) of top-1 are lost; the "
        "measured loss and its 95 % interval: over 1.5 (-1.2 to 4.4), within 0 (-1.8 to 1.8). "
        "More samples narrow it."
    )
    assert (
        labelled_loss.labelled_loss_doubt({"a": lost(2000, 1800, 0), "b": lost(2000, 1800, 200)}, 1.0) == ""
    )


def test_a_drop_within_the_limit_must_be_proven() -> None:
    """The upper bound decides; what is over the limit has failed and needs no doubt."""
    assert labelled_loss.unproven_labelled_loss(lost(200, 180, 0), 1.0) == (
        "200 labelled samples cannot decide: it loses 0 points of top-1 (95 % interval -1.8 to 1.8); "
        "1 may be lost. About 444 more labelled samples like these would decide."
    )
    assert labelled_loss.unproven_labelled_loss(lost(2000, 1800, 0), 1.0) == ""
    assert labelled_loss.unproven_labelled_loss(lost(200, 180, 4, 1), 1.0) == ""


def test_too_few_samples_are_refused() -> None:
    """One sample must not be more than may be lost."""
    accuracy.check_enough_for_accuracy(100, 1.0)
    accuracy.check_enough_for_accuracy(1, 0.0)
    with pytest.raises(CalibrationError, match=r"one of them is 2 points .* Give 100 or more"):
        accuracy.check_enough_for_accuracy(50, 1.0)
