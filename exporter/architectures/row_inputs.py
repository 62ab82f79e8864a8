"""Infer the shapes of a network's inputs from the rows of a `.npz` file of calibration data."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter.data.npz import load_npz
from exporter.records import INPUT_DTYPES, Array, TensorSpec

if TYPE_CHECKING:
    import torch


def infer_row_inputs(
    module: torch.nn.Module, path: Path, names: Sequence[str] | None, required: int
) -> tuple[TensorSpec, ...]:
    """Return the inputs that a file's arrays hold samples of; empty where these cannot be the network's.

    The first axis counts samples. The batch axis of one that rows leave out is added where the network takes
    the row so; else a row is the whole input.

    Args:
        module: The network, which is called on a copy of itself.
        path: A `.npz` with arrays named like the inputs, or `arr_0`, `arr_1`, … in their order.
        names: The inputs of forward; None where it takes any number.
        required: How many of them have no default.
    """
    arrays = load_npz(path)
    columns = _columns_of_row_inputs(arrays, names, required)
    if not columns or any(array.ndim < 1 or not len(array) for _, array in columns):
        return ()
    rows = [(name, _cast_row_input(array[0])) for name, array in columns]
    for batched in (True, False):
        sample = [row[None] if batched else row for _, row in rows]
        if all(row.ndim and row.dtype.name in INPUT_DTYPES for row in sample) and _takes_row_input(
            module, sample
        ):
            return tuple(
                TensorSpec(name, row.shape, row.dtype.name)
                for (name, _), row in zip(rows, sample, strict=True)
            )
    return ()


def _columns_of_row_inputs(
    arrays: dict[str, Array], names: Sequence[str] | None, required: int
) -> list[tuple[str, Array]]:
    """Return the arrays that are inputs, in forward's order, with the inputs' names."""
    named = [name for name in names or () if name in arrays]
    if named and set((names or ())[:required]) <= set(named) and named == list((names or ())[: len(named)]):
        return [(name, arrays[name]) for name in named]
    positional = [f"arr_{index}" for index in range(len(arrays))]
    if set(positional) != set(arrays) or (names is not None and not required <= len(arrays) <= len(names)):
        return []
    given = names or [""] * len(arrays)
    return [(name, arrays[key]) for name, key in zip(given, positional, strict=False)]


def _cast_row_input(row: Array) -> Array:
    """Return a row as the network takes it: float32 where it holds floats."""
    return np.asarray(row, np.float32) if row.dtype.kind == "f" else np.asarray(row)


def _takes_row_input(module: torch.nn.Module, sample: Sequence[Array]) -> bool:
    """Tell whether the network answers a sample; a copy is asked, as calls may change its buffers."""
    import torch

    try:
        with torch.no_grad():
            copy.deepcopy(module)(*(torch.from_numpy(np.ascontiguousarray(row)) for row in sample))
    except Exception:
        return False
    return True
