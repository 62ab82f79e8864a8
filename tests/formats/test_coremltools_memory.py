"""coremltools' functions of whole weights answer as before, in a fraction of the memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder, mil
from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision
from coremltools.optimize import _utils as utils

from exporter.formats.coreml import coremltools_memory
from exporter.formats.coreml.coremltools_memory import coremltools_in_little_memory
from tests.formats.test_coreml_compress import peak_bytes

SIZE = 1 << 22
VALUES = [0.0, -1.0, 65504.0, -65504.0, 65505.0, -7e4, 9e37, -1e38, math.inf, -math.inf, math.nan]


def addition(constant: Any) -> Any:
    """Return coremltools' operator that adds a float32 constant to an input."""

    @Builder.program(input_specs=[Builder.TensorSpec(shape=constant.shape)])  # type: ignore[untyped-decorator]
    def program(x: Any) -> Any:
        return Builder.add(x=x, y=constant)

    (operation,) = [op for op in program.functions["main"].operations if op.op_type == "add"]
    assert isinstance(operation, mil.Operation)
    return operation


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("place", [0, 15, 16, 36])
def test_overflow_is_found_as_coremltools_finds_it(
    value: float, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Infinities, and what is as large, are none; any other value beyond float16 is one, in any block."""
    monkeypatch.setattr(coremltools_memory, "BLOCK", 16)
    constant = np.ones((1, 37), np.float32)
    constant[0, place] = value
    operation = addition(constant)
    expected = FP16ComputePrecision.fp16_overflow(operation)
    with coremltools_in_little_memory():
        assert FP16ComputePrecision.fp16_overflow(operation) == expected


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("count", [1, 15, 16, 17, 100])
def test_numbers_are_packed_as_coremltools_packs_them(
    bits: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bits stay in their order where a block ends within the numbers, or the last of them within a byte."""
    monkeypatch.setattr(coremltools_memory, "BLOCK", 16)
    numbers = np.random.default_rng(count).integers(0, 1 << bits, (count, 3)).astype(np.uint8)
    expected = utils.pack_elements_into_bits(numbers, bits)
    with coremltools_in_little_memory():
        np.testing.assert_array_equal(utils.pack_elements_into_bits(numbers, bits), expected)


def test_a_large_weight_takes_little_memory() -> None:
    """Beside the weight, at most as much again: 24 bytes a value, and 12, without the replacements."""
    numbers, operation = np.zeros(SIZE, np.uint8), addition(np.ones((1, SIZE), np.float32))
    with coremltools_in_little_memory():
        assert peak_bytes(lambda: utils.pack_elements_into_bits(numbers, 4)) < 4 * SIZE
        assert peak_bytes(lambda: FP16ComputePrecision.fp16_overflow(operation)) < 4 * SIZE
