"""`export-mobile bench OUT`: artifacts measured on devices, checked there, and written into OUT."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from exporter import assemble, cache, devices, ondevice, publish, select, targets
from exporter.errors import OutputError, UsageError, VerificationError
from exporter.records import Artifact, BudgetVerdict, DeviceLatency, Limits, Report
from exporter.stages import EVIDENCE, Event, Observer

if TYPE_CHECKING:
    from android_harness.errors import HarnessError
    from android_harness.farm import Outcome
    from android_harness.records import Backend, Device, Session, Work
    from exporter.evidence import Evidence
    from exporter.report.schema import Manifest

BACKENDS: Mapping[tuple[str, str], Backend] = {
    ("executorch", "xnnpack"): "executorch",
    ("onnx", "onnxruntime"): "onnxruntime",
    ("onnx", "onnxruntime-mobile"): "onnxruntime",
    ("torchscript", "lite"): "torchscript",
}
"""(format, backend) -> the runner's backend that executes it."""


@dataclass(frozen=True)
class Selection:
    """What of OUT is to be measured, and why not the rest."""

    artifacts: tuple[Artifact, ...]
    skipped: Mapping[str, str]


def selection(report: Report, name: str | None = None, every: bool = False) -> Selection:
    """The artifact named; else all that can be run; else the chosen one, or the first that passed.

    Raises:
        UsageError: It does not exist, or cannot be measured; says why, and which can.
    """
    reasons = {a.variant.name: _why_not(a) for a in report.artifacts}
    able = tuple(a for a in report.artifacts if not reasons[a.variant.name])
    offered = ", ".join(a.variant.name for a in able) or "none"
    if name is not None and reasons.get(name, "it is not in the manifest"):
        why = reasons.get(name, "it is not in the manifest")
        raise UsageError(f"{name} cannot be measured: {why}.", f"These can: {offered}.")
    if not able:
        why = "; ".join(f"{n}: {reason}" for n, reason in reasons.items()) or "it has no artifacts"
        raise UsageError(f"Nothing of this export can be measured on a device. {why}.")
    if every:
        return Selection(able, {n: reason for n, reason in reasons.items() if reason})
    wanted = name or report.selected
    return Selection(tuple(a for a in able if a.variant.name == wanted) or able[:1], {})


def _key(artifact: Artifact) -> tuple[str, str]:
    return artifact.variant.format, artifact.variant.backend


def _why_not(artifact: Artifact) -> str:
    """Why the runner cannot measure it; an empty string when it can."""
    if _key(artifact) not in BACKENDS:
        return f"the runner has no backend for {artifact.variant.format} on {artifact.variant.backend}"
    return "" if artifact.status == "passed" else f"it is {artifact.status.replace('_', ' ')}, not passed"


def works(out: Path, artifacts: Sequence[Artifact], evidence: Evidence) -> tuple[Work, ...]:
    """What the harness is given: files whose hashes are the manifest's, with the verification inputs.

    Raises:
        VerificationError: A file is missing or is not the one that was exported.
    """
    from android_harness.records import Work
    from exporter.report.schema import inside

    found = []
    for artifact in artifacts:
        path = inside(out, str(artifact.file))
        _check_hash(path, str(artifact.sha256))
        backend = BACKENDS[_key(artifact)]
        samples = tuple(evidence.samples())
        found.append(Work(artifact.variant.name, path, str(artifact.sha256), backend, samples))
    return tuple(found)


def load_evidence(out: Path, report: Report) -> Evidence:
    """The inputs and expected outputs in OUT, if they are those of the export.

    Raises:
        VerificationError: They are missing, or not what the manifest lists.
    """
    from exporter import evidence
    from exporter.report.schema import inside

    if EVIDENCE not in report.evidence_files:
        raise VerificationError(f"The manifest lists no {EVIDENCE}: there are no inputs to measure with.")
    path = inside(out, EVIDENCE)
    _check_hash(path, report.evidence_files[EVIDENCE])
    return evidence.load(path)


def _check_hash(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise VerificationError(f"{path} is missing.", "Export again.")
    if cache.digest_file(path) != sha256:
        raise VerificationError(
            f"{path} is not the file that was exported (its sha256 differs).", "Export again."
        )


def check_target(report: Report) -> None:
    """Refuse a target that no Android device can stand for.

    Raises:
        UsageError: The export is for an iPhone.
    """
    if "coreml-fp16" in targets.get(report.target_name).runnable:
        raise UsageError(
            f"{report.target_name} cannot be measured: the runner is for Android devices and Linux.",
            "Export for a Snapdragon or generic-arm64.",
        )


def read(out: Path) -> tuple[Report, Manifest]:
    """The report in OUT, which must be one that can be written to.

    Raises:
        VerificationError: There is no valid manifest.
        OutputError: OUT cannot be written.
    """
    from exporter.report import manifest, restore

    listed = manifest.load(out / publish.MANIFEST)
    if not os.access(out, os.W_OK):
        raise OutputError(f"{out} cannot be written.", "Check the folder's permissions.")
    return restore.report(listed), listed


def updated(
    report: Report, found: Mapping[str, Sequence[DeviceLatency]], files: Mapping[str, str], budget_ms: float
) -> Report:
    """The report with what devices said, the choice made again once every candidate was measured.

    Args:
        report: As it was.
        found: Artifact name -> what each device said now; replaces what the same device said before.
        files: Files of raw samples -> SHA-256.
        budget_ms: What was judged against; becomes the report's.
    """
    rows = tuple(_merged(artifact, found.get(artifact.variant.name, ())) for artifact in report.artifacts)
    before = next((a for a in rows if a.variant.name == report.selected), None)
    choice = select.choose_measured(
        rows,
        targets.get(report.target_name).runnable,
        synthetic=report.calibration_kind == "synthetic",
        allow_synthetic=before is not None and before.variant.precision == "int8",
        budget_ms=budget_ms,
    ) or select.Choice(report.selected, select.remark(report.selection_reason, before, budget_ms))
    chosen = next((a for a in rows if a.variant.name == choice.name), None)
    return replace(
        report,
        artifacts=rows,
        selected=choice.name,
        selection_reason=choice.reason,
        budget_ms=budget_ms,
        budget=devices.verdict(chosen.device_latencies, budget_ms) if chosen else "not_measured",
        evidence_files={**report.evidence_files, **files},
    )


def _merged(artifact: Artifact, found: Sequence[DeviceLatency]) -> Artifact:
    again = {item.serial for item in found}
    kept = tuple(item for item in artifact.device_latencies if item.serial not in again)
    return replace(artifact, device_latencies=(*kept, *found))


def samples_file(artifact: str, serial: str) -> str:
    """Name in OUT of the raw samples: plain, and another for every serial."""
    slug = re.sub(r"[^a-z0-9._-]+", "_", serial)[:60]
    if slug != serial:
        slug = f"{slug}-{hashlib.sha256(serial.encode()).hexdigest()[:8]}"
    return f"{publish.DEVICE}/{artifact}-{slug}.jsonl"


def write(out: Path, report: Report) -> None:
    """The page and, last, the manifest; each appears whole.

    Raises:
        OutputError: OUT cannot be written.
    """
    try:
        assemble.write(out, report)
    except OSError as error:
        raise _unwritable(out, error) from error


def _unwritable(out: Path, error: OSError) -> OutputError:
    return OutputError(f"{out} cannot be written: {error.strerror}.", "Check space and permissions.")


@dataclass(frozen=True, eq=False)
class Benched:
    """What one run of `bench` found out."""

    report: Report
    latencies: tuple[tuple[str, DeviceLatency], ...]
    """(artifact, what a device said about it), of this run."""
    skipped: Mapping[str, str]
    failures: tuple[HarnessError, ...]
    problems: Mapping[str, str]
    """The failures by device and artifact, in words."""

    @property
    def verdict(self) -> BudgetVerdict:
        """Of the chosen artifact when it was measured now, else of everything that was."""
        chosen = [item for name, item in self.latencies if name == self.report.selected]
        counted = chosen or [item for _, item in self.latencies]
        return devices.verdict(counted, self.report.budget_ms)


def bench(
    out: Path,
    names: Sequence[str] = (),
    *,
    artifact: str | None = None,
    every: bool = False,
    budget_ms: float | None = None,
    settings: Mapping[str, Any] | None = None,
    observer: Observer | None = None,
) -> Benched:
    """Measure artifacts of OUT on devices, hold their outputs to the manifest's limits, write it into OUT.

    Args:
        out: A folder that `export` made.
        names: Serials, "host" or "all"; the only device connected when empty.
        artifact: Only this one; the chosen one when None.
        every: All that can be measured.
        budget_ms: The export's when None.
        settings: Other fields of `android_harness.records.Plan`.
        observer: Told at every step.

    Raises:
        ExportError: OUT cannot be used or written.
        HarnessError: No such device, or nothing could be measured on any.
    """
    from android_harness import farm
    from android_harness.records import Plan

    report, listed = read(out)
    check_target(report)
    chosen = selection(report, artifact, every)
    expected = load_evidence(out, report)
    plan = Plan(budget_ms=budget_ms or report.budget_ms, **(settings or {}))
    connected = connect(names)
    if every:
        chosen = _without_unbuilt(chosen, all(device.serial == "host" for device in connected))
    outcomes = farm.bench_all(
        connected,
        works(out, chosen.artifacts, expected),
        plan,
        soc=devices.required_soc(report.target_soc),
        observer=_telling(observer),
    )
    sessions, failures = _split(outcomes)
    if not sessions:
        raise next(iter(failures.values()))
    files: dict[str, str] = {}
    latencies = []
    for session in sessions:
        row = next(a for a in chosen.artifacts if a.variant.name == session.work.name)
        found = _latency(out, session, row, expected, listed.limits.record())
        latencies.append((session.work.name, found))
        files[str(found.samples_file)] = cache.digest_file(out / str(found.samples_file))
    by_name = {a.variant.name: [f for n, f in latencies if n == a.variant.name] for a in chosen.artifacts}
    updated_report = updated(report, by_name, files, plan.budget_ms)
    write(out, updated_report)
    problems = {where: str(error) for where, error in failures.items()}
    return Benched(updated_report, tuple(latencies), chosen.skipped, tuple(failures.values()), problems)


def _telling(observer: Observer | None) -> Callable[[str, str], None]:
    lock = threading.Lock()

    def told(serial: str, what: str) -> None:
        with lock:
            if observer:
                observer(Event("device", f"{serial}: {what}", 0, 0))

    return told


def _split(outcomes: Mapping[str, Outcome]) -> tuple[list[Session], dict[str, HarnessError]]:
    """The sessions, and by device (and artifact) what failed."""
    from android_harness.bench import Failed
    from android_harness.errors import DeviceError, HarnessError

    sessions: list[Session] = []
    failures: dict[str, HarnessError] = {}
    for serial, outcome in outcomes.items():
        if isinstance(outcome.error, HarnessError):
            failures[serial] = outcome.error
        elif outcome.error:
            failures[serial] = DeviceError(f"Unexpected {type(outcome.error).__name__}: {outcome.error}.")
        for result in outcome.results:
            if isinstance(result, Failed):
                failures[f"{result.work.name} on {serial}"] = result.reason
            else:
                sessions.append(result)
    return sessions, failures


def _latency(
    out: Path, session: Session, artifact: Artifact, expected: Evidence, limits: Limits
) -> DeviceLatency:
    """Judge one session, and keep its raw samples in OUT."""
    from android_harness import evidence, farm, stats

    error, problem = ondevice.judge(artifact, expected, [one.outputs for one in session.launches], limits)
    check = evidence.Check(error, problem)
    budget_ms = session.plan.budget_ms
    found = evidence.to_manifest(evidence.latency(session, stats.figures(session), check, budget_ms))
    name = samples_file(artifact.variant.name, session.identity.serial)
    try:
        farm.write_samples(session, out / name)
    except OSError as problem_here:
        raise _unwritable(out, problem_here) from problem_here
    return ondevice.record(found, [one.durations_ns for one in session.launches], budget_ms, name)


def _without_unbuilt(chosen: Selection, on_host: bool) -> Selection:
    """Leave out what no runner was built for: one missing runtime must not stop the others."""
    missing = {
        a.variant.name: why for a in chosen.artifacts if (why := _not_built(BACKENDS[_key(a)], on_host))
    }
    able = tuple(a for a in chosen.artifacts if a.variant.name not in missing)
    return Selection(able, {**chosen.skipped, **missing}) if able else chosen


def _not_built(backend: Backend, on_host: bool) -> str:
    from android_harness import build
    from android_harness.errors import SetupError
    from android_harness.records import Build

    why = ""
    for platform in ("host",) if on_host else get_args(Build):
        try:
            build.find_runner(platform, backend)
        except SetupError as error:
            why = why or str(error)
        else:
            return ""
    return why


def connect(names: Sequence[str]) -> tuple[Device, ...]:
    """The devices named: serials, "host", "all"; the only one connected when nothing is.

    Raises:
        HarnessError: There is no such device, or several and none was named.
    """
    from android_harness import adb
    from android_harness.errors import NoDeviceError
    from android_harness.host import HostDevice

    if not names:
        return (adb.connect(),)
    found: dict[str, Device] = {}
    for name in names:
        if name == "all":
            serials = [seen.serial for seen in adb.list_devices() if seen.state == "device"]
            found |= {serial: adb.AdbDevice(serial) for serial in serials}
        elif name not in found:
            found[name] = HostDevice() if name == "host" else adb.connect(name)
    if not found:
        raise NoDeviceError("No device is ready to be talked to.", "See export-mobile devices.")
    return tuple(found.values())
