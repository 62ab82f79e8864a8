"""Tests of judging what artifacts compute on emulated Arm: with planted answers, and with QEMU itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from typer.testing import CliRunner

from exporter.cli.app import app
from exporter.config.targets import get_target
from exporter.emulated import arm_tools
from exporter.emulated import run as emulated
from exporter.emulated.arm_tools import ArmTools
from exporter.errors import LoweringError, MissingDependencyError, OverBoundsError, WorkerError
from exporter.estimate import qemu_plugin
from exporter.formats import FORMATS, VARIANTS
from exporter.pipeline import audit, count_stage, emulation_stage, estimate_stage
from exporter.records import Array, Emulation, Limits, Sample
from exporter.report import manifest
from exporter.verify import judge
from tests.exports import exported

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("faults")]
PHONE = get_target("865")


def on_planted_arm(name: str, change: Callable[[Array], Array]) -> Emulation:
    """Judge an artifact whose outputs on Arm are this machine's, changed."""
    out, _ = exported("cnn")
    variant = VARIANTS[name]
    path = out / f"{name}{variant.suffix}"

    def run(*arguments: Any) -> emulated.EmulatedRun:
        samples: list[Sample] = arguments[5]
        here, _ = FORMATS[variant.format].load(path, variant, 1)
        answers = tuple(tuple(change(array) for array in here(sample)) for sample in samples)
        return emulated.EmulatedRun("onnxruntime 1.32.0", answers)

    with mock.patch.object(emulated, "run_emulated", run):
        nothing = ArmTools(Path(), Path())
        return emulation_stage.emulate_artifact_in_stage(
            path, variant, out / "verification.npz", Limits(), PHONE, nothing, Path()
        )


class TestPlantedFaults:
    """Artifacts that are right here and wrong on Arm."""

    @pytest.mark.parametrize("name", ["onnx-fp32", "onnx-fp16", "onnx-int8", "executorch-xnnpack-int8"])
    def test_equal_outputs_pass(self, name: str) -> None:
        """What computes the same on Arm passes, and the difference is zero."""
        result = on_planted_arm(name, lambda array: array)
        assert (result.status, result.reason, result.difference) == ("passed", "", 0)
        assert (result.core, result.samples) == ("cortex-a76", emulation_stage.SAMPLES)
        assert result.max_error is not None

    @pytest.mark.parametrize("name", ["onnx-fp32", "onnx-fp16", "onnx-int8", "executorch-xnnpack-int8"])
    @pytest.mark.parametrize(
        "fault",
        [
            lambda a: np.clip(a, a.min() / 4, a.max() / 4),
            lambda a: np.full_like(a, np.nan),
            np.zeros_like,
            lambda a: a[..., ::-1].copy(),
        ],
        ids=["saturated", "NaN", "zeros", "reversed"],
    )
    def test_a_library_that_computes_something_else_fails(
        self, name: str, fault: Callable[[Array], Array]
    ) -> None:
        """A kernel that saturates, or gives other values, is found, and the reason says where."""
        result = on_planted_arm(name, fault)
        assert result.status == "failed"
        assert "mulated Arm" in result.reason

    @pytest.mark.parametrize("name", ["onnx-int8", "executorch-xnnpack-int8"])
    @pytest.mark.parametrize(
        ("program", "words"),
        [(True, "differs from its own quantised program"), (False, "different outputs from the same file")],
    )
    def test_a_difference_within_the_precisions_own_limits_fails(
        self, program: bool, words: str, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Arm may not differ from the quantised program, or from this machine, by more than rounding."""
        noise = np.random.default_rng(1)
        if not program:  # an export of an older version
            monkeypatch.setattr(
                emulation_stage, "verify_stage_programs", lambda *_: (Path("/none"), Path("/none"))
            )

        def noisy(array: Array) -> Array:
            values = array + 0.04 * np.abs(array).max() * noise.standard_normal(array.shape)
            return np.asarray(values, array.dtype)

        result = on_planted_arm(name, noisy)
        assert result.status == "failed"
        assert words in result.reason

    @pytest.mark.parametrize(("name", "program"), [("onnx-fp16", False), ("onnx-int8", True)])
    def test_the_limits_are_those_of_a_phones_outputs(self, name: str, program: bool) -> None:
        """The simulation of half precision, or the quantised program, on the samples that are run."""
        with mock.patch.object(judge, "judge_artifact", wraps=judge.judge_artifact) as judged:
            on_planted_arm(name, lambda array: array)
        (call,) = judged.call_args_list
        lowering, simulation = call.args[5], call.args[8]
        expected = lowering if program else simulation
        assert (lowering is not None, simulation is not None) == (program, not program)
        assert [len(stack) for stack in expected.outputs] == [emulation_stage.SAMPLES]
        assert call.kwargs == {"on_device": True}

    def test_a_crash_on_arm_fails(self) -> None:
        """A runtime that crashes there is a failure with its reason."""
        with mock.patch.object(emulated, "run_emulated", side_effect=LoweringError("the runtime crashes")):
            out, _ = exported("cnn")
            result = emulation_stage.emulate_artifact_in_stage(
                out / "onnx-fp32.onnx", VARIANTS["onnx-fp32"], out / "verification.npz", Limits(), PHONE,
                ArmTools(Path(), Path()), Path(),
            )  # fmt: skip
        assert (result.status, result.reason) == ("failed", "On emulated Arm, the runtime crashes")


KEPT = ("executorch-xnnpack-int8", "executorch-vulkan-fp16", "onnx-fp32", "onnx-fp16", "ort-int8")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A whole export, of which five artifacts are left."""
    folder = tmp_path / "out"
    shutil.copytree(exported("cnn")[0], folder)
    listed = json.loads((folder / "manifest.json").read_text())
    listed["artifacts"] = [a for a in listed["artifacts"] if a["name"] in KEPT]
    listed["selected"], listed["page_sha256"] = None, None
    (folder / "manifest.json").write_text(json.dumps(listed))
    return folder


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> ArmTools:
    """The real programs, compiled now with the wheels of the package index."""
    if command := arm_tools.missing_arm_tools():
        pytest.skip(f"missing: {command}")
    try:
        return arm_tools.prepare_arm_tools(tmp_path_factory.mktemp("arm"))
    except MissingDependencyError as error:
        if "while downloading" not in error.message:
            raise
        pytest.skip(str(error))


class TestQemu:
    """The real thing: the phone's kernels under QEMU."""

    def test_every_artifact_with_an_arm_library_runs_there(self, out: Path, ready: ArmTools) -> None:
        """ExecuTorch's and ONNX Runtime's files pass; Vulkan's has no Arm library."""
        findings = {f.name: f for f in audit.verify_export(out, 2, arm64=ready).findings}
        results = {name: finding.arm64 for name, finding in findings.items()}
        assert results.pop("executorch-vulkan-fp16") is None
        for name, result in results.items():
            assert result is not None
            assert (result.status, result.reason) == ("passed", ""), name
            assert result.runtime.startswith("executorch 1." if name.startswith("exec") else "onnxruntime 1.")
            assert findings[name].holds

    def test_what_artifacts_execute_is_counted_alike_every_time(
        self, out: Path, ready: ArmTools, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A whole estimate counts in the confined processes, and a second one gives the same figures.

        On a busy machine, one run of many differed by three ten-thousandths: instructions of ONNX Runtime.
        """
        if command := qemu_plugin.missing_for_qemu_plugin():
            pytest.skip(f"missing: {command}")
        tools = ready, qemu_plugin.make_qemu_plugin(ready.folder)
        monkeypatch.setattr(count_stage, "tools_for_count_stage", lambda _: tools)
        first, second = (
            {
                a.variant.name: a.estimates
                for a in estimate_stage.run_estimate_stage_for_command(out, 2, cached=False).artifacts
            }
            for _ in range(2)
        )
        assert first.keys() == second.keys()
        for name, estimates in first.items():
            assert [item.p50_ms for item in second[name]] == pytest.approx(
                [item.p50_ms for item in estimates], rel=1e-3
            )
        for name in ("executorch-xnnpack-int8", "onnx-fp32", "ort-int8"):
            assert {item.basis for item in first[name]} == {"counts"}
            assert [(item.threads, item.core) for item in first[name]] == [
                (1, ""),
                (4, ""),
                (1, "Cortex-A55"),
            ]
        assert first["executorch-vulkan-fp16"] == ()

    def test_no_python_and_no_torch_is_in_the_root(self, ready: ArmTools) -> None:
        """The emulated program sees the C library, the runtimes, and nothing of this machine's Python."""
        root = arm_tools.root_of_arm_tools(PHONE, ready)
        names = {path.name for path in (root / "lib").iterdir()}
        assert names == set(arm_tools.SYSTEM_LIBRARIES)
        programs = [path.name for path in (ready.folder / "bin").iterdir()]
        assert all(name.startswith(("libexecutorch", "libonnxruntime", "runner-")) for name in programs)

    def test_a_saturating_library_is_caught(self, out: Path, ready: ArmTools, tmp_path: Path) -> None:
        """A claim that passed here does not hold where the Arm kernels saturate."""
        folder = tmp_path / "parts"
        shutil.copytree(ready.folder, folder)
        saturate = folder / "saturate.py"
        saturate.write_text(SATURATE)
        qemu = folder / "qemu"
        qemu.write_text(f'#!/bin/sh\n"{ready.qemu}" "$@" && exec python3 "{saturate}" "$7"\n')
        qemu.chmod(0o755)
        audited = audit.verify_export(out, 2, arm64=ArmTools(qemu, folder))
        wrong = {f.name for f in audited.findings if f.arm64 and f.arm64.status == "failed"}
        assert wrong == set(KEPT) - {"executorch-vulkan-fp16"}
        assert not audited.holds

    def test_the_command_shows_a_column(
        self, out: Path, ready: ArmTools, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`verify --on arm64` prints what each artifact did there, and --json has it."""
        monkeypatch.setenv("EXPORT_MOBILE_CACHE", str(ready.folder.parents[1]))
        result = CliRunner().invoke(app, ["verify", str(out), "--on", "arm64"], env={"COLUMNS": "140"})
        assert "arm64 (emulated)" in " ".join(result.stdout.split())
        assert result.stdout.count("passed") >= 2 * 3


SATURATE = """
import json, struct, sys
result = json.load(open(json.load(open(sys.argv[1]))["result"]))
for tensor in (tensor for sample in result["outputs"] for tensor in sample):
    data = open(tensor["file"], "rb").read()
    values = struct.unpack(f"<{len(data) // 4}f", data)
    most = max(map(abs, values)) / 4
    saturated = [max(-most, min(most, value)) for value in values]
    open(tensor["file"], "wb").write(struct.pack(f"<{len(values)}f", *saturated))
"""
"""Limits every output to a quarter of its range, as a kernel that saturates does."""


def test_the_manifest_keeps_the_result(tmp_path: Path) -> None:
    """What was emulated is written and read back, and a passed artifact that failed on Arm is refused."""
    from dataclasses import replace

    from exporter.errors import VerificationError

    _, report = exported("cnn")
    passed = Emulation("passed", "", "onnxruntime 1.32.0", "cortex-a76", 2, 1e-6, 120.0, 1e-7)
    rows = tuple(replace(a, arm64=passed) if a.status == "passed" else a for a in report.artifacts)
    path = tmp_path / "manifest.json"
    path.write_text(manifest.dump_manifest(replace(report, artifacts=rows)))
    listed = manifest.load_manifest(path)
    assert {a.arm64_emulated for a in listed.artifacts if a.status == "passed"} == {passed}
    text = json.loads(path.read_text())
    for row in text["artifacts"]:
        if row["arm64_emulated"]:
            row["arm64_emulated"]["status"] = "failed"
    path.write_text(json.dumps(text))
    with pytest.raises(VerificationError):
        manifest.load_manifest(path)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OverBoundsError("It took more than 1200 s and was stopped."), "not_run"),
        (WorkerError("signal 11"), "failed"),
    ],
)
def test_a_job_that_was_stopped_for_its_time_proves_nothing(error: Exception, status: str) -> None:
    """A large network takes QEMU longer than a job may; a crash of its runtime is the artifact's."""
    result = emulation_stage._crash_in_emulation_stage(PHONE, error)
    assert (result.status, result.reason) == (status, f"On emulated Arm: {error}")


@pytest.mark.parametrize("flops", [emulation_stage.MOST_FLOPS, emulation_stage.MOST_FLOPS + 1])
def test_an_export_emulates_no_large_network(flops: int) -> None:
    """Beyond a number of FLOPs nothing runs, and the report says why, and by which command it does."""
    context, built = mock.Mock(target=PHONE), mock.Mock(variant=VARIANTS["onnx-fp32"], file="onnx-fp32.onnx")
    with (
        mock.patch.object(arm_tools, "ready_arm_tools", return_value=ArmTools(Path(), Path())),
        mock.patch.object(emulation_stage, "run_emulation_stage", return_value={}) as ran,
    ):
        results = emulation_stage.run_emulation_stage_of_export(context, [built], flops)
    assert ran.called is (flops == emulation_stage.MOST_FLOPS)
    assert [(name, result.status) for name, result in results.items()] == [("onnx-fp32", "not_run")][
        : not ran.called
    ]
    assert all("verify OUT --on arm64" in result.reason for result in results.values())
