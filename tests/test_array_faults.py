"""Every fault that is planted in outputs is found by its gate, also for formats that do not run here."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

from exporter.formats import FORMATS
from exporter.records import Array, Limits, Variant
from exporter.verify import judge
from exporter.verify.observation import Observation
from exporter.verify.simulation_io import Simulation
from tests.array_faults import ARRAY_FAULTS, FADED_NORMS, OTHER_NETWORKS, REFERENCES, ArrayFault, outputs_of
from tests.verify.observed import fp16, int8, made_references


def right(y: Array, variant: Variant) -> Array:
    """Return what a right artifact of the precision gives."""
    if y.dtype.kind != "f":
        return y.copy()
    if variant.precision in ("fp32", "fp16"):
        return y.astype(np.float32).astype(np.float64) if variant.precision == "fp32" else fp16(y)
    return int8(y, axis=2)


def failing(fault: ArrayFault, outputs: Array) -> set[str]:
    """Judge outputs: the names of all gates with a reason."""
    reference = REFERENCES[fault.kind]
    references = outputs_of(fault.kind, reference)
    given = made_references(*references, names=[fault.task or fault.kind] if len(references) == 1 else [])
    given = replace(given, untrained_norm=FADED_NORMS.get(fault.kind, ""))
    found: set[str] = set()
    simulation = None
    if fault.kind in OTHER_NETWORKS:
        simulation = Simulation(
            (fp16(reference),), {}, lookalikes={"a change": (OTHER_NETWORKS[fault.kind],)}
        )

    def every_reason(observation: Observation) -> str:
        found.update(name for name, gate in judge.GATES.items() if gate(observation))
        return ", ".join(sorted(found))

    with mock.patch.object(judge, "first_judged_reason", every_reason):
        judge.judge_artifact(
            fault.variant,
            "rt",
            given,
            outputs_of(fault.kind, outputs),
            given.edge_reference,
            None,
            Limits(),
            simulation=simulation,
            task=fault.task,
        )
    return found


@pytest.mark.parametrize("fault", ARRAY_FAULTS, ids=lambda fault: fault.title)
def test_the_gate_for_it_finds_a_fault_in_outputs(fault: ArrayFault) -> None:
    """The gate of the table is among those with a reason."""
    assert fault.gate in failing(fault, fault.damage(right(REFERENCES[fault.kind], fault.variant)))


@pytest.mark.parametrize(
    "fault",
    {(f.kind, f.variant.name): f for f in ARRAY_FAULTS if f.gate != "reference"}.values(),
    ids=lambda fault: f"{fault.kind}, {fault.variant.name}",
)
def test_undamaged_outputs_pass_every_gate(fault: ArrayFault) -> None:
    """Otherwise no fault above would prove anything."""
    assert failing(fault, right(REFERENCES[fault.kind], fault.variant)) == set()


def test_every_task_and_every_other_precision_has_faults() -> None:
    """No two alike."""
    assert len({fault.title for fault in ARRAY_FAULTS}) == len(ARRAY_FAULTS) > 100
    assert {"w8", "w4", "mixed", "fp16", "fp32", "int8"} == {f.variant.precision for f in ARRAY_FAULTS}
    assert len({fault.task for fault in ARRAY_FAULTS if fault.task}) == 7
    tasks = {(fault.task, fault.variant.precision) for fault in ARRAY_FAULTS if fault.task}
    assert len(tasks) == 7 * len({precision for _, precision in tasks})
    assert {f.variant.format for f in ARRAY_FAULTS} == set(FORMATS)
