"""Every planted fault is found by the gate that is there for it. The table is in `tests/gate_faults.py`."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest import mock

import pytest

from exporter.formats import VARIANTS
from exporter.pipeline import stage_results, verify_stage
from exporter.report import manifest
from exporter.verify import judge
from exporter.verify.observation import Observation
from tests.exports import exported
from tests.gate_faults import CONTRACT, FILE, GATE_FAULTS, REPEAT, GateFault

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("faults")]
WORDS = {FILE: "It cannot be read", CONTRACT: "the model's", REPEAT: "The same inputs"}
"""What the reason says where something else than a gate found the fault."""


def verified(out: Path, artifact: str) -> tuple[set[str], str]:
    """Verify one file in this process: the names of all gates with a reason, and the reason that is shown."""
    listed = manifest.load_manifest(out / "manifest.json")
    expected = stage_results.ExpectedResult(
        listed.inputs,
        listed.outputs,
        listed.evidence.matrix_weights,
        listed.limits,
        listed.labels,
        listed.task,
    )
    file = next(a.file for a in listed.artifacts if a.name == artifact)
    failing: set[str] = set()

    def every_reason(observation: Observation) -> str:
        reasons = {name: gate(observation) for name, gate in judge.GATES.items()}
        failing.update(name for name, reason in reasons.items() if reason)
        return next((reason for reason in reasons.values() if reason), "")

    job = verify_stage._verify_stage_job(out, VARIANTS[artifact], str(file), expected, None)
    with mock.patch.object(judge, "first_judged_reason", every_reason):
        checked = job.function(*job.arguments)
    return failing, checked.verdict.reason or ""


@pytest.fixture(scope="module")
def good() -> Path:
    return exported("cnn")[0]


@pytest.mark.parametrize("artifact", sorted({fault.artifact for fault in GATE_FAULTS}))
def test_an_undamaged_file_passes_every_gate(artifact: str, good: Path) -> None:
    """Otherwise no fault below would prove anything."""
    failing, reason = verified(good, artifact)
    assert failing == set(), reason
    assert reason == "" or "vulkan" in artifact or "coreml" in artifact  # which run nowhere here


@pytest.mark.parametrize("fault", GATE_FAULTS, ids=lambda fault: fault.title)
def test_the_gate_for_it_finds_a_planted_fault(fault: GateFault, good: Path, tmp_path: Path) -> None:
    """The gate of the table is among those with a reason; the file as a whole has failed."""
    out = tmp_path / "out"
    shutil.copytree(good, out)
    fault.damage(out)
    failing, reason = verified(out, fault.artifact)
    assert reason != ""
    for gate in fault.gates:
        assert WORDS[gate] in reason if gate in WORDS else gate in failing, reason


def test_there_are_more_than_100_faults_over_all_formats() -> None:
    """No two alike; every format has some."""
    assert len({fault.title for fault in GATE_FAULTS}) == len(GATE_FAULTS) > 100
    variants = [VARIANTS[fault.artifact] for fault in GATE_FAULTS]
    assert {v.format for v in variants} == {"executorch", "onnx", "torchscript", "coreml"}
    assert {"fp32", "fp16", "int8"} <= {v.precision for v in variants}
