"""Finds rows of arrays that are near copies of each other: noise added, windows shifted by a step.

A row is a near copy when its nearest neighbour is much closer than neighbours of independent rows are. What
is close depends on how many directions the data has: of 100 rows along a line the nearest neighbour is at a
fiftieth of the distance to the fiftieth, of rows in many directions at nearly the same. So the distance to
the k-th neighbour, which copies do not change while a row has fewer than k, is scaled by (1/k)^(1/d).

Of 64 independent rows in 1, 2, 3, 4 and more directions 57, 61, 63, 64 and 64 stay apart. Copies with noise
of a tenth of the rows' spread are found from 16 directions on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from exporter.records import Array, Sample

SHARE = 0.3
"""Rows closer than this share of the distance expected of nearest neighbours are near copies."""
NEIGHBOURS = 2
"""k is the number of rows divided by this, so that two scenes with many copies each are told apart."""
MOST_VALUES = 20_000
"""The most values of an input that are compared, evenly spaced."""
FEWEST = 4
"""Rows from which distances tell anything."""


def pairs_of_near_copies(rows: Sequence[Sample]) -> Iterator[tuple[int, int]]:
    """Yield the positions of every two rows that are near copies."""
    if len(rows) < FEWEST:
        return
    distances = _near_copy_distances(rows)
    away = np.sort(distances, axis=1)[:, 1:]
    k = max(1, len(rows) // NEIGHBOURS)
    near = SHARE * float(np.median(away[:, k - 1])) * (1 / k) ** (1 / _near_copy_directions(distances))
    for i, j in zip(*np.nonzero(np.triu(distances <= near, 1)), strict=True):
        yield int(i), int(j)


def _near_copy_distances(rows: Sequence[Sample]) -> Array:
    """Return the distance of every two rows, over all inputs by their number of values.

    Each input counts by its own typical distance. Of whole numbers, which may be names of words, the share of
    different values counts.
    """
    squares, values = np.zeros((len(rows), len(rows))), 0
    for arrays in zip(*rows, strict=True):
        step = -(-arrays[0].size // MOST_VALUES)
        own = _near_copy_input_distances(np.stack([array.reshape(-1)[::step] for array in arrays]))
        typical = float(np.median(own[~np.eye(len(rows), dtype=bool)]))
        if typical > 0:
            squares += arrays[0].size * own / typical
            values += arrays[0].size
    result: Array = np.sqrt(squares / max(values, 1))
    return result


def _near_copy_input_distances(stacked: Array) -> Array:
    """Return the squared distances of one input's rows."""
    if stacked.dtype.kind != "f":
        return np.array([(stacked != row).mean(axis=1) for row in stacked])
    wide = stacked.astype(np.float64)
    wide -= wide.mean(axis=0)
    lengths = (wide**2).sum(axis=1)
    squares: Array = np.maximum(lengths[:, None] + lengths[None] - 2 * wide @ wide.T, 0.0)
    return squares


def _near_copy_directions(distances: Array) -> float:
    """Return how many directions the rows spread in: the participation ratio of principal components."""
    count = len(distances)
    centre = np.eye(count) - 1 / count
    spread = np.linalg.eigvalsh(-0.5 * centre @ (distances**2) @ centre)
    spread = np.maximum(spread, 0.0)
    return max(1.0, float(spread.sum() ** 2 / max(float((spread**2).sum()), 1e-300)))
