from __future__ import annotations

from dataclasses import replace

import pytest

from exporter.records import Artifact, Latency, Status, Variant, Verdict
from exporter.verify.select_artifact import select_artifact
from tests.variants import FP16, FP32, INT8

MIXED = replace(INT8, name="onnx-mixed", precision="mixed")
RUNNABLE = (INT8.name, MIXED.name, FP16.name, FP32.name)


def artifact(variant: Variant, p50_ms: float | None, status: Status = "passed") -> Artifact:
    latency = None if p50_ms is None else Latency(p50_ms, p50_ms, 20, 2)
    return Artifact(variant, "f", 1, "0" * 64, status, None, latency=latency)


def test_the_fastest_passed_artifact_is_chosen() -> None:
    """Latency decides among what was proven."""
    assert select_artifact([artifact(FP32, 4), artifact(INT8, 2)], RUNNABLE, False, False).name == INT8.name


def test_what_did_not_pass_is_never_chosen() -> None:
    """The fastest may be the wrong one."""
    statuses: tuple[Status, ...] = ("failed", "not_run", "error")
    for status in statuses:
        assert (
            select_artifact([artifact(FP32, 4), artifact(INT8, 2, status)], RUNNABLE, False, False).name
            == FP32.name
        )


def test_what_too_few_scenes_prove_is_chosen_only_when_asked() -> None:
    """An inconclusive artifact is no passed one; the reason of the choice says so."""
    rows = [artifact(FP32, 4), artifact(INT8, 2, "inconclusive")]
    assert select_artifact(rows, RUNNABLE, False, False).name == FP32.name
    choice = select_artifact(rows, RUNNABLE, False, False, allow_inconclusive=True)
    assert choice.name == INT8.name
    assert "too few scenes were seen to prove it, which was allowed" in choice.reason
    nothing = select_artifact(rows[1:], RUNNABLE, False, False)
    assert nothing.name is None
    assert "--allow-inconclusive" in nothing.reason


def test_what_only_the_interpreter_executed_comes_last() -> None:
    """What its own runtime executed is chosen before it, however slow; else the reason says so."""
    verdict = Verdict("passed", None, "", None, executor="reference interpreter")
    interpreted = replace(artifact(FP16, None), verdict=verdict)
    for p50_ms in (900, None):  # the target's order of preference alone would choose the interpreted one
        assert (
            select_artifact([interpreted, artifact(FP32, p50_ms)], RUNNABLE, False, False).name == FP32.name
        )
    choice = select_artifact([interpreted], RUNNABLE, False, False)
    assert choice.name == FP16.name
    assert "only the reference interpreter executed it" in choice.reason


def test_what_the_target_cannot_run_is_never_chosen() -> None:
    """A Core ML file does not run on a Snapdragon."""
    choice = select_artifact([artifact(FP32, 1)], (INT8.name,), False, False)
    assert choice.name is None
    assert "runs on the target" in choice.reason


@pytest.mark.parametrize("quantized", [INT8, MIXED])
def test_what_is_calibrated_synthetically_is_chosen_only_when_asked(quantized: Variant) -> None:
    """Calibration on made-up inputs says nothing about photos."""
    rows = [artifact(FP32, 4), artifact(quantized, 2)]
    assert select_artifact(rows, RUNNABLE, True, False).name == FP32.name
    assert select_artifact(rows, RUNNABLE, True, True).name == quantized.name


@pytest.mark.parametrize("quantized", [INT8, MIXED])
def test_only_synthetic_calibration_says_what_to_do(quantized: Variant) -> None:
    """The reason names the way out."""
    choice = select_artifact([artifact(quantized, 2)], RUNNABLE, True, False)
    assert choice.name is None
    assert "--calibration" in choice.reason


def test_what_was_not_timed_comes_after_what_was() -> None:
    """No latency is not a latency of zero; among untimed ones the target's preference decides."""
    assert (
        select_artifact([artifact(FP32, 4), artifact(INT8, None)], RUNNABLE, False, False).name == FP32.name
    )
    untimed = [artifact(FP32, None), artifact(FP16, None)]
    assert select_artifact(untimed, RUNNABLE, False, False).name == FP16.name


def test_the_reason_does_not_claim_a_device() -> None:
    """A host's latency is named as such."""
    reason = select_artifact([artifact(replace(FP32), 4)], RUNNABLE, False, False).reason
    assert "on this host" in reason
    assert "no device has measured it" in reason
