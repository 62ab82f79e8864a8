"""Outputs of any size, range and layout: one bad channel fails, and rounding alone passes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from exporter.records import Array, Variant
from tests.variants import FP16, INT8
from tests.verify.observed import fp16, int8, judged, made_references

Sizes = tuple[int, int, int, float, bool, int]
"""Samples, channels, positions, the decimal logarithm of the scale, whether channels are last, and a seed."""
WRONG = 0.05
"""The share of a channel's energy that a planted error has at least: 13 dB; luck spares some channels."""
SIZES: st.SearchStrategy[Sizes] = st.tuples(
    st.sampled_from([8, 16, 32, 64, 256]),
    st.integers(3, 80),
    st.sampled_from([1, 9]),
    st.floats(-2, 5),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
ROUNDED: dict[str, tuple[Variant, Callable[[Array], Array]]] = {
    "fp16": (FP16, fp16),
    "int8": (INT8, int8),
    "int8 per channel": (INT8, lambda y: int8(y, axis=2)),
}


def alike(sizes: Sizes, fits: bool = False) -> Array:
    """Channels that vary about equally, around means of their own: [samples, 1, channels, positions]."""
    samples, channels, positions, scale, _, seed = sizes
    random = np.random.default_rng(seed)
    spread = np.exp(0.3 * random.normal(size=(channels, 1)))
    offset = random.normal(size=(channels, 1))
    # float16 ends at 65504: `fits` keeps them within it
    values: Array = random.normal(size=(samples, 1, channels, positions)) * spread + offset
    return values * min(10**scale, 3e3 if fits else 1e5)


def unlike(sizes: Sizes) -> Array:
    """As many coordinates, which move by 10 to 640 pixels, and after them a score from 0 to 1."""
    samples, channels, positions, _, _, seed = sizes
    random = np.random.default_rng(seed)
    extent = np.exp(random.uniform(np.log(10), np.log(640), (channels, 1)))
    extent[0] = 640
    boxes = random.uniform(size=(samples, 1, channels, positions)) * extent
    score = 1 / (1 + np.exp(-3 * random.normal(size=(samples, 1, 1, positions))))
    both: Array = np.concatenate([boxes, score], axis=2)
    return both


def dead(values: Array) -> Array:
    return np.full_like(values, values.mean())


def gone(values: Array) -> Array:
    return np.zeros_like(values)


def clipped(values: Array) -> Array:
    ceiling: Array = np.minimum(values, np.quantile(values, 0.3))
    return ceiling


def few(values: Array) -> Array:
    """Three values are left of the channel."""
    low, high = values.min(), values.max()
    step = (high - low) / 2
    rounded: Array = low + np.round((values - low) / step) * step
    return rounded


def verdict_of(sizes: Sizes, variant: Variant, y: Array, a: Array) -> str:
    """Judge outputs in the layout of the sizes: channels last, or first."""
    if sizes[4]:
        y, a = y.swapaxes(2, 3), a.swapaxes(2, 3)
    return judged(variant, made_references(y), a).reason or ""


@pytest.mark.parametrize("rounding", ROUNDED)
@pytest.mark.parametrize("fault", [dead, gone, clipped, few], ids=lambda fault: fault.__name__)
@settings(max_examples=25)
@given(sizes=SIZES)
def test_one_planted_channel_fails(rounding: str, fault: Callable[[Array], Array], sizes: Sizes) -> None:
    """Whichever channel it is, and however many are right."""
    variant, rounded = ROUNDED[rounding]
    y = alike(sizes, fits=variant is FP16)
    a, index = rounded(y), sizes[5] % y.shape[2]
    a[:, :, index] = fault(y[:, :, index])
    assume(((a - y)[:, :, index] ** 2).mean() > WRONG * y[:, :, index].var())
    assert verdict_of(sizes, variant, y, a) != ""


@pytest.mark.parametrize("rounding", ROUNDED)
@settings(max_examples=25)
@given(sizes=SIZES)
def test_rounding_alone_passes(rounding: str, sizes: Sizes) -> None:
    """In any size, scale and layout."""
    variant, rounded = ROUNDED[rounding]
    y = alike(sizes, fits=variant is FP16)
    assert verdict_of(sizes, variant, y, rounded(y)) == ""


@settings(max_examples=25)
@given(sizes=SIZES)
@example(sizes=(8, 63, 1, 0.0, True, 0))
@example(sizes=(16, 63, 1, 0.0, True, 0))
def test_a_score_that_a_step_of_the_boxes_drowns_fails(sizes: Sizes) -> None:
    """However the boxes' ranges lead up to the score's: one 8-bit range leaves it two values."""
    y = unlike(sizes)
    assert verdict_of(sizes, INT8, y, int8(y)) != ""


@settings(max_examples=25)
@given(sizes=SIZES)
def test_a_score_with_a_range_of_its_own_passes(sizes: Sizes) -> None:
    """The same boxes and score are right in 8 bits each, and in float16."""
    y = unlike(sizes)
    assert verdict_of(sizes, INT8, y, int8(y, axis=2)) == ""
    assert verdict_of(sizes, FP16, y, fp16(y)) == ""
