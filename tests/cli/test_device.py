"""Tests of `bench` from outside: exit codes, printed texts, and files in OUT."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from android_harness import all_devices, parse, runner_build
from android_harness import errors as harness
from android_harness.all_devices import Outcome
from android_harness.records import BenchConfig, BenchTask, Launch, Session
from exporter import bench
from exporter.cli import device
from exporter.cli.console import bench as tables
from exporter.config import targets
from exporter.pipeline import estimate_stage
from exporter.pipeline.audit import verify_export
from exporter.records import DeviceLatency, EstimatedLatency, Report
from exporter.report import manifest, text
from exporter.report.manifest import restore
from exporter.report.manifest.schema import Manifest
from tests import exports
from tests.bench.test_bench import HOST, NEAR, SIMULATED, SLOW, latency, measured
from tests.command import exit_code
from tests.harness import sessions
from tests.report import sample

CHOSEN = "executorch-xnnpack-int8"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    sample.export(tmp_path / "out")
    return tmp_path / "out"


def phone(
    serial: str,
    work: BenchTask,
    plan: BenchConfig,
    ms: Sequence[float],
    scale: float = 1.0,
    repeatable: bool = True,
    **about: Any,
) -> Session:
    """Return a real phone's session with a launch for each of `ms`; outputs are the model's times `scale`."""
    reference = np.random.default_rng(1).normal(0, 1, (4, 1, 10)).astype(np.float32) * np.float32(scale)

    def launch(index: int, middle: float) -> Launch:
        taken = sessions.durations(index, ms=middle)
        return sessions.launch(
            index, taken, outputs=tuple((row,) for row in reference), repeatable=repeatable
        )

    return sessions.session(
        task=work,
        config=replace(plan, affinity="f0", launches=len(ms)),
        identity=sessions.identity(serial=serial, **about),
        launches=tuple(launch(index, middle) for index, middle in enumerate(ms)),
        canary_ns=((1_000_000,) * 30,) * (len(ms) + 1),
    )


def run(
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    phones: Mapping[str, Mapping[str, Any] | Exception],
    *arguments: str,
) -> int:
    """Run `bench OUT` on stand-ins: serial -> arguments of `phone`, or an error."""

    def answer(
        devices: Any, works: Sequence[BenchTask], plan: BenchConfig, **_: Any
    ) -> Mapping[str, Outcome]:
        return {device.serial: outcome(device.serial, works, plan) for device in devices}

    def outcome(serial: str, works: Sequence[BenchTask], plan: BenchConfig) -> Outcome:
        answer = phones[serial]
        if isinstance(answer, Exception):
            return Outcome(serial, error=answer)
        return Outcome(serial, results=tuple(phone(serial, work, plan, **answer) for work in works))

    monkeypatch.setattr(
        bench, "connect_for_bench", lambda _names: [SimpleNamespace(serial=name) for name in phones]
    )
    monkeypatch.setattr(all_devices, "bench_all_devices", answer)
    monkeypatch.setenv("COLUMNS", "100")
    return exit_code("bench", out, *arguments)


FAST, OVER, CLOSE = [8.0] * 5, [20.0] * 5, [14.0, 14.5, 15.0, 15.5, 16.0]


class TestExitCodes:
    """Scripts read the exit code."""

    @pytest.mark.parametrize(
        ("answer", "code", "word"),
        [
            ({"ms": FAST}, 0, "PASS"),
            ({"ms": OVER}, 17, "FAIL"),
            ({"ms": CLOSE}, 18, "INCONCLUSIVE"),
            ({"ms": FAST, "scale": -1.0}, 17, "FAIL"),
            ({"ms": FAST, "repeatable": False}, 17, "FAIL"),
            ({"ms": FAST, "doubts": ("It reports that it is a simulated device.",)}, 19, "NOT MEASURED"),
            ({"ms": FAST, "machine": "x86_64"}, 19, "NOT MEASURED"),
        ],
        ids=["pass", "over", "close", "wrong", "changing", "simulated", "x86"],
    )
    def test_the_verdict_is_the_exit_code(
        self,
        answer: dict[str, Any],
        code: int,
        word: str,
        out: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """The terminal, the manifest and the page agree with the exit code."""
        assert run(out, monkeypatch, {"R58N": answer}) == code
        output = capsys.readouterr()
        assert word in output.out
        assert word in (out / "report.html").read_text()
        listed = manifest.load_manifest(out / "manifest.json")
        assert row(listed).verdict == listed.verdict.budget == word.lower().replace(" ", "_")
        assert ("SIMULATED" in output.out) == (code == 19)

    def test_wrong_outputs_fail_with_the_reason(
        self, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Wrong outputs fail, however fast they are."""
        assert run(out, monkeypatch, {"R58N": {"ms": FAST, "scale": -1.0}}) == 17
        reason = f"{CHOSEN}: Its error is louder than its output (-6.0 dB SQNR)"
        assert reason in capsys.readouterr().out
        assert "-6.0 dB SQNR" in row(manifest.load_manifest(out / "manifest.json")).problem

    @pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
    def test_the_worst_of_two_phones_governs(
        self,
        order: tuple[str, str],
        out: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """The worst phone decides in any order; both are shown and stored."""
        known = {"a": {"ms": FAST}, "b": {"ms": OVER}}
        assert run(out, monkeypatch, {serial: known[serial] for serial in order}) == 17
        output = capsys.readouterr().out
        assert output.index("a: Mi 10T Pro") != output.index("b: Mi 10T Pro")
        listed = manifest.load_manifest(out / "manifest.json")
        assert row(listed).device["serial"] == "b"
        assert len(next(a for a in listed.artifacts if a.name == CHOSEN).device_latencies) == 2

    def test_one_phone_that_fails_does_not_take_the_others_figures(
        self, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The other's figures are written, and the exit code is the failure's."""
        gone = harness.Disconnected("It went away.", "Plug it in.")
        assert run(out, monkeypatch, {"a": {"ms": FAST}, "b": gone}) == 16
        output = capsys.readouterr()
        assert "b: It went away. Plug it in." in output.out
        assert "It went away." in output.err
        assert row(manifest.load_manifest(out / "manifest.json")).verdict == "pass"

    def test_nothing_is_written_when_nothing_was_measured(
        self, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The manifest is unchanged."""
        before = (out / "manifest.json").read_bytes()
        gone = harness.NotReadyError("The battery is at 3 %.", "Charge it.")
        assert run(out, monkeypatch, {"a": gone}) == 15
        assert not (out / "report.html").exists()
        assert (out / "manifest.json").read_bytes() == before

    def test_both_figures_are_side_by_side(
        self, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """`--app-like` measures twice, and each figure is named, in the terminal and on the page."""
        arguments = ("--app-like", "--threads", "2", "--affinity", "f0", "--profile")
        assert run(out, monkeypatch, {"A": {"ms": FAST}}, *arguments) == 0
        rows = restore.restore_report(manifest.load_manifest(out / "manifest.json")).artifacts
        items = [item for row in rows for item in row.device_latencies]
        assert [(item.app_like, item.device["threads"]) for item in items] == [(False, 2), (True, 0)]
        shown = [line for line in capsys.readouterr().out.splitlines() if "8.0" in line and "PASS" in line]
        assert ["as an app" in line for line in shown] == [False, True]
        assert "as an app runs" in (out / "report.html").read_text()

    @pytest.mark.parametrize("launches", ["0", "2"])
    def test_an_interval_takes_three_launches(self, launches: str, out: Path) -> None:
        """Fewer than three launches are refused: an interval of two is only their distance."""
        assert exit_code("bench", out, "--launches", launches) == 2


class TestLearning:
    """`bench --learn` corrects later estimates by a real phone, and by nothing else."""

    @pytest.mark.parametrize(
        ("answer", "threads", "learned"),
        [
            ({"ms": FAST}, "4", True),
            ({"ms": FAST}, "3", False),
            ({"ms": FAST, "scale": -1.0}, "4", False),
            ({"ms": FAST, "doubts": ("It reports that it is a simulated device.",)}, "4", False),
        ],
        ids=["phone", "other threads", "wrong outputs", "simulated"],
    )
    def test_later_estimates_are_corrected(
        self,
        answer: dict[str, Any],
        threads: str,
        learned: bool,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """The terminal compares, says from how much was learned, and the next estimate follows the phone."""
        monkeypatch.setenv("EXPORT_MOBILE_STATE", str(tmp_path / "state"))
        target = targets.get_target("snapdragon865")

        def estimated(report: Report) -> Report:
            rows = estimate_stage.run_estimate_stage(report.artifacts, {}, target, 600_000_000)
            return replace(report, artifacts=rows)

        def of_chosen(report: Report) -> EstimatedLatency:
            chosen = next(row for row in report.artifacts if row.variant.name == CHOSEN)
            return next(item for item in chosen.estimates if item.threads == 4)

        sample.export(tmp_path / "estimated", estimated)
        exported, _ = estimate_stage.report_of_estimate_stage(tmp_path / "estimated")
        before = of_chosen(estimated(exported))
        run(tmp_path / "estimated", monkeypatch, {"R58N": answer}, "--threads", threads, "--learn")
        told = capsys.readouterr().err
        assert f"Learned from {int(learned)} of 1 measurements." in told
        assert (device.LEARNED_FROM in told) == (not learned)
        after = of_chosen(estimated(exported))
        if not learned:
            assert after == before
            return
        assert after.p50_ms == pytest.approx(8.0, rel=0.01)  # what it took on the phone
        assert after.high_ms / after.low_ms < before.high_ms / before.low_ms
        assert after.evidence == "estimated"
        run(tmp_path / "estimated", monkeypatch, {"R58N": answer}, "--threads", threads, "--learn")
        assert of_chosen(estimated(exported)) == after


def row(listed: Manifest) -> Any:
    measurement = next(a for a in listed.artifacts if a.name == CHOSEN).device_latency
    assert measurement is not None
    return measurement


def shown(width: int, *latencies: DeviceLatency) -> str:
    """Return the terminal's text about latencies of one artifact with a long name."""
    console = Console(file=io.StringIO(), width=width)
    report = measured(executorch_xnnpack_int8=latencies[0])
    tables.print_bench(report, [(CHOSEN, item) for item in latencies], {}, {}, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


class TestTerminal:
    """People read the terminal."""

    @pytest.mark.parametrize("width", [80, 120])
    @pytest.mark.parametrize("serial", ["R58N", "127.0.0.1:36941", "adb-R5CR30ABCDE-x._adb-tls-connect._tcp"])
    def test_a_row_is_one_line(self, serial: str, width: int) -> None:
        """Artifact, figures, evidence and verdict fit one line at any width from 80 on."""
        (line,) = (
            line
            for line in shown(
                width, replace(SIMULATED, device={**SIMULATED.device, "serial": serial})
            ).splitlines()
            if line.startswith(CHOSEN)
        )
        assert line.split() == [
            CHOSEN,
            "2.00",
            "3.00",
            "2.80",
            "to",
            "3.20",
            text.NONE,
            "SIMULATED",
            "NOT",
            "MEASURED",
        ]

    @pytest.mark.parametrize(
        ("measurement", "words", "never"),
        [
            (latency(), ["measured", "PASS", "within budget on the device"], ["SIMULATED", "HOST"]),
            (SLOW, ["measured", "FAIL", "over budget on the device"], ["SIMULATED", "HOST"]),
            (NEAR, ["measured", "INCONCLUSIVE", "inconclusive on the device"], ["SIMULATED", "HOST"]),
            (SIMULATED, ["SIMULATED", "did not prove to be a phone"], ["PASS", " measured "]),
            (HOST, ["HOST", "nothing about a phone"], ["PASS", " measured "]),
        ],
        ids=["pass", "fail", "inconclusive", "simulated", "host"],
    )
    def test_each_kind_of_evidence(
        self, measurement: DeviceLatency, words: list[str], never: list[str]
    ) -> None:
        """The kinds of evidence cannot be confused."""
        output = " ".join(shown(80, measurement).split())
        assert all(word in output for word in words), output
        table = output.split("Budget")[0]
        assert not any(word in table for word in never), output

    def test_a_very_fast_model_loses_no_word(self) -> None:
        """The widest figures, such as 0.00712 ms, are shown in full."""
        tiny = replace(HOST, p50_ms=0.00651, p90_ms=0.00712, p90_ci_ms=(0.00651, 0.00799), p99_ms=0.00811)
        output = shown(80, tiny)
        assert "…" not in output
        assert all(word in output for word in ("0.00712", "0.00799", "HOST", "NOT MEASURED"))

    def test_the_budget_is_said_once(self) -> None:
        """An unmeasured budget is one line, not three."""
        assert shown(80, SIMULATED).count("Budget") == 1

    def test_each_device_is_described_above_its_table(self) -> None:
        """The line has serial, model, SoC, Android, runtime, threads and power."""
        about = {"chip": "snapdragon865", "android": "12", "runtime": "executorch 1.4.1", "threads": 4}
        slow = replace(SLOW, device={**SLOW.device, **about, "power": "usb"})
        output = shown(120, slow, latency(serial="other"))
        who = "R58N: Galaxy S20 FE, snapdragon865 (SM8250)"
        described = f"{who}, Android 12, executorch 1.4.1, 4 threads, on USB power"
        assert described in output
        assert (
            output.index(described)
            < output.index("FAIL")
            < output.index("other: Galaxy")
            < output.index("PASS")
        )

    def test_flags_of_several_launches_are_one_line(self) -> None:
        """The terminal groups flags that the manifest lists one by one."""
        flags = tuple(f"spread: launch {n}: p90 is 1.{n}5 times p50" for n in range(3))
        output = shown(80, replace(NEAR, flags=flags))
        assert f"{CHOSEN}: spread: launches 0, 1, 2: p90 is 1.05-1.25 times p50" in " ".join(output.split())

    def test_a_choice_that_was_not_measured_is_said(self) -> None:
        """The verdict of --artifact is not that of the chosen artifact."""
        console = Console(file=io.StringIO(), width=100)
        tables.print_bench(sample.report(), [("onnx-fp32", latency())], {}, {}, console)
        assert f"{CHOSEN} is chosen, but was not measured now." in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_export_and_bench_in_one_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`export CKPT … --bench --device host` runs the real runner and exits with 19."""
    monkeypatch.setattr(parse, "parse_load1", lambda text: 0.5)  # other tests' load is no reason to wait
    try:
        runner_build.find_runner_build("host", "executorch")
    except harness.SetupError:
        runner_build.build_runners("host")
    export = [str(exports.checkpoint("cnn")), "--target", "snapdragon865", "-o", str(tmp_path / "out")]
    net = ["--arch", "tests.nets:TinyCnn", "--input-shape", "1x1x8x8", "--formats", "executorch"]
    limited = ("--precisions", "fp32", "--threads", "1", "--bench", "--device", "host")
    assert exit_code(*export, *net, *limited) == 19
    output = capsys.readouterr()
    assert "HOST" in output.out
    assert "No real phone ran it" in output.err
    listed = manifest.load_manifest(tmp_path / "out" / "manifest.json")
    (measurement,) = (a.device_latency for a in listed.artifacts if a.name == listed.selected)
    assert measurement is not None
    assert (measurement.evidence, measurement.launches, measurement.problem) == (
        "host",
        BenchConfig.launches,
        "",
    )
    assert verify_export(tmp_path / "out").holds
