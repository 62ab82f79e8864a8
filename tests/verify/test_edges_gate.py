"""Each edge input is judged on its own, for every precision, and the one that failed is named."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from exporter.records import Array, Variant, Verdict
from exporter.verify.reference_io import Lowering, ReferenceIO
from tests.variants import FP16, FP32, INT8
from tests.verify.observed import judged, made_references

RANDOM = np.random.default_rng(0)
REAL = RANDOM.normal(size=(16, 1, 10))
NAMES = ("zeros", "saturated_low", "brighter", "larger")
EDGES = RANDOM.normal(size=(4, 1, 10)) * np.array([0.01, 1, 1, 4])[:, None, None]
PRECISIONS = [FP32, FP16, INT8]
CLIPPED: Array = np.clip(EDGES, -0.5, 0.5)
PROGRAM = Lowering((REAL,), 60.0, {name: (CLIPPED[i],) for i, name in enumerate(NAMES)})
"""A quantised program clips on the edges, far from the model: its artifact must do the same."""


def right(variant: Variant) -> Array:
    return CLIPPED if variant is INT8 else EDGES


def check(variant: Variant, edges: Array) -> Verdict:
    return judged(variant, edge_evidence(), REAL, edges=[edges], program=PROGRAM if variant is INT8 else None)


def edge_evidence(edges: Array = EDGES) -> ReferenceIO:
    return made_references(REAL, edges=[edges], edge_names=NAMES, names=["logits"])


@pytest.mark.parametrize("variant", PRECISIONS)
@pytest.mark.parametrize("index", range(4))
def test_the_edge_that_failed_is_named(variant: Variant, index: int) -> None:
    """An answer that is another input's, on one edge alone."""
    wrong = right(variant).copy()
    wrong[index] = -wrong[index] - 1
    verdict = check(variant, wrong)
    assert verdict.status == "failed"
    assert f"On the edge input '{NAMES[index]}'" in str(verdict.reason)
    assert not any(name in str(verdict.reason) for i, name in enumerate(NAMES) if i != index)


@pytest.mark.parametrize(("variant", "share"), [(FP32, 1e-6), (FP16, 0.02), (INT8, 0.02)])
def test_what_a_precision_costs_is_no_failure(variant: Variant, share: float) -> None:
    """An edge may be as coarse as the precision is where it was not calibrated."""
    assert check(variant, right(variant) * (1 + share)).reason is None


@pytest.mark.parametrize("variant", [FP16, INT8])
def test_noise_of_the_real_inputs_is_no_fault_of_a_small_output(variant: Variant) -> None:
    """Zeros give next to nothing: an error as small as that on photos is none, though it is all of it."""
    wrong = right(variant).copy()
    wrong[0] += 0.015
    assert check(variant, wrong).reason is None


def test_each_edge_has_the_limit_of_its_own_rounding() -> None:
    """A network that float32 computes badly on one edge is not excused on the others."""
    floors = replace(edge_evidence(), edge_floors=(2e-7, 2e-7, 1e-4, 2e-7))
    scale = np.abs(EDGES).max(axis=(1, 2))
    for index, status in ((2, "passed"), (3, "failed")):
        wrong = EDGES.copy()
        wrong[index, 0, 0] += 5e-4 * scale[index]
        assert judged(FP32, floors, REAL, edges=[wrong]).status == status


@pytest.mark.parametrize("variant", PRECISIONS)
def test_nan_on_an_edge_counts_unless_the_model_gives_it_too(variant: Variant) -> None:
    """float16 that overflows on a brighter photo is not shippable; a model that does is its own fault."""
    wrong = EDGES.copy()
    wrong[2, 0, 0] = np.nan
    assert "edge input 'brighter'" in str(judged(variant, edge_evidence(), REAL, edges=[wrong]).reason)
    assert judged(variant, edge_evidence(wrong), REAL, edges=[wrong]).reason is None


@pytest.mark.parametrize("variant", [FP32, FP16])
def test_equal_scores_on_an_edge_may_come_in_any_order(variant: Variant) -> None:
    """Rounded scores of a top-k: what belongs to equal ones may be swapped, to unequal ones not."""
    scores: Array = np.tile([5.0, 4.0, 4.0, 1.0], (16, 1, 1)) + np.arange(16.0)[:, None, None]
    scores = scores + RANDOM.normal(size=(16, 1, 1))
    numbers = np.argsort(RANDOM.random((16, 1, 30)), axis=2)[..., :4]
    boxes = RANDOM.uniform(1, 9, (16, 1, 4, 4))
    references = made_references(
        scores, numbers, boxes, edge_names=NAMES, edge_unstable=[np.zeros((4, 1, 4), bool)] * 3
    )
    for order, status in (([0, 2, 1, 3], "passed"), ([1, 0, 2, 3], "failed")):
        edges = [scores[:4], numbers[:4, :, order], boxes[:4, :, order]]
        verdict = judged(variant, references, scores, numbers, boxes, edges=edges)
        assert verdict.status == status, verdict.reason


def test_a_tied_class_number_on_a_flat_input_is_no_fault() -> None:
    """On zeros every place is as good as another; on the others the class must be the model's."""
    numbers = RANDOM.integers(0, 9, (16, 1))
    edge = RANDOM.integers(0, 9, (4, 1))
    unstable = np.array([[True], [False], [False], [False]])
    references = made_references(
        REAL, numbers, edges=[EDGES, edge], edge_names=NAMES, edge_unstable=[np.zeros((1, 10)), unstable]
    )
    for index, status in ((0, "passed"), (1, "failed")):
        wrong = edge.copy()
        wrong[index] += 1
        assert judged(FP32, references, REAL, numbers, edges=[EDGES, wrong]).status == status


@pytest.mark.parametrize("variant", PRECISIONS)
def test_where_rounding_decides_every_finite_output_is_right(variant: Variant) -> None:
    """A norm of a constant: another runtime's float32 may give anything, but for NaN."""
    floors = tuple(math.inf if name == "saturated_low" else 2e-7 for name in NAMES)
    undecided = replace(edge_evidence(), edge_floors=floors)
    program = PROGRAM if variant is INT8 else None
    wrong = right(variant).copy()
    wrong[1] = -wrong[1] - 1
    verdict = judged(variant, undecided, REAL, edges=[wrong], program=program)
    assert verdict.reason is None
    assert verdict.edge is not None
    assert verdict.edge.max_error < 1
    wrong[1, 0, 0] = np.nan
    verdict = judged(variant, undecided, REAL, edges=[wrong], program=program)
    assert "edge input 'saturated_low': The artifact gives NaN" in str(verdict.reason)
    wrong = right(variant).copy()
    wrong[2] = -wrong[2] - 1
    verdict = judged(variant, undecided, REAL, edges=[wrong], program=program)
    assert "edge input 'brighter'" in str(verdict.reason)
