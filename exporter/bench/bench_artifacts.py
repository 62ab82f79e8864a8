"""Select what `bench` measures of OUT: artifacts, files and inputs that are unchanged since the export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from exporter import files
from exporter.config import targets
from exporter.errors import UsageError, VerificationError
from exporter.files import EVIDENCE
from exporter.records import SHIPPABLE, Artifact, Report, Variant

if TYPE_CHECKING:
    from android_harness.records import Backend, BenchTask
    from exporter.verify.reference_io import ReferenceIO
    from exporter.verify.standard import Standard

BACKENDS: Mapping[tuple[str, str], Backend] = {
    ("executorch", "xnnpack"): "executorch",
    ("executorch", "vulkan"): "vulkan",
    ("onnx", "onnxruntime"): "onnxruntime",
    ("onnx", "onnxruntime-mobile"): "onnxruntime",
    ("torchscript", "lite"): "torchscript",
}
"""(format, backend) -> the runner's backend that executes it."""


@dataclass(frozen=True)
class ArtifactSelection:
    """The artifacts of OUT to measure, and why not the others."""

    artifacts: tuple[Artifact, ...]
    skipped: Mapping[str, str]


def select_bench_artifacts(report: Report, name: str | None = None, every: bool = False) -> ArtifactSelection:
    """Select the named artifact, or all that can run, or the chosen one, or the first that passed.

    Raises:
        UsageError: It does not exist or cannot be measured; the message says why, and which can.
    """
    reasons = {a.variant.name: _why_not_bench_artifact(a) for a in report.artifacts}
    able = tuple(a for a in report.artifacts if not reasons[a.variant.name])
    offered = ", ".join(a.variant.name for a in able) or "none"
    if name is not None and reasons.get(name, "it is not in the manifest"):
        why = reasons.get(name, "it is not in the manifest")
        raise UsageError(f"{name} cannot be measured: {why}.", f"These can: {offered}.")
    if not able:
        why = "; ".join(f"{n}: {reason}" for n, reason in reasons.items()) or "it has no artifacts"
        raise UsageError(f"Nothing of this export can be measured on a device. {why}.")
    if every:
        return ArtifactSelection(able, {n: reason for n, reason in reasons.items() if reason})
    wanted = name or report.selected
    return ArtifactSelection(tuple(a for a in able if a.variant.name == wanted) or able[:1], {})


def _bench_artifact_key(artifact: Artifact) -> tuple[str, str]:
    return artifact.variant.format, artifact.variant.backend


def _why_not_bench_artifact(artifact: Artifact) -> str:
    """Return why the runner cannot measure it; an empty string when it can."""
    if _bench_artifact_key(artifact) not in BACKENDS:
        return f"the runner has no backend for {artifact.variant.format} on {artifact.variant.backend}"
    if _bench_artifact_needs_vulkan(artifact) and (why := _vulkan_missing_for_bench_artifact()):
        return why
    # A Vulkan artifact cannot run where it was exported: its outputs on the device are its first proof.
    runs = artifact.status in SHIPPABLE or (
        _bench_artifact_needs_vulkan(artifact) and artifact.status == "not_run"
    )
    return "" if runs else f"it is {artifact.status.replace('_', ' ')}, not passed"


def _bench_artifact_needs_vulkan(artifact: Artifact) -> bool:
    return artifact.variant.backend == "vulkan"


def _vulkan_missing_for_bench_artifact() -> str:
    """Return why no device can run Vulkan; an empty string where a runner has it."""
    from android_harness import runner_build
    from android_harness.errors import SetupError

    reasons = []
    for target in ("android-arm64", "host"):
        try:
            runner_build.find_runner_build(target, "vulkan")
        except SetupError as error:
            reasons.append(f"For {target}: {error.hint}")
        else:
            return ""
    return f"no runner has the Vulkan backend. {'. '.join(reasons)}"


def tasks_of_bench_artifacts(
    out: Path, artifacts: Sequence[Artifact], evidence: ReferenceIO
) -> tuple[BenchTask, ...]:
    """Return the harness' tasks: files with the manifest's hashes, and the verification inputs.

    Raises:
        VerificationError: A file is missing or is not the one that was exported.
    """
    from android_harness.records import BenchTask
    from exporter.files import file_inside

    tasks = []
    for artifact in artifacts:
        path = file_inside(out, str(artifact.file))
        _check_bench_artifact_hash(path, str(artifact.sha256))
        backend = BACKENDS[_bench_artifact_key(artifact)]
        tasks.append(
            BenchTask(
                artifact.variant.name,
                path,
                str(artifact.sha256),
                backend,
                samples=tuple(evidence.samples()),
                keeps_state=bool(evidence.state),
                edges=tuple(evidence.edges()),
            )
        )
    return tuple(tasks)


def load_bench_artifact_evidence(out: Path, report: Report) -> ReferenceIO:
    """Load the inputs and expected outputs in OUT, after checking their hashes.

    Raises:
        VerificationError: They are missing, or not what the manifest lists.
    """
    from exporter.verify import reference_io

    path = evidence_file_of_bench_artifact(out, report, EVIDENCE)
    if path is None:
        raise VerificationError(f"The manifest lists no {EVIDENCE}: there are no inputs to measure with.")
    return reference_io.load_reference_io(path)


def load_bench_artifact_standards(
    out: Path, report: Report, artifacts: Sequence[Artifact], evidence: ReferenceIO
) -> Mapping[str, Standard]:
    """Load everything that verification judges artifacts of OUT by, after checking the files' hashes.

    Returns:
        Artifact name -> what its outputs on a device are judged by.

    Raises:
        VerificationError: A file is missing, or not what the manifest lists.
    """
    return {
        a.variant.name: _load_bench_artifact_standard(out, report, a.variant, evidence) for a in artifacts
    }


def _load_bench_artifact_standard(
    out: Path, report: Report, variant: Variant, evidence: ReferenceIO
) -> Standard:
    from exporter.verify import reference_io, simulation_io
    from exporter.verify.standard import Standard

    lowering = evidence_file_of_bench_artifact(
        out, report, files.lowering_file(variant.precision, variant.name)
    )
    simulation = evidence_file_of_bench_artifact(out, report, files.simulation_file(variant.precision))
    return Standard(
        evidence,
        report.outputs,
        report.limits,
        reference_io.load_reference_io_lowering(lowering) if lowering else None,
        simulation_io.load_simulation(simulation) if simulation else None,
        report.labels,
        report.task,
    )


def evidence_file_of_bench_artifact(out: Path, report: Report, name: str) -> Path | None:
    """Return a file of evidence, with the hash that the manifest lists; None where it lists none.

    Raises:
        VerificationError: It is missing, or another file.
    """
    from exporter.files import file_inside

    if name not in report.evidence_files:
        return None
    path = file_inside(out, name)
    _check_bench_artifact_hash(path, report.evidence_files[name])
    return path


def _check_bench_artifact_hash(path: Path, sha256: str) -> None:
    if path.is_dir():
        raise UsageError(
            f"{path} is a folder of a graph and its weights, which the runner on the phone does not load.",
            "Measure another artifact: --artifact NAME.",
        )
    if not path.is_file():
        raise VerificationError(f"{path} is missing.", "Export again.", code="EM-CHANGED")
    if files.digest_file(path) != sha256:
        raise VerificationError(
            f"{path} is not the file that was exported (its sha256 differs).",
            "Export again.",
            code="EM-CHANGED",
        )


def check_bench_artifact_target(report: Report) -> None:
    """Refuse a target that no Android device can stand for.

    Raises:
        UsageError: The export is for an iPhone.
    """
    if "coreml-fp16" in targets.get_target(report.target_name).runnable:
        raise UsageError(
            f"{report.target_name} cannot be measured: the runner is for Android devices and Linux.",
            "Export for a Snapdragon or generic-arm64.",
        )


def bench_artifacts_without_unbuilt(chosen: ArtifactSelection, on_host: bool) -> ArtifactSelection:
    """Leave out artifacts that no runner was built for: one missing runtime must not stop the others.

    Args:
        chosen: The artifacts to measure.
        on_host: Only this machine measures; else any build may be needed.
    """
    missing = {
        a.variant.name: why for a in chosen.artifacts if (why := _bench_artifact_not_built(a, on_host))
    }
    able = tuple(a for a in chosen.artifacts if a.variant.name not in missing)
    return ArtifactSelection(able, {**chosen.skipped, **missing}) if able else chosen


def _bench_artifact_not_built(artifact: Artifact, on_host: bool) -> str:
    """Return why no runner executes it on these devices; an empty string where one may."""
    from android_harness import runner_build
    from android_harness.errors import SetupError
    from android_harness.records import Build

    why, backend = "", BACKENDS[_bench_artifact_key(artifact)]
    for platform in ("host",) if on_host else get_args(Build):
        try:
            runner_build.find_runner_build(platform, backend)
        except SetupError as error:
            why = why or str(error)
        else:
            return ""
    return why
