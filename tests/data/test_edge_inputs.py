"""Edge inputs are inputs that a model may meet, made from what its real inputs are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from exporter import data
from exporter.data import photo_preprocessing
from exporter.data.edge_inputs import NAMES
from exporter.records import Array, Preprocessing, Sample, TensorSpec

SMALL = Preprocessing(resize=20, crop=(16, 16))


def rows(*columns: Sequence[Array]) -> list[Sample]:
    return list(zip(*columns, strict=True))


def edges_of(*columns: Sequence[Array]) -> dict[str, Sample]:
    """Make the edges of a model with these observed columns as inputs, whose first row is the sample."""
    observed = rows(*columns)
    specs = tuple(TensorSpec(f"x{i}", a.shape, a.dtype.name) for i, a in enumerate(observed[0]))
    return dict(data.edge_inputs(specs, None, observed[0], observed[1:]))


def floats(*values: Sequence[float]) -> list[Array]:
    return [np.array([row], np.float32) for row in values]


def integers(*values: Sequence[int]) -> list[Array]:
    return [np.array([row]) for row in values]


SIGNAL = floats([1.0, -3.0, 2.0, 0.5], [0.0, 5.0, 1.0, 1.0])


def test_photos_saturate_to_black_and_white() -> None:
    """The saturated edges are a black and a white photo, preprocessed."""
    sample = (np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32),)
    edges = data.edge_inputs((TensorSpec("image", (1, 3, 16, 16)),), SMALL, sample)
    assert set(edges) == set(NAMES)
    for name, colour in (("saturated_low", "black"), ("saturated_high", "white")):
        plain = photo_preprocessing.preprocess_photo(Image.new("RGB", (50, 50), colour), SMALL)[None]
        np.testing.assert_allclose(edges[name][0], plain, atol=1e-6)
    assert not edges["zeros"][0].any()
    np.testing.assert_allclose(edges["tiny"][0], sample[0] * 1e-6, rtol=1e-5)
    assert all(e[0].flags.c_contiguous and e[0].dtype == np.float32 for e in edges.values())


def test_signals_reach_what_was_observed_and_a_little_beyond() -> None:
    """The extremes are those of all samples, not of the one that the edges are shaped like."""
    edges = edges_of(SIGNAL)
    assert edges["saturated_low"][0].tolist() == [[-3.0] * 4]
    assert edges["saturated_high"][0].tolist() == [[5.0] * 4]
    assert edges["larger"][0].tolist() == [[2.0, -6.0, 4.0, 1.0]]
    assert edges["brighter"][0].tolist() == [[3.0, -1.0, 4.0, 2.5]]
    assert edges["darker"][0].max() == 0.0


def test_codes_stay_among_those_observed() -> None:
    """Codes keep to the observed ones: neither a token beyond the vocabulary nor a zero is made up."""
    edges = edges_of(SIGNAL, integers([4, 1, 7, 7], [3, 2, 9, 5]))
    assert edges["saturated_low"][1].tolist() == [[1] * 4]
    assert edges["saturated_high"][1].tolist() == [[9] * 4]
    for name in ("zeros", "tiny", "brighter", "darker", "larger"):
        assert edges[name][1].tolist() == [[4, 1, 7, 7]]
    assert {edge[1].dtype for edge in edges.values()} == {np.dtype(np.int64)}


KEPT = {
    "a boolean mask": [np.array([[True, False]]), np.array([[True, True]])],
    "an integer mask": integers([1, 1, 0], [1, 0, 0]),
    "a float mask": floats([0.0, -1e9, -1e9], [0.0, 0.0, -1e9]),
    "an infinite mask": floats([0.0, -np.inf, -np.inf], [0.0, 0.0, -np.inf]),
    "lengths": [np.array([5]), np.array([3]), np.array([7])],
    "a lone length": [np.array(5), np.array(3), np.array(7)],
    "positions": integers([0, 1, 2, 3], [0, 1, 2, 3]),
    "offsets": integers([0, 3, 5, 9], [0, 2, 4, 6]),
}


@pytest.mark.parametrize("kind", KEPT)
def test_what_has_a_meaning_stays_as_it_is(kind: str) -> None:
    """Masks, lengths and offsets stay as they are: empty, zero or out of order they are not valid."""
    column = KEPT[kind]
    for edge in edges_of(
        [np.ones_like(SIGNAL[0]) * i + SIGNAL[0] for i in range(len(column))], column
    ).values():
        np.testing.assert_array_equal(edge[1], column[0])


def test_edges_that_change_nothing_are_left_out() -> None:
    """A model of tokens has two edges: all its least, and all its largest code."""
    assert set(edges_of(integers([4, 1, 7], [2, 3, 9]))) == {"saturated_low", "saturated_high"}
    assert edges_of(KEPT["a boolean mask"]) == {}
