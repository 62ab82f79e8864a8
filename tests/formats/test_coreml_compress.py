"""Core ML's weights are compressed and decoded in blocks: a large table of words must fit into memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from exporter.formats.coreml import coreml_compress
from exporter.formats.coreml.interpreter import constants
from exporter.formats.coreml.interpreter.mil_call import Call, Value

SIZE = 1 << 22
WEIGHTS: dict[str, Callable[[np.random.Generator], NDArray[Any]]] = {
    "many values": lambda random: random.normal(size=(37, 53)),
    "fewer values than a palette": lambda random: random.integers(-3, 4, size=(4, 50)) / 8,
    "both zeros": lambda random: random.choice([0.0, -0.0, 1.5, -1.5], size=300),
    "one value": lambda random: np.full((3, 7), 0.25),
    "transposed": lambda random: random.normal(size=(12, 31)).T,
    "extremes": lambda random: random.choice([65504.0, -65504.0, 6e-8, 1.0], size=64),
}


def peak_bytes(compute: Callable[[], object]) -> int:
    """Return the most that NumPy holds at once while it computes."""
    tracemalloc.start()
    try:
        compute()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", WEIGHTS)
def test_a_palette_of_counted_values_is_that_of_sorted_ones(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half precision, whose patterns of bits are counted, gets the palette that float32 gets by sorting."""
    monkeypatch.setattr(coreml_compress, "BLOCK", 64)
    weight = WEIGHTS[kind](np.random.default_rng(0)).astype(np.float16)
    counted = coreml_compress.best_palette_for_coreml_compress(weight)
    sorted_ = coreml_compress.best_palette_for_coreml_compress(weight.astype(np.float32))
    np.testing.assert_array_equal(counted[0], sorted_[0].astype(np.float16))
    np.testing.assert_array_equal(counted[1], sorted_[1])


def test_a_palette_of_a_large_tensor_takes_little_memory() -> None:
    """What it takes beside the weight is at most twice the weight."""
    weight = np.random.default_rng(0).normal(size=SIZE).astype(np.float16)
    assert peak_bytes(lambda: coreml_compress.best_palette_for_coreml_compress(weight)) < 2 * weight.nbytes


@pytest.mark.parametrize("count", [1, 7, 16, 1000, constants.BLOCK, constants.BLOCK + 3])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_packed_positions_are_looked_up(bits: int, count: int) -> None:
    """Values of any number of bits are decoded, also where they end within a byte or begin a new block."""
    random = np.random.default_rng(bits)
    palette = random.normal(size=1 << bits).astype(np.float16)
    positions = random.integers(0, 1 << bits, size=count)
    np.testing.assert_array_equal(decoded(palette, packed(positions, bits), count), palette[positions])


def test_a_large_palettised_tensor_is_decoded_in_little_memory() -> None:
    """Decoding takes at most twice the decoded tensor."""
    packed_ = np.zeros(SIZE // 2, np.uint8)
    palette = np.arange(16, dtype=np.float16)
    assert peak_bytes(lambda: decoded(palette, packed_, SIZE)) < 2 * SIZE * palette.itemsize


def decoded(palette: NDArray[np.float16], positions: NDArray[np.uint8], count: int) -> NDArray[np.float16]:
    given: dict[str, Value] = {"lut": palette, "indices": positions, "shape": np.array([count], np.int32)}
    return np.asarray(constants.constant_from_palette(Call("constexpr_lut_to_dense", given)))


def packed(positions: NDArray[np.int64], bits: int) -> NDArray[np.uint8]:
    """Return numbers of so many bits one after the other, lowest bits first."""
    every = (positions[:, None] >> np.arange(bits)) & 1
    return np.packbits(every.astype(np.uint8).reshape(-1), bitorder="little")
