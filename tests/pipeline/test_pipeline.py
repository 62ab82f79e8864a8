"""Whole exports of small networks: what comes out, what the cache spares, what one failure costs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporter import Limits, Report, TensorSpec, export
from exporter.config.request import Request
from exporter.config.targets import get_target
from exporter.errors import CheckpointError, UsageError
from exporter.pipeline.variants import check_required_variants, plan_variants
from exporter.pipeline.workers.jobs import Job, JobOutcome
from exporter.pipeline.workers.pool import WorkerPool
from exporter.records import Artifact
from exporter.report import manifest
from tests import exports, nets, odd_nets
from tests.command import exit_code

ROOT = Path(__file__).parents[2]
NOT_RUN_HERE = {"executorch-vulkan-fp16"}
POOR = "coreml-w4"
"""Palettes of 16 values are too few for some of these networks, as its reason tells."""
INTERPRETED = {"coreml-fp16", "coreml-w8", "coreml-w4"}

whole = [pytest.mark.slow, pytest.mark.xdist_group("faults")]
"""They share `exports.exported` with the planted faults."""
slow = [pytest.mark.slow, pytest.mark.xdist_group("pipeline")]


def row(report: Report, name: str) -> Artifact:
    return next(a for a in report.artifacts if a.variant.name == name)


def statuses(report: Report) -> dict[str, str]:
    return {a.variant.name: a.status for a in report.artifacts}


@pytest.mark.parametrize("net", nets.NETS)
class TestAFullExport:
    """All variants of the Snapdragon 865, for each of the three networks."""

    pytestmark = whole

    def test_what_can_run_here_passed(self, net: str) -> None:
        """An artifact that cannot run here is not_run with the reason, never passed."""
        report = exports.exported(net)[1]
        assert set(statuses(report)) == {v.name for v in plan_variants(get_target("snapdragon865"))}
        for name, status in statuses(report).items():
            if name == POOR:
                assert "dB SQNR" in (row(report, name).reason or "20 dB SQNR")
                continue
            assert status == ("not_run" if name in NOT_RUN_HERE else "passed"), row(report, name).reason
        assert all(row(report, name).reason for name in NOT_RUN_HERE)

    def test_core_ml_is_interpreted_and_not_timed(self, net: str) -> None:
        """What the reference interpreter executed says so, and has figures but no latency."""
        report = exports.exported(net)[1]
        assert {a.variant.name for a in report.artifacts if a.executor != "runtime"} == INTERPRETED
        for name in INTERPRETED:
            artifact = row(report, name)
            assert artifact.latency is None
            assert artifact.verdict is not None
            assert artifact.verdict.comparison is not None
            assert artifact.verdict.runtime.startswith("reference interpreter")
            assert "simulated_sqnr_db" in artifact.verdict.limits

    def test_fp32_is_equal_to_float64(self, net: str) -> None:
        """1e-5 of the output's scale, or ten times what eager float32 is off by itself."""
        report = exports.exported(net)[1]
        limit = max(1e-5, 10 * report.floor)
        for artifact in report.artifacts:
            if artifact.variant.precision == "fp32":
                assert artifact.verdict is not None
                assert artifact.verdict.comparison is not None
                assert artifact.verdict.comparison.samples == 32
                assert artifact.verdict.comparison.max_error <= limit, artifact.variant.name

    def test_int8_is_int8(self, net: str) -> None:
        """Weights are stored in 8 bits, and the artifact equals its own quantised program."""
        for artifact in exports.exported(net)[1].artifacts:
            if artifact.variant.precision == "int8":
                assert artifact.structure is not None
                assert artifact.structure.quantized_weight_fraction >= 0.9
                assert artifact.verdict is not None
                assert artifact.verdict.lowering is not None

    def test_what_ran_was_timed(self, net: str) -> None:
        """p90 is no smaller than p50; what only a stand-in for its runtime executed has no latency."""
        for artifact in exports.exported(net)[1].artifacts:
            if artifact.status == "passed" and artifact.executor == "runtime":
                assert artifact.latency is not None
                assert 0 < artifact.latency.p50_ms <= artifact.latency.p90_ms
                assert artifact.latency.samples >= 20

    def test_the_fastest_that_passed_is_selected(self, net: str) -> None:
        """One that the target runs; the budget is for a device to judge."""
        report = exports.exported(net)[1]
        passed = {a.variant.name: a.latency.p50_ms for a in report.artifacts if a.latency}
        assert report.selected == min(passed, key=passed.__getitem__)
        assert report.selected in get_target("snapdragon865").runnable
        assert (report.numerics, report.budget) == ("passed", "not_measured")

    def test_out_holds_what_the_manifest_says(self, net: str) -> None:
        """Artifacts, evidence, report and log; nothing else."""
        out, report = exports.exported(net)
        written = manifest.load_manifest(out / "manifest.json")
        files = {a.file for a in written.artifacts} | {e.file for e in written.evidence.files}
        assert {p.name for p in out.iterdir()} == files | {"manifest.json", "report.html", "export.log"}
        assert written.selected == report.selected
        assert (out / "report.html").read_text().startswith("<!doctype html>")

    def test_nothing_is_left_beside_out(self, net: str) -> None:
        """The work folder holds pickles: it is private and gone."""
        out, _ = exports.exported(net)
        assert [p for p in out.parent.iterdir() if p.name.startswith(f".{out.name}")] == []


@dataclass
class Spy:
    """Labels of every job that ran; or none may run."""

    labels: list[str]
    allowed: bool = True


class JobRanError(Exception):
    """The cache did not have it."""


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Spy:
    spy, real = Spy([]), WorkerPool.run

    def run(self: WorkerPool, work: Sequence[Job], *rest: Any, **named: Any) -> list[JobOutcome]:
        if work and not spy.allowed:
            raise JobRanError([job.label for job in work])
        spy.labels += [job.label for job in work]
        return real(self, work, *rest, **named)

    monkeypatch.setattr(WorkerPool, "run", run)
    return spy


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("cache")
        patch.setenv("EXPORT_MOBILE_CACHE", str(root))
        yield root


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory: pytest.TempPathFactory, kept: Path) -> tuple[Path, dict[str, Any], Report]:
    """A torchvision checkpoint, the options of its export, and the report of the first run."""
    from exporter.capture import torchvision_ops

    torchvision_ops.prepare_torchvision_ops()
    from torchvision import models

    folder = tmp_path_factory.mktemp("squeezenet")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(models.squeezenet1_1(num_classes=10).state_dict(), folder / "net.pth")
    rows = np.random.default_rng(0).standard_normal((8, 3, 64, 64)).astype(np.float32)
    np.savez(folder / "rows.npz", x=rows)
    options: dict[str, Any] = {
        "target": "snapdragon865",
        "formats": ("onnx-fp32", "onnx-int8"),
        "input_shapes": (TensorSpec("x", (1, 3, 64, 64)),),
        "calibration": folder / "rows.npz",
        "samples": 4,
    }
    report = export(folder / "net.pth", out=folder / "first", **options)
    return folder / "net.pth", options, report


def unclocked(report: Report) -> tuple[object, ...]:
    """All of a report but how long things took."""
    return report.selected, report.artifacts, report.notes, report.warnings, report.evidence_files


class TestTheCache:
    """What is unchanged is not made again; what is changed is."""

    pytestmark = slow

    def test_the_second_run_starts_no_worker(
        self, squeezenet: tuple[Path, dict[str, Any], Report], jobs: Spy, tmp_path: Path
    ) -> None:
        """A second run gives the same artifacts, figures and choice."""
        checkpoint, options, first = squeezenet
        jobs.allowed = False
        second = export(checkpoint, out=tmp_path / "out", **options)
        assert unclocked(second) == unclocked(first)
        assert manifest.load_manifest(tmp_path / "out" / "manifest.json").selected == first.selected

    def test_fewer_formats_are_only_timed_again(
        self, squeezenet: tuple[Path, dict[str, Any], Report], jobs: Spy, tmp_path: Path
    ) -> None:
        """Latencies are compared with those of the same run, so another set of files is timed together."""
        checkpoint, options, _ = squeezenet
        jobs.labels.clear()
        export(checkpoint, out=tmp_path / "out", **options | {"formats": ("onnx-fp32",)})
        assert jobs.labels == ["onnx latencies"]

    @pytest.mark.parametrize("change", [{"budget_ms": 3.0}, {"allow_synthetic": True}, {"jobs": 1}])
    def test_what_changes_no_result_still_hits(
        self,
        squeezenet: tuple[Path, dict[str, Any], Report],
        jobs: Spy,
        tmp_path: Path,
        change: dict[str, Any],
    ) -> None:
        """Neither do the names and places of files count."""
        checkpoint, options, _ = squeezenet
        shutil.copy(checkpoint, tmp_path / "other.ckpt")
        shutil.copy(options["calibration"], tmp_path / "other.npz")
        moved = options | {"calibration": tmp_path / "other.npz"} | change
        jobs.allowed = False
        export(tmp_path / "other.ckpt", out=tmp_path / "out", **moved)

    @pytest.mark.parametrize(
        "change",
        [
            {"samples": 3},
            {"calibration": None},
            {"mean": (0.5,)},
            {"input_shapes": (TensorSpec("x", (1, 3, 96, 96)),)},
            {"arch": "torchvision/squeezenet1_1"},
            {"limits": Limits(fp32_max_error=2e-5)},
            {"threads": 3},
            {"formats": ("onnx-fp16",)},
            {"cache": False},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_another_option_misses(
        self,
        squeezenet: tuple[Path, dict[str, Any], Report],
        jobs: Spy,
        tmp_path: Path,
        change: dict[str, Any],
    ) -> None:
        """Every option that a result depends on."""
        checkpoint, options, _ = squeezenet
        jobs.allowed = False
        with pytest.raises(JobRanError):
            export(checkpoint, out=tmp_path / "out", **options | change)

    def test_one_byte_of_the_checkpoint_misses(
        self, squeezenet: tuple[Path, dict[str, Any], Report], jobs: Spy, tmp_path: Path
    ) -> None:
        """One bit of one weight."""
        checkpoint, options, _ = squeezenet
        tensors = torch.load(checkpoint, weights_only=True)
        bias = tensors["classifier.1.bias"]
        bias[0] = torch.nextafter(bias[0], torch.tensor(1.0))
        torch.save(tensors, tmp_path / "net.pth")
        assert (tmp_path / "net.pth").stat().st_size == checkpoint.stat().st_size
        jobs.allowed = False
        with pytest.raises(JobRanError):
            export(tmp_path / "net.pth", out=tmp_path / "out", **options)

    def test_another_calibration_value_misses(
        self, squeezenet: tuple[Path, dict[str, Any], Report], jobs: Spy, tmp_path: Path
    ) -> None:
        """Content counts, not the file's name."""
        checkpoint, options, _ = squeezenet
        rows = dict(np.load(options["calibration"]))
        rows["x"][0, 0, 0, 0] += 1
        np.savez(tmp_path / "rows.npz", **rows)
        jobs.allowed = False
        with pytest.raises(JobRanError):
            export(checkpoint, out=tmp_path / "out", **options | {"calibration": tmp_path / "rows.npz"})

    def test_another_package_version_misses(
        self,
        squeezenet: tuple[Path, dict[str, Any], Report],
        jobs: Spy,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """`cache.cache_toolchain_key` covers every installed package."""
        checkpoint, options, _ = squeezenet
        monkeypatch.setattr("exporter.pipeline.cache.cache_toolchain_key", lambda: "torch 2.14")
        jobs.allowed = False
        with pytest.raises(JobRanError):
            export(checkpoint, out=tmp_path / "out", **options)

    def test_a_users_network_is_captured_again_but_not_built_again(
        self, kept: Path, jobs: Spy, tmp_path: Path
    ) -> None:
        """A network's code cannot be hashed with all it imports; the graph that comes out of it can."""
        options = exports.options("cnn") | {"target": "snapdragon865", "formats": ("onnx-fp32", "onnx-int8")}
        first = export(exports.checkpoint("cnn"), out=tmp_path / "first", **options)
        jobs.labels.clear()
        second = export(exports.checkpoint("cnn"), out=tmp_path / "second", **options)
        assert jobs.labels == ["reading the checkpoint", "the float64 reference"]
        assert unclocked(second) == unclocked(first)

    def test_another_format_later_says_all_that_was_noted(self, kept: Path, tmp_path: Path) -> None:
        """Notes of the reference, which is not made again, are repeated; this one cannot be float64."""
        program = torch.export.export(odd_nets.Single().eval(), (torch.ones(1, 8),))
        torch.export.save(program, tmp_path / "net.pt2")
        np.savez(tmp_path / "rows.npz", x=np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32))
        options: dict[str, Any] = {"target": "snapdragon865", "calibration": tmp_path / "rows.npz"}
        for formats in [("onnx-fp32",), ("onnx-fp32", "onnx-fp16")]:
            report = export(tmp_path / "net.pt2", out=tmp_path / formats[-1], formats=formats, **options)
            assert [note for note in report.notes if "not float64: the model does not run in float64" in note]

    def test_a_killed_run_is_resumed(self, kept: Path, jobs: Spy, tmp_path: Path) -> None:
        """What had been built before the kill comes from the cache."""
        options = exports.options("two_in_two_out") | {
            "target": "snapdragon865",
            "formats": ("onnx-fp32", "executorch-xnnpack-fp32"),
            "jobs": 1,
        }
        run = (
            "import os, signal\n"
            "from exporter import export\n"
            "from tests import exports\n"
            "def die(event):\n"
            "    if event.stage == 'build' and event.done == 2:\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            f"options = exports.options('two_in_two_out') | {_plain(options)!r}\n"
            f"export({str(exports.checkpoint('two_in_two_out'))!r}, out={str(tmp_path / 'out')!r},"
            " observer=die, **options)\n"
        )
        killed = subprocess.run([sys.executable, "-c", run], cwd=ROOT, check=False, timeout=300)
        assert killed.returncode == -9
        assert not (tmp_path / "out").exists()
        report = export(exports.checkpoint("two_in_two_out"), out=tmp_path / "out", **options)
        assert set(statuses(report).values()) == {"passed"}
        built = {"onnx-fp32", "executorch-xnnpack-fp32"} & set(jobs.labels[:3])
        assert len(built) == 1, jobs.labels
        assert [p.name for p in tmp_path.iterdir()] == ["out"]


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("target", "formats", "jobs")}


def save_net(net: torch.nn.Module, path: Path) -> Path:
    torch.save(net.state_dict(), path)
    return path


def odd(name: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Checkpoint and options of one of the networks in `odd_nets`, with seeded weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        checkpoint = save_net(getattr(odd_nets, name)(), folder / "net.pth")
    return checkpoint, exports.options("cnn") | {"arch": f"tests.odd_nets:{name}", "cache": False}


class TestOneFailure:
    """What a format cannot do is a row in the report, and its siblings go on."""

    pytestmark = slow

    def test_control_flow_is_scripted_and_the_others_say_why_not(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Exit 0: TorchScript passed and is selected; every error names torch's cause and the user's line."""
        checkpoint, options = odd("Branching", tmp_path)
        code = exit_code(
            checkpoint, "--target", "snapdragon865", "--arch", options["arch"], "--input-shape", "1x1x8x8",
            "--calibration", options["calibration"], "--no-cache", "-o", tmp_path / "out", "--search",
        )  # fmt: skip
        assert code == 0, capsys.readouterr().err
        written = manifest.load_manifest(tmp_path / "out" / "manifest.json")
        assert written.selected == "torchscript-lite-fp32"
        rows = {a.name: a for a in written.artifacts}
        passed = rows.pop("torchscript-lite-fp32")
        assert passed.status == "passed"
        assert any("script" in note.lower() for note in passed.notes)
        for artifact in rows.values():
            assert artifact.status == "error", artifact.name
            assert "data-dependent" in str(artifact.reason)
            assert "odd_nets.py:" in str(artifact.source_line)
        assert len(rows) == len(plan_variants(get_target("snapdragon865"))) - 1
        unfound = [words for words in written.warnings if words.startswith("The search found no ")]
        assert len(unfound) == 2
        assert all("data-dependent" in words for words in unfound)

    def test_an_operator_that_one_format_does_not_know(self, tmp_path: Path) -> None:
        """Core ML has no determinant: an error with its own words; ONNX passes."""
        checkpoint, options = odd("Determinant", tmp_path)
        formats = ("onnx-fp32", "torchscript-lite-fp32", "coreml-fp16")
        report = export(checkpoint, target="iphone", formats=formats, out=tmp_path / "out", **options)
        failed = row(report, "coreml-fp16")
        assert (failed.status, failed.file) == ("error", None)
        assert "det" in str(failed.reason)
        assert "odd_nets.py:" in str(failed.source_line)
        assert row(report, "onnx-fp32").status == "passed"
        assert row(report, "torchscript-lite-fp32").status == "passed"
        assert report.selected in {"onnx-fp32", "torchscript-lite-fp32"}

    def test_required_and_not_passed_is_exit_7(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The error names what did not pass, although something else was selected."""
        code = exit_code(
            exports.checkpoint("cnn"), "--target", "iphone", "--arch", "tests.nets:TinyCnn",
            "--input-shape", "1x1x8x8", "--calibration", exports.arrays("cnn"), "--no-cache",
            "--formats", "onnx-fp32,coreml-w4", "--require", "fp32,coreml", "-o", tmp_path / "out",
        )  # fmt: skip
        assert code == 7
        assert "--require coreml: none passed (coreml-w4 failed)" in capsys.readouterr().err
        assert manifest.load_manifest(tmp_path / "out" / "manifest.json").selected == "onnx-fp32"

    def test_a_randomly_initialised_network_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The outputs are about 1e-9 whatever the input: equality would mean nothing. Exit 6."""
        from exporter.capture import torchvision_ops

        torchvision_ops.prepare_torchvision_ops()
        from torchvision import models

        with torch.random.fork_rng():
            torch.manual_seed(0)
            checkpoint = save_net(models.mobilenet_v2(), tmp_path / "fresh.pth")
        code = exit_code(
            checkpoint, "--target", "snapdragon865", "--formats", "onnx-fp32", "--samples", 4,
            "--input-shape", "1x3x128x128", "--no-cache", "-o", tmp_path / "out",
        )  # fmt: skip
        assert code == 6
        assert "Nothing can be shipped" in capsys.readouterr().err
        (artifact,) = manifest.load_manifest(tmp_path / "out" / "manifest.json").artifacts
        assert artifact.status == "failed"
        assert "randomly initialised" in str(artifact.reason) or "hardly depends" in str(artifact.reason)

    def test_without_verification_nothing_is_selected(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """--no-verify builds, passes nothing, and exits 6."""
        code = exit_code(
            exports.checkpoint("cnn"), "--target", "snapdragon865", "--arch", "tests.nets:TinyCnn",
            "--input-shape", "1x1x8x8", "--formats", "onnx-fp32", "--no-verify", "--no-cache",
            "-o", tmp_path / "out",
        )  # fmt: skip
        assert code == 6
        written = manifest.load_manifest(tmp_path / "out" / "manifest.json")
        assert (written.selected, written.verdict.numerics) == (None, "not_run")
        (artifact,) = written.artifacts
        assert artifact.status == "not_run"
        assert "--no-verify" in str(artifact.reason)
        assert artifact.file is not None
        assert (tmp_path / "out" / artifact.file).exists()


@pytest.mark.slow
@pytest.mark.xdist_group("pipeline")
def test_modules_may_be_numbered(tmp_path: Path) -> None:
    """Convolutions and batch norms of a plain `nn.Sequential` go through ExecuTorch, exactly."""
    formats = ("executorch-xnnpack-fp32", "executorch-vulkan-fp16")
    options = exports.options("numbered") | {"formats": formats, "cache": False}
    report = export(exports.checkpoint("numbered"), target="snapdragon865", out=tmp_path / "out", **options)
    passed = row(report, "executorch-xnnpack-fp32")
    assert passed.status == "passed", passed.reason
    assert passed.verdict is not None
    assert passed.verdict.comparison is not None
    assert passed.verdict.comparison.sqnr_db > 100
    assert row(report, "executorch-vulkan-fp16").status == "not_run"


class TestSyntheticCalibration:
    """An int8 artifact without real inputs is made, marked, warned about, and not chosen."""

    pytestmark = slow

    def test_int8_is_not_selected_unless_asked_for(self, kept: Path, tmp_path: Path) -> None:
        """The same artifacts, another choice."""
        options = exports.options("cnn") | {"target": "snapdragon865", "formats": ("onnx-int8",)}
        del options["calibration"]
        report = export(exports.checkpoint("cnn"), out=tmp_path / "out", **options)
        written = manifest.load_manifest(tmp_path / "out" / "manifest.json")
        assert (written.calibration.kind, written.evidence.kind) == ("synthetic", "synthetic")
        assert any("synthetic" in warning for warning in written.warnings)
        assert row(report, "onnx-int8").status == "passed", row(report, "onnx-int8").reason
        assert report.selected is None
        assert "--allow-synthetic" in report.selection_reason
        asked = export(exports.checkpoint("cnn"), out=tmp_path / "asked", allow_synthetic=True, **options)
        assert asked.selected == "onnx-int8"


@pytest.mark.slow
@pytest.mark.xdist_group("pipeline")
def test_the_api_works_from_a_plain_script(tmp_path: Path) -> None:
    """No `if __name__ == "__main__"`, paths as texts, a network from a file beside the script."""
    (tmp_path / "my_nets.py").write_text("from tests.nets import TinyCnn as Net\n")
    (tmp_path / "script.py").write_text(
        "print('started')\n"
        "from exporter import TensorSpec, export\n"
        f"report = export({str(exports.checkpoint('cnn'))!r}, 'iphone', arch='my_nets:Net',\n"
        f"    input_shapes=(TensorSpec('', (1, 1, 8, 8)),), calibration={str(exports.arrays('cnn'))!r},\n"
        "    samples=8, formats=('onnx-fp32',), out='out', cache=False)\n"
        "print(report.selected)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.stdout.split() == ["started", "onnx-fp32"], process.stderr
    manifest.load_manifest(tmp_path / "out" / "manifest.json")


def test_a_folder_instead_of_a_checkpoint(tmp_path: Path) -> None:
    """Said before anything starts."""
    with pytest.raises(CheckpointError, match="is a folder"):
        export(tmp_path, target="iphone", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


PLANS: list[tuple[Sequence[str], Sequence[str], set[str]]] = [
    (["coreml"], [], {"coreml-fp16", "coreml-w8", "coreml-w4"}),
    (["onnx-fp32"], [], {"onnx-fp32"}),
    ([], ["w4", "w8"], {"coreml-w4", "coreml-w8"}),
    (["executorch", "coreml"], ["fp16"], {"coreml-fp16"}),
]


@pytest.mark.parametrize(("formats", "precisions", "expected"), PLANS)
def test_formats_and_precisions_narrow_the_plan(
    formats: Sequence[str], precisions: Sequence[str], expected: set[str]
) -> None:
    """Formats by name or by artifact; both must hold."""
    assert {v.name for v in plan_variants(get_target("iphone"), formats, precisions)} == expected


def test_everything_the_target_lists_is_planned() -> None:
    """In the target's own order, best first."""
    target = get_target("snapdragon865")
    assert tuple(v.name for v in plan_variants(target, search=True)) == target.variants
    unsearched = [name for name in target.variants if not name.endswith("-mixed")]
    assert [v.name for v in plan_variants(target)] == unsearched


@pytest.mark.parametrize("name", ["onnx", "int8", "onnx-int8"])
def test_a_requirement_may_be_a_format_a_precision_or_an_artifact(name: str) -> None:
    """Whatever the report names."""
    check_required_variants(Request(Path("x"), target="snapdragon865", formats=("onnx",)), [name])


def test_a_requirement_that_nothing_can_meet_is_refused() -> None:
    """Before the work, not after."""
    with pytest.raises(UsageError, match="coreml"):
        check_required_variants(Request(Path("x"), target="snapdragon865", formats=("onnx",)), ["coreml"])
