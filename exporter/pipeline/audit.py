"""`export-mobile verify OUT`: checks hashes and numerics again, from the files alone."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter import temporary_files
from exporter.config import targets
from exporter.emulated.arm_tools import ArmTools
from exporter.files import (
    EVIDENCE,
    MANIFEST,
    PREDICTIONS,
    SIZES,
    digest_file,
    digest_file_or_folder,
    lowering_file,
    simulation_file,
)
from exporter.pipeline import (
    accuracy_stage,
    audit_claims,
    audit_figures,
    cache,
    emulation_stage,
    job_rights,
    labelled_predictions,
    stage_results,
)
from exporter.pipeline.context import Observer, run_with_context_observer
from exporter.pipeline.stage_results import CheckedArtifactResult
from exporter.pipeline.verify_stage import verify_files_in_stage
from exporter.pipeline.workers.pool import WorkerPool
from exporter.records import QUANTIZED, SHIPPABLE, Emulation, Executor, Status

if TYPE_CHECKING:
    from exporter.report.manifest.schema import Artifact as ArtifactPart
    from exporter.report.manifest.schema import Manifest


@dataclass(frozen=True)
class AuditFinding:
    """One artifact: what the manifest claims and what was found now."""

    name: str
    claimed: Status
    found: Status
    reason: str
    intact: bool = True
    """The file is the one that was exported."""
    max_error: float | None = None
    arm64: Emulation | None = None
    """What it computed on emulated Arm; None where that was not asked for, or has no library for Arm."""
    claimed_by: Executor = "runtime"
    """What executed it when it was exported."""
    found_by: Executor = "runtime"
    """What executed it now."""

    @property
    def is_shown_by_less(self) -> bool:
        """Tell whether its runtime passed it, and only a stand-in for it could be asked now."""
        claimed = self.claimed in SHIPPABLE and self.claimed_by == "runtime"
        return claimed and self.found_by != "runtime"

    @property
    def holds(self) -> bool:
        """The claim is true: what passed passed again. A failure claims nothing."""
        if self.claimed in SHIPPABLE and self.arm64 and self.arm64.status == "failed":
            return False
        if self.is_shown_by_less:
            return False
        return self.intact and (self.claimed == "failed" or self.found in {self.claimed, "passed"})


@dataclass(frozen=True)
class Audit:
    findings: tuple[AuditFinding, ...]
    selected: str | None
    problems: tuple[str, ...]
    """What is wrong with OUT as a whole."""
    facts: tuple[str, ...] = ()
    """What else was found out, a sentence each."""
    unproven: tuple[str, ...] = ()
    """Fields of the manifest that nothing in OUT can prove."""

    @property
    def holds(self) -> bool:
        return not self.problems and all(finding.holds for finding in self.findings)


def verify_export(
    out: Path, workers: int = 1, observer: Observer | None = None, arm64: ArmTools | None = None
) -> Audit:
    """Hash every file the manifest lists, then run every artifact again on the inputs kept in OUT.

    Every figure in the manifest is found again, or named as one that OUT cannot prove.

    Nothing comes from a cache and nothing outside OUT is read.

    Args:
        out: A folder that `export` made.
        workers: Artifacts checked at the same time, each in a process of its own.
        observer: Told at every step.
        arm64: QEMU and its programs, to run every artifact on emulated Arm too; None leaves that out.

    Raises:
        VerificationError: OUT has no manifest that can be read, or no evidence.
    """
    from exporter.report import manifest

    listed = manifest.load_manifest(out / MANIFEST)
    problems = _audit_evidence(out, listed)
    problems += (
        [*audit_claims.audit_claims_of_evidence(out, listed), *_audit_accuracy(out, listed)]
        if not problems
        else []
    )
    wrong = _audit_hashes(out, listed)
    checked = {} if problems else _audit_artifacts(out, listed, wrong, workers, observer or (lambda _: None))
    on_arm = _audit_on_arm(out, listed, wrong, workers, arm64) if arm64 and not problems else {}
    findings = (_audit_finding(a, wrong, checked) for a in listed.artifacts if a.file)
    return Audit(
        findings=tuple(replace(finding, arm64=on_arm.get(finding.name)) for finding in findings),
        selected=listed.selected,
        problems=(
            *problems,
            *audit_claims.audit_claims_of_files(out, listed),
            *audit_figures.audit_figures_of_artifacts(listed, checked),
        ),
        facts=(
            audit_claims.extent_of_audit_claims(listed, checked),
            *audit_claims.audit_claim_of_limits(listed),
        ),
        unproven=audit_claims.unproven_audit_claims(listed, emulated=bool(on_arm)),
    )


def _audit_evidence(out: Path, listed: Manifest) -> list[str]:
    from exporter.files import file_inside

    names = {item.file for item in listed.evidence.files}
    problems = [] if EVIDENCE in names else [f"The manifest lists no {EVIDENCE}: nothing to verify against."]
    for item in listed.evidence.files:
        path = file_inside(out, item.file)
        if not path.is_file():
            problems.append(f"{item.file} is missing.")
        elif digest_file(path) != item.sha256:
            problems.append(f"{item.file} is not the file that was exported (its sha256 differs).")
    for artifact in listed.artifacts:
        for needed in _files_to_audit(artifact) - names if artifact.status in SHIPPABLE else ():
            problems.append(f"The manifest lists no {needed}: {artifact.name} cannot be verified.")
    return problems


def _files_to_audit(artifact: ArtifactPart) -> set[str]:
    """Return the names of the files, beside the evidence, that a passed artifact was judged by."""
    limits = artifact.verification.limits if artifact.verification else {}
    needed = set()
    if artifact.precision in QUANTIZED:
        needed.add(lowering_file(artifact.precision, artifact.name))
    elif "simulated_sqnr_db" in limits:
        needed.add(simulation_file(artifact.precision))
    if artifact.verification and artifact.verification.sizes:
        needed.add(SIZES)
    return needed


def _audit_accuracy(out: Path, listed: Manifest) -> list[str]:
    """Return where the manifest's accuracy differs from the counts of the predictions in OUT.

    The labelled samples themselves are not in OUT, so the predictions are not made again.
    """
    if listed.accuracy is None and listed.task_accuracy is None:
        return []
    if not (out / PREDICTIONS).is_file():
        return [f"{PREDICTIONS} is missing: the accuracy cannot be counted again."]
    evaluation = listed.task_accuracy or listed.accuracy
    assert evaluation is not None
    task = listed.task_accuracy.task if listed.task_accuracy else ""
    rows = {a.name: a.task_accuracy if task else a.accuracy for a in listed.artifacts}
    claimed = {name: row.record() for name, row in rows.items() if row}
    claimed[labelled_predictions.FLOAT] = evaluation.float32.record()
    classes = listed.accuracy.classes if listed.accuracy else 0
    computed = accuracy_stage.accuracy_of_file_in_stage(out / PREDICTIONS, task, classes)
    words = f"{task} measures of {{}} are" if task else "accuracy of {} is"
    return [
        f"The {words.format(name)} not what {PREDICTIONS} gives."
        for name, figures in claimed.items()
        if not accuracy_stage.are_accuracy_stage_results_equal(computed.get(name), figures)
    ]


def _audit_hashes(out: Path, listed: Manifest) -> Mapping[str, str]:
    """Return artifact name -> what is wrong with its file."""
    wrong: dict[str, str] = {}
    for artifact in listed.artifacts:
        path = artifact.path(out)
        if path is None:
            continue
        if not path.exists():
            wrong[artifact.name] = f"{artifact.file} is missing."
        elif digest_file_or_folder(path) != artifact.sha256:
            wrong[artifact.name] = f"{artifact.file} is not the file that was exported (its sha256 differs)."
    return wrong


def _audit_artifacts(
    out: Path, listed: Manifest, wrong: Mapping[str, str], workers: int, observer: Observer
) -> Mapping[str, CheckedArtifactResult]:
    files = [(a.variant(), a.file) for a in listed.artifacts if a.file and a.name not in wrong]
    weights = listed.evidence.matrix_weights
    expected = stage_results.ExpectedResult(
        listed.inputs,
        listed.outputs,
        weights,
        listed.limits,
        listed.labels,
        listed.task,
        listed.image_input,
        listed.source.flops or 0,
    )
    allowed = job_rights.job_rights_to_verify(out)
    with (
        temporary_files.temporary_scratch("verify") as folder,
        WorkerPool(workers, folder / "log", allowed) as pool,
    ):
        run = functools.partial(run_with_context_observer, pool, observer)
        return verify_files_in_stage(out, files, expected, run, cache.Cache(None))


def _audit_on_arm(
    out: Path, listed: Manifest, wrong: Mapping[str, str], workers: int, ready: ArmTools
) -> Mapping[str, Emulation]:
    """Run the artifacts on the emulated target. Artifact name -> result."""
    files = [(a.variant(), a.file) for a in listed.artifacts if a.file and a.name not in wrong]
    target = targets.get_target(listed.target.name)
    allowed = job_rights.job_rights_to_verify(out, ready.folder)
    with (
        temporary_files.temporary_scratch("verify") as folder,
        WorkerPool(workers, folder / "log", allowed) as pool,
    ):
        run = functools.partial(run_with_context_observer, pool, lambda _: None)
        return emulation_stage.run_emulation_stage(
            out, files, listed.limits, target, ready, run, cache.Cache(None)
        )


def _audit_finding(
    artifact: ArtifactPart, wrong: Mapping[str, str], checked: Mapping[str, CheckedArtifactResult]
) -> AuditFinding:
    name, claimed = artifact.name, artifact.status
    if name in wrong:
        return AuditFinding(name, claimed, "failed", wrong[name], intact=False)
    if name not in checked:
        return AuditFinding(name, claimed, "not_run", "The evidence cannot be used.")
    verdict = checked[name].verdict
    error = verdict.comparison.max_error if verdict.comparison else None
    finding = AuditFinding(
        name,
        claimed,
        verdict.status,
        verdict.reason or "",
        max_error=error,
        claimed_by=artifact.executor,
        found_by=verdict.executor,
    )
    if finding.is_shown_by_less and not finding.reason:
        return replace(finding, reason=f"Its runtime passed it; here only the {verdict.executor} can run it.")
    return finding
