"""Tests that `export-mobile verify` detects every fault in `tests/faults.py`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from exporter.pipeline.audit import Audit, AuditFinding, verify_export
from tests.exports import exported
from tests.faults import FAULTS, Fault, rehash

pytestmark = [
    pytest.mark.slow, pytest.mark.xdist_group("faults"), pytest.mark.usefixtures("audits_share_workers"),
]  # fmt: skip


@pytest.fixture(scope="module")
def good() -> Path:
    return exported("cnn")[0]


def finding(audit: Audit, name: str) -> AuditFinding:
    return next(f for f in audit.findings if f.name == name)


def test_the_undamaged_export_holds(good: Path) -> None:
    """The export without a fault passes."""
    audit = verify_export(good)
    assert audit.holds, audit
    statuses = {f.name: f.found for f in audit.findings}
    assert {name for name, status in statuses.items() if status == "not_run"} == {"executorch-vulkan-fp16"}
    # Palettes of 16 values are too few for this network's convolutions, as the export said.
    del statuses["coreml-w4"]
    assert all(status in {"passed", "not_run"} for status in statuses.values()), statuses


def faults_by_audit() -> dict[str, list[Fault]]:
    """Group the faults that one audit shows: "onnx-fp32: a dead class", and the same in other artifacts."""
    groups: dict[str, list[Fault]] = {}
    for fault in FAULTS:
        artifact, _, kind = fault.name.partition(": ")
        groups.setdefault(kind if artifact == fault.artifact else fault.name, []).append(fault)
    return groups


AUDITS = faults_by_audit()


@pytest.mark.parametrize("kind", AUDITS)
def test_a_planted_fault_is_found(kind: str, tmp_path: Path) -> None:
    """The damaged artifact fails, and the reason names the fault."""
    out, faults = tmp_path / "out", AUDITS[kind]
    shutil.copytree(exported(faults[0].network)[0], out)
    for fault in faults:
        fault.damage(out)
    if faults[0].rehash:
        rehash(out)
    audit = verify_export(out)
    assert not audit.holds
    for fault in faults:
        if fault.artifact:
            fault_finding = finding(audit, fault.artifact)
            assert fault_finding.found == "failed"
            assert fault.words in fault_finding.reason
        else:
            assert fault.words in " ".join(audit.problems)


def test_one_audit_shows_faults_of_different_artifacts() -> None:
    """They are damaged in one export, in one way of hashing; no fault hides behind another."""
    for faults in AUDITS.values():
        assert len({fault.artifact for fault in faults}) == len(faults)
        assert len({(fault.rehash, fault.network) for fault in faults}) == 1


def test_there_are_at_least_100_distinct_faults() -> None:
    """Names are what a failing test is found by."""
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 100
