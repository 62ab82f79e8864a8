"""Undoes orders that rounding decides: rows whose scores are equal may come in any order.

A model that sorts (top-k, detections by score) gives several outputs whose rows belong together. Where the
reference's scores are equal but for rounding, an artifact's rows are put into the reference's order before
anything is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from exporter.records import Array
from exporter.verify.reference_io import Stacks

SORTED_AXIS = 2
"""The axis of rows in the stacks: samples, batch, rows."""


def undo_ties_of_outputs(reference: Stacks, actual: Stacks, tolerances: Sequence[float]) -> Stacks:
    """Return the artifact's outputs with rows of equal reference scores in the reference's order.

    Args:
        reference: Per output [N, *shape].
        actual: The artifact's outputs, of the same shapes.
        tolerances: Per output, how far apart scores may be and still be equal.
    """
    for index, scores in enumerate(reference):
        if _is_tie_sorted(scores):
            partners = [i for i, y in enumerate(reference) if _has_tied_rows_of(y, scores)]
            blocks = list(_tied_row_blocks(scores, tolerances[index]))
            if blocks and len(partners) > 1:
                actual = _reorder_ties(reference, actual, partners, blocks)
    return actual


def _is_tie_sorted(scores: Array) -> bool:
    if scores.dtype.kind != "f" or scores.ndim != SORTED_AXIS + 1 or scores.shape[SORTED_AXIS] < 2:
        return False
    steps = np.diff(scores, axis=SORTED_AXIS)
    return bool((steps <= 0).all() or (steps >= 0).all())


def _has_tied_rows_of(output: Array, scores: Array) -> bool:
    return output.shape[: SORTED_AXIS + 1] == scores.shape


def _tied_row_blocks(scores: Array, tolerance: float) -> Iterator[tuple[int, int, slice]]:
    """Yield (sample, batch, rows) of each run of equal scores."""
    tied = np.abs(np.diff(scores, axis=SORTED_AXIS)) <= tolerance
    for sample, batch in zip(*np.nonzero(tied.any(axis=SORTED_AXIS)), strict=True):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], tied[sample, batch], [False]]).astype(int)))
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            yield int(sample), int(batch), slice(int(start), int(end) + 1)


def _reorder_ties(
    reference: Stacks, actual: Stacks, partners: Sequence[int], blocks: Sequence[tuple[int, int, slice]]
) -> Stacks:
    changed = list(actual)
    for index in partners:
        changed[index] = changed[index].copy()
    for block in blocks:
        cost = sum(_tie_distances(reference[i][block], actual[i][block]) for i in partners)
        order = _match_ties(np.asarray(cost))
        for index in partners:
            changed[index][block] = actual[index][block][order]
    return tuple(changed)


def _tie_distances(y: Array, a: Array) -> Array:
    """Return how unlike each row of the reference is each row of the artifact, from 0 to about 1."""
    rows_y, rows_a = y.reshape(len(y), 1, -1), a.reshape(1, len(a), -1)
    if y.dtype.kind not in "fc":
        different: Array = (rows_y != rows_a).mean(axis=2)
        return different
    scale = float(np.abs(y).max(initial=0.0)) or 1.0
    distances: Array = np.abs(rows_y - rows_a).mean(axis=2) / scale
    return distances


def _match_ties(cost: Array) -> Array:
    """Assign each reference row the artifact's row that is most alike and still free, surest first."""
    order = np.zeros(len(cost), np.int64)
    open_cost = cost.copy()
    for _ in range(len(cost)):
        row, column = np.unravel_index(np.argmin(open_cost), cost.shape)
        order[row] = column
        open_cost[row, :] = open_cost[:, column] = np.inf
    return order
