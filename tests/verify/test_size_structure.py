"""Outputs of no dimension and of no values, beside others and on edge inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exporter.records import Array, Variant
from exporter.verify import reference_io
from tests.variants import FP16, FP32, INT8
from tests.verify.observed import judged, made_references, rounding

LOGITS = np.random.default_rng(0).normal(size=(16, 1, 4))
ODD: dict[str, Array] = {
    "a number": np.full(16, 3.5),
    "a number that moves": np.random.default_rng(1).normal(size=16),
    "a count": np.arange(16),
    "a flag": np.arange(16) > 3,
    "no values": np.zeros((16, 0, 4)),
    "no values in classes": np.zeros((16, 1, 0)),
    "no whole numbers": np.zeros((16, 0), np.int64),
}


@pytest.mark.parametrize("variant", [FP32, FP16, INT8], ids=lambda variant: variant.precision)
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_output_beside_another_is_compared(kind: str, variant: Variant, tmp_path: Path) -> None:
    """Right outputs pass and wrong logits fail, also after the evidence was written and read."""
    stacks = (LOGITS, ODD[kind])
    shaky = [rounding(stack[:2]) for stack in stacks]
    references = made_references(*stacks, edge_names=("zeros", "noise"), edge_unstable=shaky)
    reference_io.save_reference_io(references, tmp_path / "evidence.npz")
    for given in (references, reference_io.load_reference_io(tmp_path / "evidence.npz")):
        assert judged(variant, given, *(y.copy() for y in stacks)).status == "passed"
        assert judged(variant, given, -LOGITS, ODD[kind]).status == "failed"
        wrong_edge = (-LOGITS[:2], ODD[kind][:2])
        on_edges = judged(variant, given, *stacks, edges=wrong_edge).status
        assert on_edges == ("passed" if variant is INT8 else "failed")  # int8 is held to its program there


@pytest.mark.parametrize("kind", ["a number", "a number that moves", "a count", "a flag"])
def test_another_number_fails(kind: str) -> None:
    """An output without dimensions is no less compared than others."""
    stacks = (LOGITS, ODD[kind])
    other = ~ODD[kind] if kind == "a flag" else ODD[kind] + 1
    assert judged(FP32, made_references(*stacks), LOGITS, other).status == "failed"
