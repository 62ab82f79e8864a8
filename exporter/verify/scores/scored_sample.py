"""The records that the scores of all tasks share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from exporter.records import Array

Label = Mapping[str, Array]
"""A sample's label: arrays by name, as the task's file of `exporter.data.labels` makes them."""
Rows = Mapping[str, Sequence[Sequence[float]]]
Tables = Mapping[str, Array]
"""Table name -> [rows, 1 + columns], float64. The first column is the number of the sample."""
Measures = Callable[[Array], Mapping[str, float]]


@dataclass(frozen=True, eq=False)
class ScoredSample:
    """One model's outputs on one sample."""

    names: Sequence[str]
    outputs: Sequence[Array]
    """Each as [1, …], or as the model gives it where it has no batch axis."""
    size: tuple[int, int]
    """Height and width of the input, in pixels; (1, 1) where the input is no image."""

    def find(self, *words: str) -> int | None:
        """Return the first output whose name holds one of the words."""
        return next((i for i, n in enumerate(self.names) if any(w in n.lower() for w in words)), None)

    def first_float(self, least: int = 1) -> Array:
        """Return the first float output of at least so many dimensions, in float64.

        Raises:
            ValueError: There is none.
        """
        for output in self.outputs:
            if output.dtype.kind == "f" and output.ndim >= least:
                return output.astype(np.float64)
        shapes = ", ".join(f"{list(o.shape)} {o.dtype}" for o in self.outputs)
        raise ValueError(f"no output can be read as this task's: {shapes}")


def ratio_of_sample_scores(
    tables: Tables, name: str, above: int, below: int | None, count: int
) -> Callable[[Array], float]:
    """Return a function: the weighted sum of one column over that of another, or over the rows' weights."""
    table = tables[name]
    samples = table[:, 0].astype(int)
    parts = table[:, 1 + above], np.ones(len(table)) if below is None else table[:, 1 + below]
    # Summed per sample once: a bootstrap calls the function hundreds of times.
    top, bottom = (np.bincount(samples, part, count) for part in parts)

    def share(weights: Array) -> float:
        total = float(weights @ bottom)
        return float(weights @ top) / total if total else float("nan")

    return share
