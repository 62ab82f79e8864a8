"""Tests of the choice of a few samples among many."""

from __future__ import annotations

import pytest

from exporter.quantize.graphs import other_graph_samples, spread_graph_samples


@pytest.mark.parametrize("photos", [2, 3, 4, 5, 6, 8, 10, 12, 16])
@pytest.mark.parametrize("crops", [3, 4, 8])
@pytest.mark.parametrize("most", [4, 8, 16])
def test_a_few_crops_show_most_photos(photos: int, crops: int, most: int) -> None:
    """Crops in turn, photo after photo: those that are taken are not always of the same photos."""
    samples = [photo for _ in range(crops) for photo in range(photos)]
    few = spread_graph_samples(samples, most)
    assert len(few) == min(most, len(samples))
    assert len(set(few)) >= 0.5 * min(photos, len(few))
    assert spread_graph_samples(samples, most) == few


@pytest.mark.parametrize("count", [1, 3, 4, 5, 7, 16, 64, 100])
def test_the_others_are_others(count: int) -> None:
    """The other samples share none with the few, unless the few are all."""
    few, rest = spread_graph_samples(range(count), 4), other_graph_samples(range(count), 4)
    assert sorted(set(few)) == list(few)
    assert rest
    assert (set(few) & set(rest) == set()) is (count > 4)
    assert len(rest) <= max(4, count if count <= 4 else 4)
