"""Outputs with infinite values: masked scores, logarithms of nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from exporter.pipeline.int8_stage import run_lowering_in_int8_stage
from exporter.records import Array, Variant
from exporter.verify.infinite import without_infinite
from exporter.verify.reference_io import Lowering
from exporter.verify.simulation_io import Simulation
from tests import proof
from tests.variants import FP16, FP32, INT8
from tests.verify.observed import fp16, int8, judged, made_references

SCORES = np.random.default_rng(0).normal(size=(32, 1, 6))
MASK = np.random.default_rng(1).random((32, 1, 6)) < 0.3
MASKED = np.where(MASK, -np.inf, SCORES)
REFERENCE = replace(made_references(np.where(MASK, 0.0, SCORES)), reference=(MASKED,))


def put(value: float) -> Array:
    """Return the outputs with another value in place of one of the infinite ones."""
    outputs = MASKED.astype(np.float32)
    outputs[tuple(np.argwhere(MASK)[3])] = value
    return outputs


@pytest.mark.parametrize(
    ("variant", "rounded"),
    [
        (FP32, lambda y: y.astype(np.float32)),
        (FP16, fp16),
        (INT8, lambda y: np.where(MASK, y, int8(SCORES))),
    ],
)
def test_the_models_infinite_values_pass(variant: Variant, rounded: Callable[[Array], Array]) -> None:
    """Masked scores are compared by equality, and the others as ever."""
    verdict = judged(variant, REFERENCE, rounded(MASKED))
    assert verdict.reason is None
    assert verdict.comparison is not None
    assert np.isfinite(verdict.comparison.sqnr_db)


@pytest.mark.parametrize("value", [-3.4e38, 0.0, np.inf, np.nan])
def test_another_value_in_place_of_one_fails(value: float) -> None:
    """A value that was masked by a large one, or not at all, is another output."""
    reason = str(judged(FP32, REFERENCE, put(value)).reason)
    assert f"Its output out0 lacks 1 of the model's infinite values: it has {value:g} for -Inf." in reason


def test_an_infinite_value_of_its_own_fails() -> None:
    """What overflows in the artifact alone is wrong."""
    outputs = MASKED.astype(np.float32)
    outputs[tuple(np.argwhere(~MASK)[3])] = -np.inf
    assert "The artifact gives NaN or Inf: 1 of 192" in str(judged(FP32, REFERENCE, outputs).reason)


def test_edge_inputs_are_compared_so_too() -> None:
    """The reason says that an edge input lacks the infinite value."""
    edged = replace(
        REFERENCE,
        edge_names=("zeros", "ones"), edge_floors=(2e-7, 2e-7), edge_inputs=(np.zeros((2, 1), np.float32),),
        edge_reference=(MASKED[:2] * [[[1]], [[9]]],), edge_unstable=REFERENCE.eager_errors,
    )  # fmt: skip
    right = MASKED.astype(np.float32)
    (edges,) = edged.edge_reference
    assert judged(FP32, edged, right, edges=[edges.astype(np.float32)]).reason is None
    on_zeros = Simulation((MASKED,), {"zeros": (edges[:1],)})
    for variant, simulation in ((FP16, on_zeros), (INT8, None)):
        program = Lowering((MASKED,), 60.0, {"zeros": (edges[0],)}) if variant is INT8 else None
        given = judged(variant, edged, right, edges=[edges], simulation=simulation, program=program)
        assert given.reason is None
        assert all(np.isfinite(figure) for figure in given.limits.values())
    finite = [np.where(MASK[:2], -1e4, edges)]
    assert "on the edge inputs: it has -10000 for -Inf" in str(
        judged(FP32, edged, right, edges=finite).reason
    )


def test_an_error_beside_infinite_values_is_found() -> None:
    """A scale that is 1 % off fails by the simulation, and a wrong program by its own figure."""
    simulated = Simulation((fp16(MASKED),), {})
    assert judged(FP16, REFERENCE, fp16(MASKED), simulation=simulated).reason is None
    assert "simulation" in str(judged(FP16, REFERENCE, fp16(MASKED * 1.01), simulation=simulated).reason)
    program = Lowering((MASKED * 1.1,), 60.0)
    assert "its own quantised program" in str(judged(INT8, REFERENCE, MASKED, program=program).reason)


def test_an_output_without_finite_values_is_compared() -> None:
    """There is no finite value to put in their place."""
    nothing = (np.full((2, 3), np.inf),)
    assert (without_infinite(nothing, nothing)[0] == 0).all()


def test_a_program_with_infinite_values_has_a_finite_rounding_floor() -> None:
    """Values that are infinite in both runs are no noise; NaN is all noise, and still a number."""
    samples = [(row.astype(np.float32),) for row in SCORES]
    masked = run_lowering_in_int8_stage(lambda sample: (np.where(MASK[0], -np.inf, sample[0]),), samples, {})
    assert 100 < masked.rounding_floor_db < 140
    broken = run_lowering_in_int8_stage(lambda sample: (np.where(MASK[0], np.nan, sample[0]),), samples, {})
    assert broken.rounding_floor_db == -300.0


class Masking(nn.Module):
    """A network that gives -Inf for what its mask excludes, on edge inputs too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 6)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        return self.layer(x).masked_fill(~allowed, float("-inf"))  # type: ignore[no-any-return]


def test_a_network_with_a_mask_passes(tmp_path: Path) -> None:
    """A right artifact passes; none of its edge inputs is left out for the infinite values alone."""
    random = np.random.default_rng(0)
    samples = [
        (random.normal(size=(1, 8)).astype(np.float32), random.random((1, 6)) > 0.3) for _ in range(12)
    ]
    captured = proof.capture(Masking(), samples, tmp_path)
    verdict = proof.prove(captured, "onnx-fp32", tmp_path)
    assert (verdict.status, verdict.reason) == ("passed", None)
    assert verdict.edge is not None
    assert verdict.edge.samples >= 3
