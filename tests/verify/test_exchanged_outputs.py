"""Outputs of one shape that stand in each other's place fail, and the reason names them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.records import Array, Variant
from tests.variants import FP16, FP32, INT8
from tests.verify.observed import fp16, int8, judged, made_references

NAMES = ("a", "b", "c")


def alike(apart: float, count: int = 3, seed: int = 0, size: int = 8) -> list[Array]:
    """Return outputs of one distribution that differ by a share of their size."""
    random = np.random.default_rng(seed)
    common = random.normal(size=(24, 1, size))
    return [common + apart * random.normal(size=common.shape) for _ in range(count)]


def stored(variant: Variant, outputs: Sequence[Array]) -> list[Array]:
    """Round outputs as an artifact of a precision does."""
    if variant.precision == "fp32":
        return [output.astype(np.float32) for output in outputs]
    return [fp16(output) if variant.precision == "fp16" else int8(output) for output in outputs]


@pytest.mark.parametrize("variant", [FP32, FP16, INT8])
@pytest.mark.parametrize("apart", [1.0, 0.1, 0.03])
@pytest.mark.parametrize("order", [o for o in permutations(range(3)) if o != (0, 1, 2)])
def test_exchanged_outputs_are_named(order: tuple[int, ...], apart: float, variant: Variant) -> None:
    """Two or all three are in other places, of one distribution or nearly equal."""
    reference = alike(apart)
    outputs = stored(variant, reference)
    verdict = judged(variant, made_references(*reference, names=NAMES), *(outputs[i] for i in order))
    assert verdict.status == "failed"
    assert str(verdict.reason).startswith("Its outputs are exchanged: ")
    for at, of in enumerate(order):
        words = f"output {NAMES[at]} is the model's output {NAMES[of]}"
        assert (words in str(verdict.reason)) == (at != of), verdict.reason


@given(
    st.floats(1e-9, 2),
    st.integers(2, 5),
    st.integers(0, 99),
    st.sampled_from([FP32, FP16, INT8]),
    st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def test_outputs_in_their_places_pass(
    apart: float, count: int, seed: int, variant: Variant, size: int
) -> None:
    """Right artifacts are never taken for exchanged ones, however near to each other their outputs are."""
    reference = alike(apart, count, seed, size)
    verdict = judged(variant, made_references(*reference), *stored(variant, reference))
    assert "exchanged" not in str(verdict.reason)


def test_equal_outputs_have_no_places() -> None:
    """Nothing is lost where two outputs always have the same values."""
    (one,) = alike(1.0, 1)
    assert judged(FP16, made_references(one, one), fp16(one), fp16(one)).status == "passed"


def test_a_rounded_copy_is_no_exchange() -> None:
    """One output is the other in half precision: in a half-precision artifact both are."""
    (one,) = alike(1.0, 1)
    assert judged(FP16, made_references(one, fp16(one)), fp16(one), fp16(one)).status == "passed"
