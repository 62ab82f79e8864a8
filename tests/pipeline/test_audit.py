"""`export-mobile verify OUT` believes nothing but what lies in OUT. `test_faults.py` plants the damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import VerificationError
from exporter.pipeline import audit
from exporter.pipeline.audit import Audit, AuditFinding, verify_export
from exporter.pipeline.context import Event
from exporter.report import manifest
from tests.command import exit_code
from tests.exports import exported
from tests.faults import edit_manifest, edit_onnx, rehash, swap, weights
from tests.report import sample

slow = [pytest.mark.slow, pytest.mark.xdist_group("faults")]
KEPT = ("onnx-fp32", "onnx-fp16", "coreml-fp16")
EVIDENCE = "verification.npz"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Three artifacts of a good export, moved to another folder."""
    folder = tmp_path / "elsewhere"
    shutil.copytree(exported("cnn")[0], folder)
    edit_manifest(keep_three)(folder)
    return folder


def keep_three(manifest: dict[str, Any]) -> None:
    manifest["artifacts"] = [a for a in manifest["artifacts"] if a["name"] in KEPT]
    remaining = {EVIDENCE, "fp16.simulated.npz"}
    manifest["evidence"]["files"] = [e for e in manifest["evidence"]["files"] if e["file"] in remaining]
    manifest["selected"] = "onnx-fp32"
    fastest = next(a for a in manifest["artifacts"] if a["name"] == "onnx-fp32")
    fastest["host_latency"] |= {"p50_ms": 1e-6}  # so that the choice is the one that its figures lead to


def claim(name: str, status: str) -> Callable[[Path], None]:
    def edit(manifest: dict[str, Any]) -> None:
        row = next(a for a in manifest["artifacts"] if a["name"] == name)
        row["status"], row["reason"] = status, None if status == "passed" else "so it says"
        manifest["selected"] = None if manifest["selected"] == name else manifest["selected"]

    return edit_manifest(edit)


def spoil(out: Path) -> None:
    """Two classes of the fp16 file swapped, its hash brought in line."""
    edit_onnx("onnx-fp16", lambda graph: weights(graph, swap(0), -1))(out)
    rehash(out)


def finding(audit: Audit, name: str) -> AuditFinding:
    return next(f for f in audit.findings if f.name == name)


class TestFromFilesAlone:
    """The folder may have been moved to another machine."""

    pytestmark = slow

    def test_a_moved_export_holds(self, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An untouched export verifies without the cache and the checkpoint, and leaves no trace."""
        monkeypatch.setenv("EXPORT_MOBILE_CACHE", str(tmp_path / "cache"))
        before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
        seen: list[Event] = []
        audit = verify_export(out, observer=seen.append)
        assert audit.holds
        assert audit.selected == "onnx-fp32"
        assert {f.name: f.found for f in audit.findings} == {
            "onnx-fp32": "passed",
            "onnx-fp16": "passed",
            "coreml-fp16": "passed",
        }
        assert finding(audit, "coreml-fp16").found_by == "reference interpreter"
        assert 0 < (finding(audit, "onnx-fp32").max_error or 0) < 1e-5
        assert not (tmp_path / "cache").exists()
        assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
        assert (seen[-1].done, seen[-1].total) == (3, 3)

    @pytest.mark.usefixtures("audits_share_workers")
    def test_a_failure_claims_nothing(self, out: Path) -> None:
        """What is known to be wrong and says so is no lie."""
        spoil(out)
        claim("onnx-fp16", "failed")(out)
        audit = verify_export(out)
        assert finding(audit, "onnx-fp16").found == "failed"
        assert audit.holds

    @pytest.mark.usefixtures("audits_share_workers")
    def test_a_failure_edited_to_passed_is_found(self, out: Path) -> None:
        """The manifest's word counts for nothing."""
        spoil(out)
        claim("onnx-fp16", "passed")(out)
        audit = verify_export(out)
        assert not audit.holds
        assert not finding(audit, "onnx-fp16").holds
        assert finding(audit, "onnx-fp32").holds

    @pytest.mark.usefixtures("audits_share_workers")
    def test_an_interpreter_edited_to_the_runtime_is_found(self, out: Path) -> None:
        """What the reference interpreter passed was not passed by Core ML."""
        edit_manifest(lambda listed: listed["artifacts"][-1]["verification"].update(executor="runtime"))(out)
        audit = verify_export(out)
        coreml = finding(audit, "coreml-fp16")
        assert (coreml.claimed, coreml.claimed_by) == (coreml.found, "runtime")
        assert (coreml.holds, coreml.found_by) == (False, "reference interpreter")
        assert "only the reference interpreter can run it" in coreml.reason
        assert not audit.holds

    @pytest.mark.usefixtures("audits_share_workers")
    def test_more_than_was_claimed_holds(self, out: Path) -> None:
        """Exported where its runtime was missing, verified where it is not."""
        claim("onnx-fp16", "not_run")(out)
        audit = verify_export(out)
        assert finding(audit, "onnx-fp16").found == "passed"
        assert audit.holds

    @pytest.mark.usefixtures("audits_share_workers")
    def test_the_manifests_limits_are_applied(self, out: Path) -> None:
        """Tighter ones than the artifact reaches make it fail."""
        edit_manifest(lambda manifest: manifest["limits"].update(fp16_min_sqnr_db=200.0))(out)
        audit = verify_export(out)
        assert "the limit is 200 dB" in finding(audit, "onnx-fp16").reason
        assert not audit.holds

    @pytest.mark.usefixtures("audits_share_workers")
    def test_another_models_interface_is_found(self, out: Path) -> None:
        """Inputs and outputs are the manifest's: code is generated from them."""
        edit_manifest(lambda manifest: manifest["outputs"][0].update(shape=[1, 11]))(out)
        audit = verify_export(out)
        assert finding(audit, "onnx-fp32").found == "failed"
        assert "output shapes" in finding(audit, "onnx-fp32").reason

    @pytest.mark.usefixtures("audits_share_workers")
    def test_the_command_line_says_it_in_its_exit_code(
        self, out: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """0 when everything holds, 9 when not; --json for machines."""
        assert exit_code("verify", out, "--json") == 0
        assert json.loads(capsys.readouterr().out)["holds"] is True
        spoil(out)
        assert exit_code("verify", out) == 9
        assert "does not match its manifest" in capsys.readouterr().err


def test_a_folder_without_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 9 and one message."""
    with pytest.raises(VerificationError, match="does not exist"):
        verify_export(tmp_path)
    assert exit_code("verify", tmp_path) == 9
    assert "manifest.json" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema_version": 2}', "\x00\x01"])
def test_a_manifest_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    """Whatever lies there."""
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(VerificationError, match=r"manifest\.json"):
        verify_export(tmp_path)


@pytest.mark.parametrize("place", ["verification.npz", "onnx-fp32.onnx"])
@pytest.mark.slow
@pytest.mark.xdist_group("faults")
def test_a_link_that_leads_out_of_the_folder_is_refused(place: str, out: Path, tmp_path: Path) -> None:
    """A hostile OUT must not make us read the user's own files."""
    shutil.move(out / place, tmp_path / "outside")
    (out / place).symlink_to(tmp_path / "outside")
    with pytest.raises(VerificationError, match="leads out of"):
        verify_export(out)


@pytest.mark.parametrize("file", ["../outside.onnx", "/etc/passwd", "a/../../b.onnx"])
@pytest.mark.slow
@pytest.mark.xdist_group("faults")
def test_a_path_that_leads_out_of_the_folder_is_refused(file: str, out: Path) -> None:
    """Not even hashed."""
    edit_manifest(lambda manifest: manifest["artifacts"][0].update(file=file))(out)
    with pytest.raises(VerificationError):
        verify_export(out)


@pytest.mark.slow
@pytest.mark.xdist_group("faults")
def test_something_selected_that_did_not_pass_is_refused(out: Path) -> None:
    """The one to ship must be a passed one."""
    edit_manifest(lambda manifest: manifest.update(selected="executorch-vulkan-fp16"))(out)
    with pytest.raises(VerificationError, match="not an artifact that passed"):
        verify_export(out)


def test_a_derived_limit_needs_the_simulation_it_came_from(tmp_path: Path) -> None:
    """A limit derived from a simulation is refused where the manifest does not list the simulation."""
    listed = json.loads(manifest.dump_manifest(sample.report()))
    (row,) = (row for row in listed["artifacts"] if row["name"] == "executorch-xnnpack-int8")
    row |= {"precision": "fp16", "status": "passed"}
    listed |= {"artifacts": [row], "evidence": {**listed["evidence"], "files": []}}
    for limits, expected in (({}, False), ({"simulated_sqnr_db": 60.0}, True)):
        row["verification"]["limits"] = limits
        parsed = manifest.parse_manifest(json.dumps(listed).encode(), tmp_path / "manifest.json")
        problems = " ".join(audit._audit_evidence(tmp_path, parsed))
        assert ("lists no fp16.simulated.npz" in problems) == expected


@pytest.mark.parametrize(
    ("precision", "file"),
    [("int8", "int8.lowering.npz"), ("mixed", "executorch-xnnpack-int8.lowering.npz"), ("fp32", "")],
)
def test_a_quantised_artifact_needs_what_its_program_gave(precision: str, file: str, tmp_path: Path) -> None:
    """Nothing tells a fault of the lowering from quantisation loss without the program's outputs."""
    listed = json.loads(manifest.dump_manifest(sample.report()))
    (row,) = (row for row in listed["artifacts"] if row["name"] == "executorch-xnnpack-int8")
    row |= {"precision": precision, "status": "passed"}
    listed |= {"artifacts": [row], "evidence": {**listed["evidence"], "files": []}}
    parsed = manifest.parse_manifest(json.dumps(listed).encode(), tmp_path / "manifest.json")
    messages = [
        problem for problem in audit._audit_evidence(tmp_path, parsed) if "cannot be verified" in problem
    ]
    assert [file in problem for problem in messages] == ([True] if file else [])
