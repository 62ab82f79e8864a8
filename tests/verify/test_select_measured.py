"""The artifact that is fastest on the phones, once every candidate was measured on one of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from exporter.records import Artifact, Status, Variant
from exporter.verify.select_artifact import (
    UNMEASURED,
    remark_on_selected_artifact,
    select_artifact,
    select_measured_artifact,
)
from tests.variants import FP16, FP32, INT8
from tests.verify.test_figures import latency
from tests.verify.test_select_artifact import RUNNABLE, artifact


def on(variant: Variant, *phones: tuple[str, float], status: Status = "passed", **more: Any) -> Artifact:
    """Return an artifact with a latency per (serial, p90)."""
    devices = tuple(
        latency("pass", p90, device={"serial": serial, "soc": "SM8250"}, **more) for serial, p90 in phones
    )
    return replace(artifact(variant, 1.0, status), device_latencies=devices)


def measured(*artifacts: Artifact, synthetic: bool = False, allow: bool = False) -> str | None:
    choice = select_measured_artifact(artifacts, RUNNABLE, synthetic, allow)
    return choice.name if choice else None


def test_the_fastest_on_the_phone_is_chosen() -> None:
    """The reason gives its p90, and how many were compared."""
    rows = [on(FP32, ("a", 9.0)), on(INT8, ("a", 4.0)), on(FP16, ("a", 6.0))]
    choice = select_measured_artifact(rows, RUNNABLE, False, False)
    assert choice is not None
    assert choice.name == INT8.name
    assert choice.reason == (
        "The fastest on the device (4 ms p90, measured) of 3 passed artifacts that the target runs."
    )


def test_the_slowest_shared_phone_counts() -> None:
    """A phone that did not run them all says nothing."""
    rows = [on(FP32, ("a", 9.0), ("b", 5.0)), on(INT8, ("a", 4.0), ("b", 12.0), ("c", 1.0))]
    choice = select_measured_artifact(rows, RUNNABLE, False, False)
    assert choice is not None
    assert (choice.name, "the slowest of 2 devices (9 ms p90" in choice.reason) == (FP32.name, True)


@pytest.mark.parametrize(
    "rows",
    [
        (),
        (on(FP32, ("a", 9.0)), on(INT8)),
        (on(FP32, ("a", 9.0)), on(INT8, ("b", 4.0))),
        (on(FP32, ("a", 9.0), evidence="simulated"),),
        (on(FP32, ("a", 9.0), status="failed"),),
        (on(replace(FP32, name="other"), ("a", 9.0)),),
    ],
)
def test_nothing_is_chosen_before_all_were_measured(rows: tuple[Artifact, ...]) -> None:
    """All candidates need one real phone in common; what failed or does not run there is none."""
    assert measured(*rows) is None


def test_what_is_no_candidate_need_not_be_measured() -> None:
    """Neither failed ones are candidates nor those of synthetic calibration, unless these are allowed."""
    rows = [on(FP32, ("a", 9.0)), on(INT8, ("a", 4.0)), on(FP16, status="failed")]
    assert measured(*rows) == INT8.name
    assert measured(*rows, synthetic=True) == FP32.name
    assert measured(*rows, synthetic=True, allow=True) == INT8.name


def test_wrong_outputs_on_the_phone_come_last() -> None:
    """A slower one that is right is chosen; where all are wrong, the reason says so."""
    wrong = on(INT8, ("a", 4.0), problem="Its outputs differ.")
    assert measured(on(FP32, ("a", 9.0)), wrong) == FP32.name
    choice = select_measured_artifact([wrong], RUNNABLE, False, False)
    assert choice is not None
    assert choice.name == INT8.name
    assert choice.reason.startswith("Every passed artifact gives wrong outputs on the device")


def test_a_remark_on_a_choice_gives_what_a_device_measured() -> None:
    """The claim that none has measured it goes once one has: the slowest phone's p90."""
    choice = select_artifact([artifact(FP32, 4.0)], RUNNABLE, False, False)
    assert UNMEASURED in choice.reason
    assert (
        remark_on_selected_artifact(choice.reason, None)
        == remark_on_selected_artifact(choice.reason, on(FP32))
        == choice.reason
    )
    said = remark_on_selected_artifact(choice.reason, on(FP32, ("a", 3.0), ("b", 5.0)))
    assert UNMEASURED not in said
    assert said.endswith("a device measured it (5 ms p90), but not all of them.")


def test_a_choice_says_what_was_left_out_and_why_there_is_none() -> None:
    """The target's preference among untimed ones, synthetic calibration, and nothing that passed."""
    rows = [artifact(FP32, 4.0), artifact(INT8, 2.0)]
    assert select_artifact(rows, RUNNABLE, True, False).reason.endswith(
        f"of 1 passed artifacts that the target runs; {UNMEASURED}; what was calibrated on synthetic inputs "
        "was left out."
    )
    untimed = select_artifact([artifact(FP32, None), artifact(FP16, None)], RUNNABLE, False, False)
    assert untimed.name == FP16.name
    assert untimed.reason == "The target's first choice of 2 passed artifacts; none was timed."
    failed = select_artifact([artifact(FP32, 4.0, "failed")], RUNNABLE, False, False)
    assert failed.reason == "No artifact that the target runs was proven equal to the original."
    timed = select_artifact([artifact(FP32, 4.0)], RUNNABLE, False, False)
    assert timed.reason.startswith("The fastest on this host (4 ms p50, 2 threads) of 1 passed artifacts")
