"""Tests of `bench` around the harness: selection, verdicts, and the manifest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from android_harness import errors as harness
from android_harness import runner_build
from exporter import bench
from exporter.bench import bench_artifacts, device_outputs
from exporter.cli import main
from exporter.errors import UsageError, VerificationError
from exporter.files import digest_file
from exporter.pipeline.audit import verify_export
from exporter.records import (
    Artifact,
    BudgetVerdict,
    DeviceEvidence,
    DeviceLatency,
    Limits,
    Report,
    Sample,
    Status,
    TensorSpec,
)
from exporter.report import html, manifest
from exporter.report.manifest import restore
from exporter.verify import budget, reference_io, select_artifact, simulation_io
from exporter.verify.reference_io import Lowering, ReferenceIO
from exporter.verify.simulation_io import Simulation
from exporter.verify.standard import Standard
from tests import exports
from tests.report import sample

PHONE = {"serial": "R58N", "model": "Galaxy S20 FE", "soc": "SM8250"}


def latency(
    p90_ms: float = 12.0,
    evidence: DeviceEvidence = "measured",
    verdict: BudgetVerdict = "pass",
    serial: str = "R58N",
    **changes: Any,
) -> DeviceLatency:
    default = DeviceLatency(
        evidence, PHONE | {"serial": serial}, p90_ms - 1, p90_ms, (p90_ms - 0.2, p90_ms + 0.2), 5, 1000, (),
        1e-6, verdict, budget_ms=15.0, launch_ms=((p90_ms - 2,) * 2 + (p90_ms - 1,) + (p90_ms,) * 2,) * 5,
    )  # fmt: skip
    return replace(default, **changes)


SIMULATED = latency(3.0, "simulated", "not_measured", serial="emulator")
HOST = latency(3.0, "host", "not_measured", serial="host")
SLOW = latency(20.0, verdict="fail")
NEAR = latency(15.0, verdict="inconclusive")
LOWERING, SIMULATED_FILE = "int8.lowering.npz", "fp16.simulated.npz"


def measured(**latencies: DeviceLatency) -> Report:
    """Return the sample export with latencies, by artifact (dashes as underscores)."""
    by_name = {name.replace("_", "-"): (item,) for name, item in latencies.items()}
    return bench.add_latencies_to_stored_bench(sample.report(), by_name, {}, 15.0)


def written(report: Report, folder: Path) -> Report:
    (folder / "manifest.json").write_text(manifest.dump_manifest(report))
    return restore.restore_report(manifest.load_manifest(folder / "manifest.json"))


class TestManifest:
    """Latencies survive the file, and contradictions do not."""

    def test_a_report_restored_from_its_manifest_gives_the_same_manifest(self, tmp_path: Path) -> None:
        """Nothing that the page shows is lost."""
        report = measured(executorch_xnnpack_int8=SLOW, onnx_fp32=SIMULATED)
        assert manifest.dump_manifest(written(report, tmp_path)) == manifest.dump_manifest(report)

    def test_the_page_is_the_same_from_the_manifest(self, tmp_path: Path) -> None:
        """Bench can draw the page without the export."""
        report = measured(executorch_xnnpack_int8=SLOW)
        assert html.render_html(written(report, tmp_path), sample.outputs()) == html.render_html(
            report, sample.outputs()
        )

    def test_the_fields_of_the_contract(self) -> None:
        """Fields that scripts read come first, in a fixed order."""
        rows = json.loads(manifest.dump_manifest(measured(executorch_xnnpack_int8=SLOW)))["artifacts"]
        row = next(r["device_latency"] for r in rows if r["name"] == "executorch-xnnpack-int8")
        assert list(row)[:10] == [
            "evidence", "device", "p50_ms", "p90_ms", "p90_ci_ms", "launches", "samples", "flags",
            "max_error", "verdict",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"evidence": "simulated"}, "evidence simulated cannot have the verdict pass"),
            ({"evidence": "host"}, "evidence host cannot have the verdict pass"),
            ({"verdict": "not_measured"}, "evidence measured cannot have the verdict not_measured"),
            ({"device": PHONE | {"doubts": ["ro.boot.qemu is 1"]}}, "lists doubts"),
            ({"why": ["uname says 'x86_64', not 'aarch64'."]}, "lists doubts"),
            ({"device": {"serial": "R58N", "soc": ""}}, "SoC is not identified"),
            ({"device": PHONE | {"soc": "SM8350"}}, "not the target's SM8250"),
            ({"flags": ["trend: 5 %"]}, "not stable"),
            ({"device": PHONE | {"serial": "host"}}, "its device is 'host'"),
            ({"device": {}}, "no serial"),
            ({"p90_ci_ms": [14.0, 15.5]}, "p90 may be 15.5 ms"),
            ({"p90_ci_ms": [13.0, 12.0]}, "not in order"),
            ({"problem": "It gives NaN."}, "It gives NaN"),
            ({"verdict": "fail"}, "p90 may be 11.8 ms"),
            ({"samples": 0}, "samples is 0"),
            ({"samples_file": "../x"}, "relative path"),
        ],
    )
    def test_a_latency_that_contradicts_itself_is_refused(
        self, change: dict[str, Any], words: str, tmp_path: Path
    ) -> None:
        """Each contradiction gives one message with the reason."""
        content = json.loads(manifest.dump_manifest(measured(executorch_xnnpack_int8=latency())))
        row = next(a for a in content["artifacts"] if a["name"] == "executorch-xnnpack-int8")
        row["device_latency"] |= change
        row["device_latencies"] = [row["device_latency"]]
        (tmp_path / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(VerificationError, match=words):
            manifest.load_manifest(tmp_path / "manifest.json")

    @pytest.mark.parametrize("claim", ["pass", "fail", "inconclusive"])
    @pytest.mark.parametrize("claimed", [None, SIMULATED, HOST])
    def test_a_budget_verdict_without_a_phone_is_refused(
        self, claim: str, claimed: DeviceLatency | None, tmp_path: Path
    ) -> None:
        """Only a real phone's measurement of the chosen artifact gives a verdict."""
        report = measured(executorch_xnnpack_int8=claimed) if claimed else sample.report()
        content = json.loads(manifest.dump_manifest(report))
        content["verdict"]["budget"] = claim
        (tmp_path / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(VerificationError, match=f"verdict.budget is {claim}"):
            manifest.load_manifest(tmp_path / "manifest.json")


class TestVerdict:
    """Phones that measured the chosen artifact give the verdict."""

    @pytest.mark.parametrize(
        ("latencies", "expected"),
        [
            ((), "not_measured"),
            ((latency(),), "pass"),
            ((SLOW,), "fail"),
            ((NEAR,), "inconclusive"),
            ((SIMULATED,), "not_measured"),
            ((HOST,), "not_measured"),
            ((SIMULATED, latency()), "pass"),
            ((latency(), latency(20.0, verdict="fail", serial="other")), "fail"),
            ((latency(), latency(15.0, verdict="inconclusive", serial="other")), "inconclusive"),
            ((replace(latency(), budget_ms=30.0),), "pass"),
            ((latency(31.0, budget_ms=40.0),), "fail"),
            ((latency(31.0, verdict="inconclusive", flags=("trend: 5 %",)),), "fail"),
            ((latency(12.0, verdict="inconclusive", flags=("trend: 5 %",)),), "inconclusive"),
            ((latency(problem="9 dB", verdict="fail", budget_ms=40.0), latency(serial="other")), "fail"),
        ],
    )
    def test_the_worst_phone_counts(self, latencies: tuple[DeviceLatency, ...], expected: str) -> None:
        """All phones must meet the budget, whatever budget they were measured for."""
        assert budget.budget_verdict(latencies, 15.0) == expected

    def test_it_follows_the_chosen_artifact(self) -> None:
        """Another artifact that is fast enough does not help."""
        assert measured(executorch_xnnpack_int8=SLOW, onnx_fp32=latency()).budget == "fail"
        assert measured(onnx_fp32=latency()).budget == "not_measured"

    def test_measuring_again_replaces_what_the_same_device_said(self) -> None:
        """Other devices' latencies stay."""
        once = measured(executorch_xnnpack_int8=SLOW)
        name = "executorch-xnnpack-int8"
        again = bench.add_latencies_to_stored_bench(once, {name: (latency(), SIMULATED)}, {}, 15.0)
        row = next(a for a in again.artifacts if a.variant.name == name)
        assert row.device_latencies == (latency(), SIMULATED)
        assert again.budget == "pass"


class TestChoice:
    """The device decides the choice once it has measured all candidates."""

    RUNNABLE = ("executorch-xnnpack-fp32", "executorch-xnnpack-int8", "onnx-fp32", "onnx-fp16")

    def everything(self, **changes: DeviceLatency) -> Report:
        latencies = {name.replace("-", "_"): latency(10.0 + i) for i, name in enumerate(self.RUNNABLE)}
        return measured(**(latencies | changes))

    def test_the_fastest_on_the_device_ships(self) -> None:
        """The device's fastest wins over this machine's."""
        report = self.everything()
        assert report.selected == "executorch-xnnpack-fp32"
        assert "10 ms p90, measured" in report.selection_reason

    def test_one_that_was_not_measured_leaves_the_choice(self) -> None:
        """The choice stays, but its reason no longer says that no device measured it."""
        report = replace(sample.report(), selection_reason=f"Fastest here; {select_artifact.UNMEASURED}.")
        now = bench.add_latencies_to_stored_bench(report, {"executorch-xnnpack-int8": (latency(),)}, {}, 15.0)
        assert now.selected == report.selected
        assert "a device measured it (12 ms p90)" in now.selection_reason

    def test_simulated_figures_choose_nothing(self) -> None:
        """Simulated figures choose nothing, however complete they are."""
        latencies = {name.replace("-", "_"): SIMULATED for name in self.RUNNABLE}
        assert measured(**latencies).selection_reason == sample.report().selection_reason

    def test_different_phones_are_not_compared(self) -> None:
        """Latencies of different phones do not decide the choice."""
        assert self.everything(onnx_fp32=latency(serial="other")).selected == sample.report().selected

    def test_what_computes_something_else_does_not_ship(self) -> None:
        """Wrong outputs do not ship, however fast they are."""
        wrong = latency(1.0, verdict="fail", problem="Its largest error is 0.3.")
        assert self.everything(onnx_fp32=wrong).selected == "executorch-xnnpack-fp32"


def built_runners(*names: str) -> Callable[[str, str], Path]:
    """Return a stand-in for `find_build_of_runner`: runners by "BACKEND" or "PLATFORM BACKEND" are built."""

    def find(target: str, backend: str) -> Path:
        if {backend, f"{target} {backend}"} & set(names):
            return Path("runner")
        raise harness.SetupError(f"{target}: {backend} is not built.", "build it")

    return find


class TestSelection:
    """Options decide what is measured."""

    @pytest.fixture(autouse=True)
    def without_vulkan(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Pretend that no runner has the Vulkan backend, whatever this machine has built."""
        monkeypatch.setattr(runner_build, "find_runner_build", built_runners("executorch", "onnxruntime"))

    def test_vulkan_is_measured_where_the_runner_has_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A Vulkan artifact did not run where it was exported: the device's outputs are its first proof."""
        finds = built_runners("executorch", "onnxruntime", "android-arm64 vulkan")
        monkeypatch.setattr(runner_build, "find_runner_build", finds)
        name = "executorch-vulkan-fp16"
        selection = bench_artifacts.select_bench_artifacts(sample.report(), name)
        assert [(a.variant.name, a.status) for a in selection.artifacts] == [(name, "not_run")]
        everything = bench_artifacts.select_bench_artifacts(sample.report(), every=True)
        assert name not in bench_artifacts.bench_artifacts_without_unbuilt(everything, False).skipped
        assert (
            "host: vulkan" in bench_artifacts.bench_artifacts_without_unbuilt(everything, True).skipped[name]
        )

    def test_the_chosen_one_by_default(self) -> None:
        """The default measures only the chosen artifact."""
        selection = bench_artifacts.select_bench_artifacts(sample.report())
        assert [a.variant.name for a in selection.artifacts] == ["executorch-xnnpack-int8"]

    def test_the_first_that_passed_when_nothing_was_chosen(self) -> None:
        """The first passed artifact is measured when none was chosen."""
        selection = bench_artifacts.select_bench_artifacts(replace(sample.report(), selected=None))
        assert [a.variant.name for a in selection.artifacts] == ["executorch-xnnpack-fp32"]

    def test_all_that_can_be_run_and_why_not_the_rest(self) -> None:
        """Every artifact is measured or skipped with a reason."""
        selection = bench_artifacts.select_bench_artifacts(sample.report(), every=True)
        assert {a.variant.name for a in selection.artifacts} == set(TestChoice.RUNNABLE)
        reason = selection.skipped["executorch-vulkan-fp16"]
        assert "For android-arm64: build it" in reason
        assert "For host: build it" in reason
        assert selection.skipped["onnx-int8"] == "it is failed, not passed"
        everything = {a.variant.name for a in sample.artifacts()}
        assert {a.variant.name for a in selection.artifacts} | set(selection.skipped) == everything

    @pytest.mark.parametrize("name", ["executorch-vulkan-fp16", "onnx-int8", "nonsense"])
    def test_one_that_cannot_be_measured_is_a_usage_error(self, name: str) -> None:
        """The message says which artifacts can be measured."""
        with pytest.raises(UsageError, match="These can: executorch-xnnpack-fp32"):
            bench_artifacts.select_bench_artifacts(sample.report(), name)

    def test_an_export_of_which_nothing_passed(self) -> None:
        """An export without a passed artifact is refused."""
        with pytest.raises(UsageError, match="Nothing of this export"):
            bench_artifacts.select_bench_artifacts(sample.nothing_passed())


def evidence() -> ReferenceIO:
    random = np.random.default_rng(1)
    reference = random.normal(0, 1, (4, 1, 10))
    inputs = random.normal(0, 1, (4, 1, 3)).astype(np.float32)
    return ReferenceIO(
        (inputs,), (reference,), (inputs[:1],), (reference[:1] * 0,), ("zeros",), 1e-7, 1e-7, "float64"
    )


def answers(change: Callable[[Any], Any] = lambda y: y) -> list[Sample]:
    return [(change(y.astype(np.float32)),) for y in evidence().reference[0]]


BY_NAME = {artifact.variant.name: artifact for artifact in sample.artifacts()}
FP32: Artifact = BY_NAME["executorch-xnnpack-fp32"]
FP16, INT8 = BY_NAME["onnx-fp16"], BY_NAME["executorch-xnnpack-int8"]
LOGITS = TensorSpec("logits", (1, 10))


def standard(**changes: Any) -> Standard:
    """Return what the outputs of `answers` are judged by."""
    return replace(Standard(evidence(), (LOGITS,), Limits()), **changes)


class TestOutputs:
    """A device's outputs are judged as verification judges an artifact's."""

    def test_the_models_outputs_pass(self) -> None:
        """The model's outputs pass with float32's error."""
        error, problem = device_outputs.judge_device_outputs(FP32, standard(), [answers(), answers()])
        assert problem == ""
        assert error is not None
        assert 0 < error < 1e-6

    @pytest.mark.parametrize(
        ("launches", "words"),
        [
            ([answers(), answers(lambda y: y * 1.01)], "largest error"),
            ([answers(lambda y: y * np.float32(np.nan))], "NaN or Inf"),
            ([answers(lambda y: y[:, ::-1])], "largest error"),
            ([answers(lambda y: y[:, :5])], "output logits has shape"),
            ([answers(lambda y: y.astype(np.int32))], "types are int32"),
            ([answers(lambda y: y.astype(np.float64))], "types are float64"),
            ([answers()[:3]], "answered 3 of 4"),
            ([[(y, y) for (y,) in answers()]], "has 2 outputs, the model has 1"),
            ([], "sent no outputs"),
        ],
    )
    def test_anything_else_is_a_problem(self, launches: list[list[Sample]], words: str) -> None:
        """Wrong outputs in any launch are a problem."""
        assert words in device_outputs.judge_device_outputs(FP32, standard(), launches)[1]

    def test_each_edge_input_is_judged(self) -> None:
        """What a device gives for an edge input is judged as here, by its name."""
        right, wrong = [(np.zeros((1, 10), np.float32),)], [(np.full((1, 10), 0.5, np.float32),)]
        launches = [answers(), answers()]
        assert device_outputs.judge_device_outputs(FP32, standard(), launches, right)[1] == ""
        problem = device_outputs.judge_device_outputs(FP32, standard(), launches, wrong)[1]
        assert "On the edge input 'zeros'" in problem

    def test_outputs_that_change_from_launch_to_launch_are_a_problem(self) -> None:
        """A change of one bit between launches fails, however small the error is."""
        changed = answers()
        changed[2][0].reshape(-1)[3] = np.nextafter(changed[2][0].reshape(-1)[3], np.float32(np.inf))
        error, problem = device_outputs.judge_device_outputs(
            FP32, standard(), [answers(), answers(), changed]
        )
        assert "Launch 3 computes other outputs than launch 1 from the same input (2)" in problem
        assert error is not None
        assert error < 1e-6

    def test_the_manifests_limits_apply(self) -> None:
        """Looser limits of an export apply on the device, too."""
        loose = standard(limits=Limits(fp32_max_error=0.1))
        assert device_outputs.judge_device_outputs(FP32, loose, [answers(lambda y: y * 1.01)])[1] == ""

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda y: y, ""),
            (lambda y: y + 4e-3 * np.random.default_rng(9).normal(size=y.shape), ""),
            (lambda y: y * 1.012, "its error is"),
            (lambda y: y + np.float32(5e-3), "it is shifted"),
            (lambda y: y + np.float32(0.022) * (np.arange(10) == 7) * np.sign(y), "the error at 7 of axis 1"),
        ],
    )
    def test_half_precision_is_judged_by_its_simulation(
        self, change: Callable[[Any], Any], words: str
    ) -> None:
        """Errors that 35 dB allows fail on a device, too, with a margin for sums in half precision."""
        judged = standard(simulation=Simulation((half(evidence().reference[0], 1),), {}))
        device = [(change(half(y, 2 + i)).astype(np.float32),) for i, y in enumerate(evidence().reference[0])]
        problem = device_outputs.judge_device_outputs(FP16, judged, [device])[1]
        assert words in problem
        assert bool(problem) == bool(words)

    def test_int8_is_judged_by_its_program(self) -> None:
        """A device whose kernels do not compute the quantised program fails, however close it is."""
        program = Lowering((evidence().reference[0] + 0.01,), 99.0)
        judged = standard(lowering=program)
        right = [(y.astype(np.float32),) for y in program.outputs[0]]
        assert device_outputs.judge_device_outputs(INT8, judged, [right])[1] == ""
        off = [(y + 0.05 * np.sign(y),) for (y,) in right]
        assert "its own quantised program" in device_outputs.judge_device_outputs(INT8, judged, [off])[1]

    def test_a_wrong_channel_is_named(self) -> None:
        """The reason has the label of the class that a device does not compute."""
        labels = tuple(f"class {letter}" for letter in "abcdefghij")
        dead = answers(lambda y: np.where(np.arange(10) == 3, y.dtype.type(0), y))
        problem = device_outputs.judge_device_outputs(FP32, standard(labels=labels), [dead])[1]
        assert "class d" in problem

    @pytest.mark.parametrize(("status", "passes"), [("inconclusive", True), ("not_run", False)])
    def test_what_was_accepted_with_few_scenes_stays_so(self, status: Status, passes: bool) -> None:
        """Outputs that the scenes cannot decide on fail only where a device's are the first ones."""
        noisy = [
            (y + np.float32(0.1) * np.random.default_rng(i).normal(size=y.shape).astype(np.float32),)
            for i, (y,) in enumerate(answers())
        ]
        problem = device_outputs.judge_device_outputs(replace(INT8, status=status), standard(), [noisy])[1]
        assert (problem == "") == passes
        assert passes or "scene(s) cannot decide" in problem


def half(values: Any, seed: int) -> Any:
    """Return values with noise of about half precision."""
    noisy = values + np.random.default_rng(seed).normal(size=values.shape) * 1e-3
    return noisy.astype(np.float32)


class TestFiles:
    """Raw samples are stored next to the manifest."""

    def test_hostile_serials_become_plain_names_that_differ(self) -> None:
        """Hostile serials become plain and distinct file names."""
        names = [
            device_outputs.samples_file_of_device_outputs("onnx-fp32", s)
            for s in ("R58N", "r58n", "a b", "a/b", "../..", "x" * 999)
        ]
        assert len({n.casefold() for n in names}) == len(names)
        assert all(n.startswith("device/onnx-fp32-") and n.count("/") == 1 and len(n) < 255 for n in names)

    def test_a_changed_artifact_is_not_pushed(self, tmp_path: Path) -> None:
        """Only the exported file is measured."""
        (tmp_path / str(FP32.file)).write_bytes(b"other")
        with pytest.raises(VerificationError, match="sha256 differs"):
            bench_artifacts.tasks_of_bench_artifacts(tmp_path, [FP32], evidence())

    def test_a_changed_simulation_is_not_judged_by(self, tmp_path: Path) -> None:
        """What outputs are judged by is the manifest's, or the bench ends before anything is measured."""
        reference_io.save_reference_io_lowering(Lowering(evidence().reference, 40.0), tmp_path / LOWERING)
        simulation_io.save_simulation(Simulation(evidence().reference, {}), tmp_path / SIMULATED_FILE)
        listed = {name: digest_file(tmp_path / name) for name in (LOWERING, SIMULATED_FILE)}
        report = replace(sample.report(), evidence_files=listed)
        by = bench_artifacts.load_bench_artifact_standards(tmp_path, report, [FP32, FP16, INT8], evidence())
        assert by["executorch-xnnpack-int8"].lowering is not None
        assert by["onnx-fp16"].simulation is not None
        float32 = by["executorch-xnnpack-fp32"]
        assert (float32.lowering, float32.simulation) == (None, None)
        assert by["onnx-fp16"].outputs == report.outputs
        for name in listed:
            changed = replace(report, evidence_files={**listed, name: "0" * 64})
            with pytest.raises(VerificationError, match=rf"{name} is not the file that was exported"):
                bench_artifacts.load_bench_artifact_standards(
                    tmp_path, changed, [FP32, FP16, INT8], evidence()
                )


def test_simulated_is_all_over_the_page() -> None:
    """A simulated latency cannot be mistaken for a phone's."""
    page = html.render_html(measured(executorch_xnnpack_int8=SIMULATED), {})
    assert page.count("SIMULATED") >= 2
    assert "did not prove to be a phone" in page
    assert "NOT MEASURED" in page
    assert "Budget 15.0 ms on snapdragon865: not measured on a device" in page


def test_the_budget_figure_follows_the_phone() -> None:
    """The first screen shows the interval and the device."""
    page = html.render_html(measured(executorch_xnnpack_int8=SLOW), {})
    assert "over budget on the device: p90 19.8 to 20.2 ms, Galaxy S20 FE, SM8250, R58N" in page


@pytest.mark.slow
def test_bench_on_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The real runner exits with 19, outputs match, labels appear everywhere, and OUT still verifies."""
    build = pytest.importorskip("android_harness.runner_build")
    try:
        build.find_runner_build("host", "executorch")
    except harness.SetupError:
        build.build_runners("host")
    out = tmp_path / "out"
    shutil.copytree(exports.exported("cnn")[0], out)
    name = "executorch-xnnpack-fp32"
    short = ["--launches", "3", "--seconds", "0.05", "--threads", "1"]
    with pytest.raises(SystemExit) as caught:
        main(["bench", str(out), "--device", "host", "--artifact", name, *short])
    assert caught.value.code == 19
    output = capsys.readouterr()
    assert "HOST" in output.out
    assert "NOT MEASURED" in output.out
    assert "No real phone ran it" in output.err
    listed = manifest.load_manifest(out / "manifest.json")
    measurement = next(a.device_latency for a in listed.artifacts if a.name == name)
    assert measurement is not None
    assert (measurement.evidence, measurement.verdict, measurement.problem) == ("host", "not_measured", "")
    assert measurement.max_error is not None
    assert measurement.max_error < 1e-5
    assert listed.verdict.budget == "not_measured"
    assert measurement.samples_file in {item.file for item in listed.evidence.files}
    assert "HOST" in (out / "report.html").read_text()
    assert verify_export(out).holds


@pytest.mark.parametrize("spread", [0.003, 0.031])
def test_the_page_says_how_far_an_interval_can_be_trusted(spread: float) -> None:
    """The page gives the launches' spread, and the coverage that was measured for such sessions."""
    device = PHONE | {"launch_spread": spread}
    page = html.render_html(measured(executorch_xnnpack_int8=latency(device=device)), {})
    words = (
        f"5 launches that differ by {spread:.1%}; such an interval holds the true p90 in at least 95 of 100"
    )
    assert words in page


@pytest.mark.parametrize(("launches", "samples"), [(3, 1000), (5, 199)])
def test_a_recorded_pass_with_too_little_evidence_counts_for_none(launches: int, samples: int) -> None:
    """The floor holds for a manifest that claims more, too."""
    assert budget.budget_verdict((latency(launches=launches, samples=samples),), 15.0) == "inconclusive"


def test_an_exceeded_limit_fails_every_budget() -> None:
    """Too much memory is a FAIL, whatever p90 is."""
    greedy = latency(verdict="fail", exceeded=("It took 200.0 MB of memory at its peak.",))
    assert budget.budget_verdict((greedy,), 1000.0) == "fail"
    assert "It took 200.0 MB" in html.render_html(measured(executorch_xnnpack_int8=greedy), {})
