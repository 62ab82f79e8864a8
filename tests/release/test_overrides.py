"""Tests of what a release says about devices that speak against it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter import bench
from exporter.errors import ReleaseError, UsageError
from exporter.records import DeviceLatency
from exporter.release import bundle
from exporter.release.plan import plan_release
from exporter.release.release_request import ReleaseRequest
from tests.release import outs

NINE_DB = "It reaches 9.0 dB, expected at least 35."
FACE = ("README.md", "MODEL_CARD.md", "OVERRIDDEN.txt")


def on(serial: str, low: float = 3.0, high: float = 4.0, **changes: Any) -> DeviceLatency:
    """Return a phone's latency with this interval, judged for a budget of 15 ms."""
    first = outs.latency("pass")
    fields: dict[str, Any] = {"p50_ms": low, "p90_ms": high, "p90_ci_ms": (low, high)}
    return replace(first, device={**first.device, "serial": serial}, **(fields | changes))


def request(tmp_path: Path, *latencies: DeviceLatency, budget_ms: float = 15.0) -> ReleaseRequest:
    """Write an export whose choice these devices measured, one bench after the other."""
    report = outs.report()
    for item in latencies:
        report = bench.add_latencies_to_stored_bench(report, {"onnx-fp32": (item,)}, {}, budget_ms)
    return ReleaseRequest(outs.write(tmp_path / "out", report), "1.0", tmp_path / "made")


@pytest.mark.parametrize("serial", ["R58N", "emulator-5554"])
@pytest.mark.parametrize("budget_ms", [15.0, 40.0])
def test_wrong_outputs_on_any_device_block(serial: str, budget_ms: float, tmp_path: Path) -> None:
    """No other phone's pass and no other budget hides wrong outputs."""
    evidence: Any = "simulated" if serial.startswith("emulator") else "measured"
    wrong = on(serial, problem=NINE_DB, verdict="fail", evidence=evidence)
    wanted = request(tmp_path, wrong, on("OTHER"), budget_ms=budget_ms)
    with pytest.raises(ReleaseError, match=f"wrong outputs on {serial}: It reaches 9.0 dB") as caught:
        plan_release(replace(wanted, allow_unmeasured=True))
    assert caught.value.code == "EM-WRONG-ON-DEVICE"


def test_a_device_that_measures_right_again_releases(tmp_path: Path) -> None:
    """The last measurement of the device counts."""
    wrong = on("R58N", problem=NINE_DB, verdict="fail")
    assert plan_release(request(tmp_path, wrong, on("OTHER"), on("R58N"))).overridden == ()


def test_a_named_device_is_on_the_bundles_face(tmp_path: Path) -> None:
    """The files that people read say what is wrong, without the serial."""
    wanted = request(tmp_path, on("R58N", problem=NINE_DB, verdict="fail"), on("OTHER"))
    made = bundle.release_bundle(replace(wanted, allow_wrong_on=("R58N",))).directory
    for name in FACE:
        text = (made / name).read_text().replace("\\", "")
        assert f"onnx-fp32 gives wrong outputs on device-1: {NINE_DB}" in text
        assert "R58N" not in text


def test_a_device_that_is_not_in_out_is_a_usage_error(tmp_path: Path) -> None:
    """A misspelt serial allows nothing."""
    with pytest.raises(UsageError, match="no such device in OUT"):
        plan_release(replace(request(tmp_path, on("R58N")), allow_wrong_on=("R58M",)))


def test_allowing_wrong_outputs_does_not_allow_slowness(tmp_path: Path) -> None:
    """The interval of a named device is judged all the same."""
    wrong = on("R58N", 30.0, 32.0, problem=NINE_DB, verdict="fail")
    with pytest.raises(ReleaseError, match="over its budget"):
        plan_release(replace(request(tmp_path, wrong), allow_wrong_on=("R58N",)))


@pytest.mark.parametrize("flags", [(), ("thermal: status 2 after the run",)])
def test_an_interval_above_the_budget_is_over_budget(flags: tuple[str, ...], tmp_path: Path) -> None:
    """30 to 32 ms against 15 ms is not open, however unstable the session was."""
    slow = on("R58N", 30.0, 32.0, flags=flags, verdict="inconclusive")
    wanted = replace(request(tmp_path, slow), allow_unmeasured=True)
    with pytest.raises(ReleaseError, match=r"over its budget of 15 ms .* 30 to 32 ms on R58N") as caught:
        plan_release(wanted)
    assert caught.value.code == "EM-OVER-BUDGET"


def test_a_raised_budget_is_on_the_bundles_face(tmp_path: Path) -> None:
    """The export's own budget stands beside the one that was met."""
    made = bundle.release_bundle(request(tmp_path, on("R58N", 30.0, 32.0), budget_ms=40.0)).directory
    for name in FACE:
        text = (made / name).read_text()
        assert "40 ms" in text
        assert "export's own is 15 ms" in text


def test_wrong_outputs_on_this_machine_are_told(tmp_path: Path) -> None:
    """--allow-unmeasured releases what no phone measured, and says what the host's bench saw."""
    wrong = replace(on("host", problem=NINE_DB, verdict="not_measured"), evidence="host")
    wanted = request(tmp_path, wrong)
    with pytest.raises(ReleaseError, match="wrong outputs on host"):
        plan_release(wanted)
    allowed = plan_release(replace(wanted, allow_unmeasured=True))
    assert allowed.overridden == (f"onnx-fp32 gives wrong outputs on host: {NINE_DB}",)
    assert json.loads(allowed.text)["release"]["overridden"] == list(allowed.overridden)


@pytest.mark.parametrize(
    "latency", [on("R58N", 30, 32), on("R58N", problem="9 dB"), on("R58N", 14, 16), None]
)
def test_no_refusal_advises_a_way_round_itself(latency: DeviceLatency | None, tmp_path: Path) -> None:
    """A refusal says what to repair, not which option ends it."""
    wanted = request(tmp_path, *([latency] if latency else []))
    for refused in (wanted, replace(wanted, artifacts=("coreml-fp16",))):
        with pytest.raises(ReleaseError) as caught:
            plan_release(refused)
        assert "--allow" not in str(caught.value)
        assert "--budget" not in str(caught.value)
