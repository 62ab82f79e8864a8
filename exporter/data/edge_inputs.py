"""Edge inputs: the extremes of what a model can be given, derived from its real inputs.

A network need not accept everything that has the right shape: an empty mask, a length of zero and a token
beyond the vocabulary are not valid inputs. So integers and masks keep to the observed values; only what looks
like a signal (an image, a wave, a feature) is moved to its extremes and a little beyond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from exporter.records import Array, Preprocessing, Sample, TensorSpec

TINY = 1e-6
BEYOND = 0.25
"""How far "brighter" and "darker" shift a signal, as a share of the range that was observed."""

Kind = Literal["signal", "codes", "fixed"]


@dataclass(frozen=True)
class _EdgeInput:
    """One input: its array in the sample that the edges are shaped like, and its observed range."""

    array: Array
    kind: Kind
    low: float
    high: float
    black: Array | None
    white: Array | None


def edge_inputs(
    inputs: tuple[TensorSpec, ...],
    preprocessing: Preprocessing | None,
    sample: Sample,
    observed: Sequence[Sample] = (),
) -> Mapping[str, Sample]:
    """Make the edge inputs, shaped like `sample`.

    Args:
        inputs: The model's inputs.
        preprocessing: How photos become inputs, where they do.
        sample: A real call's inputs.
        observed: Other calls' inputs: with `sample`, they show each input's range and whether it is a mask.

    Returns:
        Name -> inputs, without those that equal `sample`. Of signals: "zeros"; "saturated_low" and
        "saturated_high": a black and a white photo, or the least and the largest value observed; "tiny": the
        sample times 1e-6; beyond what was observed "brighter", "darker" and "larger" (twice the sample).
        Codes (integers that take several values within a call, as tokens do) are all the least or all the
        largest code observed in the saturated edges. Masks, lengths and positions stay as they are.
    """
    described = [
        _describe_edge_input(spec, preprocessing, array, [row[i] for row in (sample, *observed)])
        for i, (spec, array) in enumerate(zip(inputs, sample, strict=True))
    ]
    edges = {name: tuple(_move_edge_input(name, each) for each in described) for name in NAMES}
    return {name: edge for name, edge in edges.items() if not _equal_edge_inputs(edge, sample)}


NAMES = ("zeros", "saturated_low", "saturated_high", "tiny", "brighter", "darker", "larger")


def _describe_edge_input(
    spec: TensorSpec, preprocessing: Preprocessing | None, array: Array, rows: Sequence[Array]
) -> _EdgeInput:
    kind = _edge_input_kind(rows)
    finite = [row[np.isfinite(row)] if row.dtype.kind == "f" else row for row in rows]
    low = min((float(row.min()) for row in finite if row.size), default=0.0)
    high = max((float(row.max()) for row in finite if row.size), default=0.0)
    photo = preprocessing if preprocessing is not None and is_edge_input_photo(spec, preprocessing) else None
    return _EdgeInput(
        array,
        kind,
        low,
        high,
        _plain_edge_input_photo(array, photo, 0) if photo else None,
        _plain_edge_input_photo(array, photo, 255) if photo else None,
    )


def _edge_input_kind(rows: Sequence[Array]) -> Kind:
    """Classify an input by its values in every sample."""
    first = rows[0]
    if first.dtype.kind not in "fiu":
        return "fixed"
    values = np.unique(np.concatenate([np.unique(row) for row in rows]))
    if first.dtype.kind == "f":
        return "signal" if len(values) > 2 else "fixed"  # two values are a mask
    lengths = first.size == first.shape[0] if first.ndim else True
    flat = [row.reshape(-1) for row in rows]
    ordered = all((row[1:] >= row[:-1]).all() for row in flat)  # positions, offsets
    return "fixed" if len(values) <= 2 or lengths or ordered else "codes"


def _move_edge_input(name: str, given: _EdgeInput) -> Array:
    array = given.array
    if given.kind == "fixed" or (given.kind == "codes" and not name.startswith("saturated")):
        return array.copy()
    span = BEYOND * (given.high - given.low)
    moved: Array
    match name:
        case "zeros":
            moved = np.zeros_like(array)
        case "saturated_low":
            moved = np.full_like(array, given.low) if given.black is None else given.black
        case "saturated_high":
            moved = np.full_like(array, given.high) if given.white is None else given.white
        case "tiny":
            moved = array * array.dtype.type(TINY)
        case "brighter":
            moved = array + array.dtype.type(span)
        case "darker":
            moved = array - array.dtype.type(span)
        case _:
            moved = array * array.dtype.type(2)
    return moved


def _plain_edge_input_photo(array: Array, preprocessing: Preprocessing, byte: int) -> Array:
    if preprocessing.pixels:
        return np.full_like(array, byte)
    brightness = byte / 255 * preprocessing.scale
    values = (brightness - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    return np.ascontiguousarray(np.broadcast_to(values[:, None, None], array.shape).astype(array.dtype))


def _equal_edge_inputs(edge: Sample, sample: Sample) -> bool:
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(edge, sample, strict=True))


def is_edge_input_photo(spec: TensorSpec, preprocessing: Preprocessing) -> bool:
    """Tell whether the preprocessing's statistics are for this input's channels."""
    if preprocessing.pixels:
        return spec.dtype == "uint8" and len(spec.shape) == 4
    channels = spec.shape[1] if len(spec.shape) == 4 else 0
    return (
        channels in {1, 3}
        and len(preprocessing.mean) in {1, channels}
        and len(preprocessing.std) in {1, channels}
    )
