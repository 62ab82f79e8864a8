"""Calls are stacked and judged by everything that is known of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.records import Limits, TensorSpec
from exporter.verify import simulation_io, standard
from exporter.verify.gates.lowering_gate import lowering_gate_limit
from exporter.verify.reference_io import Lowering, save_reference_io_lowering
from exporter.verify.simulation_io import Simulation
from exporter.verify.standard import Standard
from tests.variants import FP16, FP32, INT8
from tests.verify.observed import made_references

RANDOM = np.random.default_rng(0)
Y = RANDOM.normal(size=(16, 1, 10))
EDGES = RANDOM.normal(size=(2, 1, 10))
EVIDENCE = made_references(Y, edges=[EDGES], edge_names=("zeros", "bright"), names=["logits"])
OUTPUTS = (TensorSpec("logits", (1, 10)),)
STANDARD = Standard(EVIDENCE, OUTPUTS, Limits())


def single(array: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    return [(row.astype(np.float32),) for row in array]


def judged(calls: Any = None, edge_calls: Any = None, given: Standard = STANDARD, variant: Any = FP32) -> Any:
    calls = single(Y) if calls is None else calls
    edge_calls = single(EDGES) if edge_calls is None else edge_calls
    return standard.judge_by_standard(given, variant, "rt 1", calls, edge_calls, "runtime", False)


def test_right_calls_pass() -> None:
    """The verdict has the runtime, and who executed the artifact."""
    verdict = judged()
    assert (verdict.status, verdict.reason, verdict.runtime) == ("passed", None, "rt 1")
    simulated = standard.judge_by_standard(
        STANDARD, FP32, "rt 1", single(Y), single(EDGES), "reference interpreter", True
    )
    assert (simulated.status, simulated.executor) == ("passed", "reference interpreter")


@pytest.mark.parametrize(
    ("calls", "edge_calls", "reason"),
    [
        ([(*row, *row) for row in single(Y)], None, "It has 2 outputs, the model has 1."),
        (
            single(Y[:, :, :9]),
            None,
            "Its output logits has shape [1, 9] on sample 0, the model's has [1, 10].",
        ),
        (
            None,
            [single(EDGES)[0], single(EDGES[:, :, :9])[1]],
            "Its output logits has shape [1, 9] on the edge input 'bright', the model's has [1, 10].",
        ),
        ([(row,) for row in Y], None, "Its output types are float64, the model's float32."),
    ],
)
def test_what_cannot_be_compared_fails_without_figures(calls: Any, edge_calls: Any, reason: str) -> None:
    """The sentence has the output, the call, and both sides."""
    verdict = judged(calls, edge_calls)
    assert (verdict.status, verdict.reason, verdict.comparison) == ("failed", reason, None)
    assert verdict.executor == "runtime"


def test_fewer_calls_have_the_sizes_of_the_first() -> None:
    """Outputs whose size depends on the data are compared call by call."""
    padded = np.zeros((3, 4))
    sized = replace(
        EVIDENCE, reference=(padded,), shapes=(np.array([[2], [4], [1]]),), edge_reference=(np.zeros((0, 4)),)
    )
    given = Standard(replace(sized, edge_names=()), (TensorSpec("logits", (4,)),), Limits())
    calls: Any = [(np.ones(size, np.float32),) for size in (2, 4)]
    stacked = standard.stack_by_standard(given, FP32, calls)
    assert stacked.problem == ""
    assert stacked.samples[0].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert stacked.edges[0].shape == (0, 4)
    wrong: Any = [(np.ones(3, np.float32),)]
    assert (
        "has shape [3] on sample 0, the model's has [2]"
        in standard.stack_by_standard(given, FP32, wrong).problem
    )


def test_everything_of_the_standard_counts() -> None:
    """The quantised program, the simulation, the limits, the task and the labels reach the judge."""
    off = single(Y + 0.2 * np.roll(Y, 1, axis=2))
    program = Lowering((Y,), 60.0)
    verdict = judged(off, given=replace(STANDARD, lowering=program), variant=INT8)
    assert verdict.lowering is not None
    assert "It differs from its own quantised program" in verdict.reason
    strict = replace(STANDARD, limits=Limits(fp16_min_sqnr_db=200.0))
    assert (judged(variant=FP16).status, judged(given=strict, variant=FP16).status) == ("passed", "failed")
    task = judged(given=replace(STANDARD, task="regression")).task
    assert task is not None
    assert task.task == "regression"
    dead = [(np.where(np.arange(10) == 3, 0, row[0]).astype(np.float32),) for row in single(Y)]
    labels = tuple(f"class {i}" for i in range(10))
    assert "class 3" in judged(dead, given=replace(STANDARD, labels=labels)).reason
    simulation = Simulation((Y,), {})
    assert judged(off, given=replace(STANDARD, simulation=simulation), variant=FP16).status == "failed"


def test_programs_are_read_for_as_many_samples(tmp_path: Path) -> None:
    """No program is read without a file; all samples are read without a number."""
    assert standard.read_programs_of_standard(None, None, 3) == (None, None)
    save_reference_io_lowering(Lowering((Y,), 50.0, {"zeros": (EDGES[0],)}), tmp_path / "lowering.npz")
    simulation_io.save_simulation(Simulation((2 * Y,), {"zeros": (EDGES[1],)}), tmp_path / "simulation.npz")
    for samples, count in ((3, 3), (None, 16)):
        lowering, simulation = standard.read_programs_of_standard(
            tmp_path / "lowering.npz", tmp_path / "simulation.npz", samples
        )
        assert lowering is not None
        assert simulation is not None
        assert np.array_equal(lowering.outputs[0], Y[:count])
        assert np.array_equal(simulation.outputs[0], 2 * Y[:count])
        assert (lowering.rounding_floor_db, list(lowering.edges), list(simulation.edges)) == (
            50.0,
            ["zeros"],
            ["zeros"],
        )


@pytest.mark.parametrize(
    ("floor", "backend", "noise", "limit"),
    [
        (90.0, "xnnpack", 0.1, 30.0),
        (20.0, "xnnpack", 0.1, 17.0),
        (90.0, "htp-v75", 0.1, 20 - 3.0103),
        (90.0, "htp-v75", 1e-4, 30.0),
        (10.0, "htp-v75", 0.1, 7.0),
    ],
)
def test_a_lowering_may_differ_as_its_program_rounds(
    floor: float, backend: str, noise: float, limit: float
) -> None:
    """The fixed limit holds unless rounding is louder: the program's own, or that of an NPU's integers."""
    program = Lowering((Y * (1 + noise), np.ones((16, 1), np.int64)), floor)
    both = made_references(Y, np.ones((16, 1), np.int64))
    limits = Limits(lowering_min_sqnr_db=30.0)
    variant = replace(INT8, backend=backend)
    assert lowering_gate_limit(program, limits, variant, both) == pytest.approx(limit, abs=1e-3)
