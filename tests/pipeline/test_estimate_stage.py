"""Tests of estimating an export: with planted counts, without QEMU, and in an export of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from exporter.cli import estimate as estimate_command
from exporter.cli.app import app
from exporter.cli.console import estimates as printed_estimates
from exporter.cli.doctor import examine
from exporter.config.targets import get_target
from exporter.emulated import arm_tools
from exporter.emulated.arm_tools import ArmTools
from exporter.emulated.run import BACKENDS
from exporter.errors import MissingDependencyError, VerificationError
from exporter.estimate import qemu_plugin
from exporter.estimate.instruction_counts import Counts
from exporter.estimate.qemu_plugin import PACKAGES, Plugin
from exporter.files import MANIFEST
from exporter.formats import VARIANTS
from exporter.pipeline import audit_claims, count_stage, estimate_stage
from exporter.records import Report, Status
from exporter.report import manifest
from exporter.report.manifest import restore
from exporter.verify import select_artifact
from tests.exports import exported
from tests.report import sample

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("faults")]
COUNTS = Counts(fma=70_000_000, dot=0, simd=9_000_000, scalar=3_000_000, branch=9_000_000, load=20_000_000)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    shutil.copytree(exported("cnn")[0], folder)
    return folder


def estimated(out: Path, monkeypatch: pytest.MonkeyPatch, counts: Mapping[str, Counts] | None) -> Report:
    """Estimate with these counts; None is a machine without QEMU."""
    tools = (ArmTools(Path(), out), Plugin(Path(), Path())) if counts is not None else None
    monkeypatch.setattr(count_stage, "tools_for_count_stage", lambda _: tools)
    monkeypatch.setattr(count_stage, "run_count_stage", lambda *_: counts)
    return estimate_stage.run_estimate_stage_for_command(out)


def latencies(report: Report) -> dict[str, float]:
    """Return artifact name -> estimated median on one thread."""
    return {a.variant.name: a.estimates[0].p50_ms for a in report.artifacts if a.estimates}


def test_every_cpu_artifact_is_estimated_and_no_other(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPU artifacts and those of another system have no figure; the choice follows the estimates."""
    counted = [v.name for v in VARIANTS.values() if v.backend in BACKENDS]
    report = estimated(out, monkeypatch, dict.fromkeys(counted, COUNTS))
    names = {a.variant.name for a in report.artifacts if a.status == "passed"}
    assert set(latencies(report)) == {
        name for name in names if not name.startswith(("coreml", "executorch-vulkan"))
    }
    best = min(latencies(report), key=lambda name: min(e.p50_ms for e in rows(report)[name]))
    assert report.selected == best
    assert "by estimate" in report.selection_reason
    for artifact in (a for a in report.artifacts if a.estimates):
        (fastest,) = (item for item in artifact.estimates if item.operators)
        assert fastest.p50_ms == min(item.p50_ms for item in artifact.estimates)
        assert sum(item.ms for item in fastest.operators) == pytest.approx(fastest.p50_ms)
        assert {"stem.0", "depthwise.0", "pointwise.0", "head"} <= {o.module for o in fastest.operators}
    assert "Estimated time by module" in (out / "report.html").read_text()
    assert report.budget == "not_measured"


@pytest.mark.parametrize(("status", "has"), [("failed", True), ("error", False), ("not_run", False)])
def test_wrong_outputs_are_estimated_and_not_chosen(status: Status, has: bool) -> None:
    """A file takes as long whether its outputs are right or not; one that never ran has no figure."""
    fp32 = next(row for row in sample.report().artifacts if row.variant.name == "onnx-fp32")
    wrong = replace(fp32, status=status)
    target = get_target("snapdragon865")
    (row,) = estimate_stage.run_estimate_stage([wrong], {}, target, 10**9)
    assert bool(row.estimates) == has
    assert select_artifact.select_artifact([row], target.runnable, False, False).name is None


def rows(report: Report) -> dict[str, Any]:
    return {a.variant.name: a.estimates for a in report.artifacts if a.estimates}


def test_a_planted_wrong_count_changes_the_estimate(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that runs twice shows in its own artifact, and in no other."""
    twice = Counts(*(2 * value for value in astuple(COUNTS)))
    once = latencies(estimated(out, monkeypatch, {"onnx-fp32": COUNTS}))
    wrong = latencies(estimated(out, monkeypatch, {"onnx-fp32": twice}))
    assert wrong["onnx-fp32"] == pytest.approx(2 * once["onnx-fp32"], rel=0.01)
    assert {n: v for n, v in wrong.items() if n != "onnx-fp32"} == {
        n: v for n, v in once.items() if n != "onnx-fp32"
    }


def test_without_qemu_the_graph_is_used_and_it_is_said(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is there, wider and marked, and the packages are named."""
    counted = rows(estimated(out, monkeypatch, {"onnx-fp32": COUNTS}))["onnx-fp32"][0]
    monkeypatch.setattr(count_stage, "tools_for_count_stage", lambda _: None)
    monkeypatch.setenv("PATH", str(out))
    result = CliRunner().invoke(app, ["estimate", str(out)])
    assert result.exit_code == 0, result.output
    printed = " ".join(result.stdout.split())
    assert "(estimated from the graph)" in printed
    assert f"To count what artifacts execute, run {PACKAGES}" in printed
    listed = json.loads((out / MANIFEST).read_text())
    graph = next(a for a in listed["artifacts"] if a["name"] == "onnx-fp32")["estimated_latencies"][0]
    assert (graph["evidence"], graph["basis"]) == ("estimated", "graph")
    assert graph["high_ms"] / graph["low_ms"] > counted.high_ms / counted.low_ms
    assert any("follows from the operators of the graph" in note for note in graph["notes"])


@pytest.mark.parametrize(
    ("plugin", "programs", "ready", "command"),
    [
        ("", "", True, ""),
        ("apt install qemu-user gcc", "", True, "apt install qemu-user gcc"),
        ("", "apt install cross", False, "apt install cross"),
        ("", "apt install cross", True, ""),
        ("apt install qemu-user gcc", "apt install cross", False, "apt install qemu-user gcc cross"),
        ("", "", False, "export-mobile doctor --prepare"),
    ],
    ids=["ready", "no QEMU", "no cross compiler", "compiled before", "neither", "not prepared"],
)
def test_what_counting_lacks_is_named(
    plugin: str, programs: str, ready: bool, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command brings everything that is missing; the doctor and the estimates name the same one."""
    tools = object() if ready else None
    monkeypatch.setattr(qemu_plugin, "missing_for_qemu_plugin", lambda: plugin)
    monkeypatch.setattr(arm_tools, "missing_arm_tools", lambda: programs)
    monkeypatch.setattr(arm_tools, "ready_arm_tools", lambda _: tools)
    assert count_stage.missing_for_count_stage(tmp_path) == command
    finding = examine._examine_counting()
    assert (finding.state, finding.fix) == ("limited" if command else "ok", command)


def test_json_has_the_words_on_the_budget(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts read the verdict beside each figure."""
    can_prepare(monkeypatch, lambda: None)  # else it would download and compile for half a minute
    monkeypatch.setattr(count_stage, "tools_for_count_stage", lambda _: None)
    answer = json.loads(CliRunner().invoke(app, ["estimate", str(out), "--json"]).stdout)
    verdicts = {item["verdict"] for items in answer["artifacts"].values() for item in items}
    assert verdicts <= {"estimated within", "estimated over", "uncertain"}
    assert verdicts


def can_prepare(monkeypatch: pytest.MonkeyPatch, prepare: Any) -> None:
    """Stand for a machine that has every program that counting needs."""
    monkeypatch.setattr(qemu_plugin, "missing_for_qemu_plugin", lambda: "")
    monkeypatch.setattr(arm_tools, "missing_arm_tools", lambda: "")
    monkeypatch.setattr(estimate_command, "prepare_arm_programs", prepare)


@pytest.mark.parametrize(("name", "remarked"), [("onnx-fp32", True), ("torchscript-lite-fp32", False)])
def test_only_what_can_be_counted_asks_for_qemu(
    name: str, remarked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch Mobile is never counted: installing QEMU brings it nothing."""
    monkeypatch.setattr(count_stage, "missing_for_count_stage", lambda _: "apt install something")
    report = sample.report()
    row = replace(next(iter(report.artifacts)), variant=VARIANTS[name], status="passed")
    (row,) = estimate_stage.run_estimate_stage([row], {}, get_target("snapdragon865"), 10**9)
    assert row.estimates
    remarks = printed_estimates.printed_estimate_remarks(replace(report, artifacts=(row,)))
    assert any("apt install something" in remark for remark in remarks) == remarked


def test_where_preparing_fails_the_graph_is_used_and_it_is_said(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without a network estimates like one without QEMU."""

    def unreachable() -> None:
        raise MissingDependencyError("The index cannot be reached.", "Connect.", code="EM-ARM64")

    can_prepare(monkeypatch, unreachable)
    monkeypatch.setattr(count_stage, "tools_for_count_stage", lambda _: None)
    result = CliRunner().invoke(app, ["estimate", str(out)])
    assert result.exit_code == 0, result.output
    assert "Not prepared. The index cannot be reached." in result.stderr
    assert "(estimated from the graph)" in " ".join(result.stdout.split())


def test_nothing_is_prepared_for_a_folder_without_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mistake is told at once, not after a download."""
    prepared: list[str] = []
    can_prepare(monkeypatch, lambda: prepared.append("prepared"))
    result = CliRunner().invoke(app, ["estimate", str(tmp_path)])
    assert isinstance(result.exception, VerificationError)
    assert prepared == []


def test_verify_says_that_nothing_in_out_proves_an_estimate(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who edits an estimate edits the choice: only a signature vouches for both."""
    before = manifest.load_manifest(out / MANIFEST)
    estimated(out, monkeypatch, {})
    after = manifest.load_manifest(out / MANIFEST)
    assert "estimated_latencies" not in audit_claims.unproven_audit_claims(before)
    assert "estimated_latencies" in audit_claims.unproven_audit_claims(after)


def test_a_changed_file_is_refused(out: Path) -> None:
    """An estimate of another file than the verified one would mislead."""
    with (out / "onnx-fp32.onnx").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(VerificationError, match=r"onnx-fp32\.onnx is not the file"):
        estimate_stage.run_estimate_stage_for_command(out)


@pytest.mark.parametrize(
    ("asked", "switch", "target", "wanted"),
    [
        (None, "1", "865", True),
        (None, "0", "865", False),
        (True, "0", "865", True),
        (False, "1", "865", False),
        (True, "1", "iphone", False),
    ],
)
def test_when_an_export_estimates(
    asked: bool | None, switch: str, target: str, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option comes before the environment, and only Snapdragons have estimates."""
    monkeypatch.setenv(estimate_stage.SWITCH, switch)
    assert estimate_stage.is_estimate_stage_wanted(asked, get_target(target)) is wanted


def test_a_network_of_no_products_needs_its_graph(out: Path) -> None:
    """Zero FLOPs estimate no latency: what the operators do is known from counts or from the graph alone."""
    report = restore.restore_report(manifest.load_manifest(out / MANIFEST))
    target = get_target(report.target_name)
    operators = estimate_stage.operators_for_estimates(report.artifacts, out)
    estimated_rows = {
        (flops, bool(graph)): sum(
            bool(row.estimates)
            for row in estimate_stage.run_estimate_stage(report.artifacts, {}, target, flops, graph)
        )
        for flops, graph in ((0, ()), (None, ()), (0, operators), (10**9, ()))
    }
    assert estimated_rows[0, False] == estimated_rows[None, False] == 0
    assert estimated_rows[0, True] == estimated_rows[10**9, False] > 0
