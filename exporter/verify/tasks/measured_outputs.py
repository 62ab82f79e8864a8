"""What every task's measure is given and gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exporter.records import Array
from exporter.verify.reference_io import Stacks

FLOATS = frozenset({"fp32", "fp16"})


@dataclass(frozen=True, eq=False)
class MeasuredOutputs:
    """The outputs of the model and of an artifact on the same inputs, stacked: [samples, batch, …]."""

    names: Sequence[str]
    """The names of the outputs, in order; empty where they are not known."""
    inputs: Stacks
    reference: Stacks
    actual: Stacks
    precision: str

    def limit(self, exact: float, lossy: float) -> float:
        """Return the limit for float artifacts, or the one for quantised and compressed ones."""
        return exact if self.precision in FLOATS else lossy

    def find(self, *words: str) -> int | None:
        """Return the first output whose name holds one of the words."""
        return next((i for i, n in enumerate(self.names) if any(w in n.lower() for w in words)), None)

    def first_float(self, dimensions: int) -> int | None:
        """Return the first float output of so many dimensions, the sample's and the batch's among them."""
        return next(
            (i for i, y in enumerate(self.reference) if y.dtype.kind == "f" and y.ndim == dimensions), None
        )


def merged_measured_outputs(array: Array) -> Array:
    """Return [samples, batch, …] as [samples * batch, …], in float64."""
    flat: Array = array.reshape(-1, *array.shape[2:])
    return flat.astype(np.float64) if flat.dtype.kind == "f" else flat
