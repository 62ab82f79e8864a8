"""Tests of what may be released, and of the words of refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import ExportError, ReleaseError, UsageError, VerificationError
from exporter.records import BudgetVerdict
from exporter.release.plan import plan_release
from exporter.release.release_request import ReleaseRequest
from exporter.report import manifest
from tests.release import outs


def names(request: ReleaseRequest) -> list[str]:
    return [a.name for a in plan_release(request).manifest.artifacts]


def test_the_measured_choice_is_released(request_: ReleaseRequest) -> None:
    """Only the choice is released, and no caveat is needed."""
    release = plan_release(request_)
    assert names(request_) == ["onnx-fp32"]
    assert (release.not_measured, release.not_verified) == ((), ())
    assert release.manifest.verdict.budget == "pass"
    assert release.name == "mobilenet_v2"
    assert any("coreml-fp16 is left out" in words for words in release.remarks)


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("not_measured", "No phone has measured"),
        ("inconclusive", "inconclusively"),
        ("fail", "over its budget"),
    ],
)
def test_what_no_phone_has_shown_to_be_fast_is_refused(
    verdict: BudgetVerdict, words: str, tmp_path: Path
) -> None:
    """Over budget is refused; unmeasured needs the user's consent and a note in the manifest."""
    out = outs.write(tmp_path / "out", outs.report(verdict))
    request = ReleaseRequest(out, "1.0", tmp_path / "x")
    with pytest.raises(ReleaseError, match=words):
        plan_release(request)
    allowed = replace(request, allow_unmeasured=True)
    if verdict == "fail":
        with pytest.raises(ReleaseError, match=words):
            plan_release(allowed)
        return
    release = plan_release(allowed).manifest.release
    assert release is not None
    assert words in release.not_measured[0]


def test_what_too_few_scenes_prove_needs_consent(tmp_path: Path) -> None:
    """An inconclusive artifact is refused; allowed, the release says what it is."""
    report = outs.report("pass")
    rows = tuple(
        replace(a, status="inconclusive", reason="5 scene(s) cannot decide.")
        if a.variant.name == "onnx-fp32"
        else a
        for a in report.artifacts
    )
    doubtful = replace(report, artifacts=rows, numerics="inconclusive")
    request = ReleaseRequest(outs.write(tmp_path / "out", doubtful), "1.0", tmp_path / "x")
    with pytest.raises(ReleaseError, match=r"onnx-fp32 is not proven. 5 scene\(s\) cannot decide"):
        plan_release(request)
    release = plan_release(replace(request, allow_inconclusive=True)).manifest
    assert release.release is not None
    assert "not proven" in release.release.not_verified[0]
    assert release.verdict.numerics == "inconclusive"


def test_another_artifact_is_held_to_its_own_measurement(request_: ReleaseRequest) -> None:
    """The choice's measurement does not count for its sibling."""
    other = replace(request_, artifacts=("executorch-xnnpack-int8",))
    with pytest.raises(ReleaseError, match="No phone has measured executorch-xnnpack-int8"):
        plan_release(other)
    listed = plan_release(replace(other, allow_unmeasured=True)).manifest
    assert (listed.selected, listed.verdict.budget) == ("executorch-xnnpack-int8", "not_measured")


def test_what_failed_is_never_released(request_: ReleaseRequest) -> None:
    """A failed artifact is refused even if named as unverified."""
    for request in (
        replace(request_, artifacts=("onnx-int8",)),
        replace(request_, allow_unverified=("onnx-int8",), allow_unmeasured=True),
    ):
        with pytest.raises(ReleaseError, match=r"onnx-int8 did not pass: It reaches 11\.9 dB"):
            plan_release(request)


def test_what_was_never_run_goes_in_only_by_name(request_: ReleaseRequest) -> None:
    """Core ML off a Mac needs the user's consent, which the manifest records."""
    with pytest.raises(ReleaseError, match="never executed"):
        plan_release(replace(request_, artifacts=("coreml-fp16",)))
    release = plan_release(replace(request_, allow_unverified=("coreml-fp16",)))
    assert [a.name for a in release.manifest.artifacts] == ["onnx-fp32", "coreml-fp16"]
    assert "coreml-fp16 was never executed" in release.not_verified[0]
    assert release.manifest.selected == "onnx-fp32"


def interpreted(out: Path, status: str = "passed") -> None:
    """Let OUT's Core ML artifact have passed by the reference interpreter."""

    def change(listed: Any) -> None:
        rows = {row["name"]: row for row in listed["artifacts"]}
        figures = dict(rows["onnx-fp32"]["verification"], executor="reference interpreter")
        rows["coreml-fp16"].update(status=status, reason=None, verification=figures)

    outs.edit(out, change)


def test_what_only_the_interpreter_executed_goes_in_only_by_name(request_: ReleaseRequest) -> None:
    """Such an artifact needs the user's consent like what never ran, and the bundle says what executed it."""
    interpreted(request_.out)
    assert names(request_) == ["onnx-fp32"]
    remarks = plan_release(request_).remarks
    assert any("coreml-fp16 is left out: it is passed (reference interpreter)" in words for words in remarks)
    with pytest.raises(ReleaseError, match="executed by the reference interpreter only"):
        plan_release(replace(request_, artifacts=("coreml-fp16",)))
    release = plan_release(replace(request_, allow_unverified=("coreml-fp16",)))
    assert release.not_verified == (
        "coreml-fp16 was executed by the reference interpreter only, never by its own runtime.",
    )
    assert release.manifest.artifacts[1].executor == "reference interpreter"


def test_an_unverified_artifact_alone_claims_nothing(request_: ReleaseRequest) -> None:
    """The manifest has no selection and no verdict."""
    request = replace(request_, artifacts=("coreml-fp16",), allow_unverified=("coreml-fp16",))
    listed = plan_release(request).manifest
    assert (listed.selected, listed.verdict.numerics, listed.verdict.budget) == (
        None,
        "not_run",
        "not_measured",
    )


def test_nothing_to_ship_is_refused(tmp_path: Path) -> None:
    """The refusal has the export's own reason."""
    failed = tuple(
        replace(a, status="failed", reason="bad") if a.status == "passed" else a
        for a in outs.report().artifacts
    )
    report = replace(
        outs.report(),
        artifacts=failed,
        selected=None,
        numerics="failed",
        selection_reason="No artifact passed.",
    )
    with pytest.raises(ReleaseError, match=r"can be shipped\. No artifact passed\."):
        plan_release(ReleaseRequest(outs.write(tmp_path / "out", report), "1.0", tmp_path / "x"))


WORDS: list[tuple[dict[str, Any], str]] = [
    ({"version": "v1"}, "--version"),
    ({"version": "1.0/../2"}, "--version"),
    ({"version": "1.0-SNAPSHOT"}, "a release does not"),
    ({"name": "Net"}, "--name"),
    ({"name": "../net"}, "--name"),
    ({"group": "example"}, "--group"),
    ({"group": "com.example/x"}, "--group"),
    ({"artifacts": ("onnx",)}, "no artifact 'onnx'"),
    ({"licence": Path("nowhere")}, "no such file"),
    ({"licence": Path("/")}, "not a file"),
]


@pytest.mark.parametrize(("change", "words"), WORDS, ids=[str(next(iter(w[0].values()))) for w in WORDS])
def test_words_that_cannot_be_used(change: dict[str, Any], words: str, request_: ReleaseRequest) -> None:
    """Words that become paths, coordinates or code are checked."""
    with pytest.raises(UsageError, match=words):
        plan_release(replace(request_, **change))


@pytest.mark.parametrize("file", ["onnx-fp32.onnx", "verification.npz"])
def test_out_is_hashed_again(file: str, request_: ReleaseRequest) -> None:
    """Files that differ from the manifest are refused."""
    path = request_.out / file
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(VerificationError, match=f"{file} is not the file that was exported"):
        plan_release(request_)


@pytest.mark.parametrize("file", ["onnx-fp32.onnx", "verification.npz", "report.html"])
def test_what_is_missing_is_named(file: str, request_: ReleaseRequest) -> None:
    """A missing artifact, evidence or page is named."""
    (request_.out / file).unlink()
    with pytest.raises(VerificationError, match=f"{file} is missing"):
        plan_release(request_)


def test_a_link_in_a_package_is_refused(request_: ReleaseRequest, tmp_path: Path) -> None:
    """A link could carry another file of the user's into the release."""
    package = request_.out / "coreml-fp16.mlpackage"
    (package / "Data" / "weight.bin").rename(tmp_path / "outside")
    (package / "Data" / "weight.bin").symlink_to(tmp_path / "outside")
    with pytest.raises(VerificationError, match="holds a link"):
        plan_release(replace(request_, allow_unverified=("coreml-fp16",)))


def test_a_file_name_that_is_code_is_refused(request_: ReleaseRequest) -> None:
    """File names go into Kotlin, Swift and XML, so code in them is refused."""
    evil = 'a").also { System.exit(1) }; ("b.onnx'
    (request_.out / "onnx-fp32.onnx").rename(request_.out / evil)
    outs.edit(request_.out, lambda m: m["artifacts"][1].update(file=evil))
    with pytest.raises(ExportError, match="not a name that an export gives"):
        plan_release(request_)


def test_the_bundles_manifest_keeps_every_field(request_: ReleaseRequest) -> None:
    """Fields unknown to this version stay in the manifest."""
    outs.edit(request_.out, lambda m: m.update(later={"a": 1}))
    release = plan_release(request_)
    assert json.loads(release.text)["later"] == {"a": 1}
    assert release.manifest == manifest.parse_manifest(release.text.encode(), Path("manifest.json"))


def test_what_a_foreign_compiler_wrote_goes_in_only_by_name(tmp_path: Path) -> None:
    """The choice alone does not release it: its licence is the user's to answer for."""
    report = outs.report("pass")
    rows = tuple(
        replace(a, variant=replace(a.variant, format="onnx-qnn")) if a.variant.name == "onnx-fp32" else a
        for a in report.artifacts
    )
    request = ReleaseRequest(
        outs.write(tmp_path / "out", replace(report, artifacts=rows)), "1.0", tmp_path / "x"
    )
    with pytest.raises(ReleaseError, match="licence") as refusal:
        plan_release(request)
    assert refusal.value.code == "EM-LICENCE-OF-TOOL"
    assert names(replace(request, artifacts=("onnx-fp32",))) == ["onnx-fp32"]
