"""Maps of scores: a class moves in the few samples that show it, and noise has no more samples than that."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.records import Array, Verdict
from exporter.verify.channels import FEW_POSITIONS, measure_channels
from tests.variants import INT8
from tests.verify.observed import judged, made_references

SAMPLES, CLASSES, ANCHORS = 16, 20, 400
PIXELS = 320.0
RARE = CLASSES - 1
"""A class that one photo may show, and that the model doubts there."""


def scores_before_sigmoid(seed: int) -> Array:
    """Return [samples, 1, classes, anchors]: an object in each photo, in one photo also a doubtful one."""
    random = np.random.default_rng(seed)
    logits: Array = random.normal(-7, 0.7, (SAMPLES, 1, CLASSES, ANCHORS))
    for sample in range(SAMPLES):
        place, kind = random.integers(ANCHORS - 12), random.integers(RARE)
        logits[sample, 0, kind, place : place + 12] = random.normal(1, 1, 12)
    logits[5, 0, RARE, 30:42] = random.normal(-2.3, 0.3, 12)
    return logits


def with_boxes(logits: Array, seed: int) -> Array:
    """Put boxes in pixels before the scores, as one tensor."""
    boxes = np.random.default_rng(seed).uniform(0, PIXELS, (SAMPLES, 1, 4, ANCHORS))
    return np.concatenate([boxes, 1 / (1 + np.exp(-logits))], axis=2)


def noisy(logits: Array, seed: int) -> Array:
    """Add an error of a quarter to every logit; the doubtful object becomes a likely one."""
    random = np.random.default_rng(seed + 100)
    changed: Array = logits + random.normal(0, 0.25, logits.shape)
    changed[5, 0, RARE, 30:42] += 1.1
    return changed


def verdict_on(logits: Array, changed: Array, seed: int) -> Verdict:
    return judged(INT8, made_references(with_boxes(logits, seed)), with_boxes(changed, seed))


@pytest.mark.parametrize("seed", range(6))
def test_a_class_that_one_photo_doubts_is_judged_as_one_sample(seed: int) -> None:
    """Its error is one photo's luck, and no fault of the class."""
    logits = scores_before_sigmoid(seed)
    assert verdict_on(logits, noisy(logits, seed), seed).reason is None


def dead(logits: Array, kind: int) -> Array:
    changed = logits.copy()
    changed[:, :, kind] = -7
    return changed


def firing(logits: Array, kind: int) -> Array:
    changed = logits.copy()
    changed[:, :, kind] += 4
    return changed


def exchanged(logits: Array, kind: int) -> Array:
    changed = logits.copy()
    changed[:, :, [kind, kind - 1]] = logits[:, :, [kind - 1, kind]]
    return changed


@pytest.mark.parametrize("fault", [dead, firing, exchanged])
@pytest.mark.parametrize("seed", range(6))
def test_a_wrong_class_fails_in_a_map(fault: object, seed: int) -> None:
    """A class with an object that stands still, fires everywhere, or has another class's scores is wrong."""
    assert callable(fault)
    logits = scores_before_sigmoid(seed)
    kind = int((1 / (1 + np.exp(-logits)))[:, 0, :RARE].max(axis=(0, 2)).argmax())
    verdict = verdict_on(logits, fault(logits, kind), seed)
    assert verdict.status == "failed", verdict


def test_movement_is_spread_over_the_samples_that_have_it() -> None:
    """One sample of eight has all of a channel's movement, two have it, all have it."""
    y = np.zeros((8, 3, FEW_POSITIONS))
    y[0, 0, ::2] = 1
    y[:2, 1, ::2] = [[1], [-1]]
    y[:, 2] = np.random.default_rng(0).normal(size=(8, FEW_POSITIONS))
    (channels,) = (c for c in measure_channels((y,), (y,), ()) if c.axis == 0)
    one, two, every = channels.moving_samples
    assert one == pytest.approx(1, abs=0.5)
    assert two == pytest.approx(2, abs=0.01)
    assert every > 7


def test_few_positions_say_nothing_of_the_samples() -> None:
    """A channel of one value less than a map has as many samples as there are."""
    y = np.zeros((8, 1, FEW_POSITIONS - 1))
    y[0] = 1
    (channels,) = (c for c in measure_channels((y,), (y,), ()) if c.axis == 1)
    assert channels.moving_samples.tolist() == [8.0] * (FEW_POSITIONS - 1)
    (whole,) = measure_channels((y[:, 0],), (y[:, 0],), ())
    assert set(whole.moving_samples.tolist()) == {8.0}
