"""Gathering and scattering. Negative positions count from the end; what is out of range is an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from exporter.formats.coreml.interpreter.mil_call import Call
from exporter.records import Array

_SCATTER: Mapping[str, Callable[[Array, Any, Array], None]] = {
    "add": np.add.at,
    "sub": np.subtract.at,
    "mul": np.multiply.at,
    "div": np.divide.at,
    "max": np.maximum.at,
    "min": np.minimum.at,
}


def index_gather(call: Call) -> Array:
    """Compute `gather` along one axis, with leading dimensions in common where `batch_dims` says so."""
    x, positions = call.array("x"), call.array("indices")
    axis, shared = call.integer("axis", 0) % x.ndim, call.integer("batch_dims", 0)
    if not shared:
        return np.asarray(np.take(x, positions.astype(np.int64), axis))
    lead = x.shape[:shared]
    rows = x.reshape(-1, *x.shape[shared:])
    chosen = positions.astype(np.int64).reshape(len(rows), *positions.shape[shared:])
    gathered = np.stack([np.take(row, own, axis - shared) for row, own in zip(rows, chosen, strict=True)])
    return gathered.reshape(*lead, *gathered.shape[1:])


def index_gather_along(call: Call) -> Array:
    """Compute `gather_along_axis`."""
    return np.take_along_axis(
        call.array("x"), call.array("indices").astype(np.int64), call.integer("axis", 0)
    )


def index_gather_many(call: Call) -> Array:
    """Compute `gather_nd`: the last dimension of the indices is a position in the first dimensions of x."""
    x, positions = call.array("x"), call.array("indices").astype(np.int64)
    shared = call.integer("batch_dims", 0)
    if not shared:
        return np.asarray(x[tuple(np.moveaxis(positions, -1, 0))])
    rows = x.reshape(-1, *x.shape[shared:])
    chosen = positions.reshape(len(rows), *positions.shape[shared:])
    gathered = [row[tuple(np.moveaxis(own, -1, 0))] for row, own in zip(rows, chosen, strict=True)]
    return np.stack(gathered).reshape(*x.shape[:shared], *np.shape(gathered[0]))


def index_scatter(call: Call) -> Array:
    """Compute `scatter`: slices of the updates at positions along one axis."""
    data = call.array("data").copy()
    axis = call.integer("axis", 0) % data.ndim
    place = (*[slice(None)] * axis, call.array("indices").astype(np.int64))
    return _index_update(call, data, place, call.array("updates"))


def index_scatter_along(call: Call) -> Array:
    """Compute `scatter_along_axis`. coremltools' own inference ignores the mode."""
    data, positions = call.array("data").copy(), call.array("indices").astype(np.int64)
    axis = call.integer("axis", 0) % data.ndim
    place = list(np.ogrid[tuple(slice(size) for size in positions.shape)])
    place[axis] = positions
    return _index_update(call, data, tuple(place), call.array("updates"))


def index_scatter_many(call: Call) -> Array:
    """Compute `scatter_nd`: the last dimension of the indices is a position in the first dimensions."""
    positions = call.array("indices").astype(np.int64)
    place = tuple(np.moveaxis(positions, -1, 0))
    return _index_update(call, call.array("data").copy(), place, call.array("updates"))


def _index_update(call: Call, data: Array, place: Any, updates: Array) -> Array:
    mode = call.text("mode", "add")
    if mode == "update":
        data[place] = updates
        return data
    if mode not in _SCATTER:
        raise call.refuse(f"mode {mode!a}")
    _SCATTER[mode](data, place, updates)
    return data


def index_one_hot(call: Call) -> Array:
    """Compute `one_hot`; a position out of range marks nothing."""
    positions, size = call.array("indices"), call.integer("one_hot_vector_size")
    axis = call.integer("axis", -1) % (positions.ndim + 1)
    shape = [1] * (positions.ndim + 1)
    shape[axis] = size
    hit = np.expand_dims(positions, axis) == np.arange(size).reshape(shape)
    on, off = (call.array(n) if call.has(n) else np.int32(v) for n, v in (("on_value", 1), ("off_value", 0)))
    return np.where(hit, on, off)
