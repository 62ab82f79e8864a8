"""Measure and verify artifacts of OUT on devices, and write the results into OUT."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.bench import device_outputs
from exporter.bench.bench_artifacts import (
    bench_artifacts_without_unbuilt,
    check_bench_artifact_target,
    load_bench_artifact_evidence,
    load_bench_artifact_standards,
    select_bench_artifacts,
    tasks_of_bench_artifacts,
)
from exporter.bench.bench_storing import add_latencies_to_stored_bench, keep_stored_bench_samples, store_bench
from exporter.errors import OutputError
from exporter.files import MANIFEST
from exporter.pipeline.context import Event, Observer
from exporter.records import Artifact, BudgetVerdict, DeviceLatency, Report
from exporter.verify import budget

if TYPE_CHECKING:
    from android_harness.all_devices import Outcome
    from android_harness.errors import HarnessError
    from android_harness.latencies import Latency
    from android_harness.records import BenchConfig, Device, Session
    from exporter.report.manifest.schema import Manifest
    from exporter.verify.standard import Standard

__all__ = [
    "Benched", "add_latencies_to_stored_bench", "bench_export", "connect_for_bench",
    "keep_stored_bench_samples", "read_for_bench", "store_bench",
]  # fmt: skip


def read_for_bench(out: Path) -> tuple[Report, Manifest]:
    """Read the report in OUT, and check that OUT can be written to.

    Raises:
        VerificationError: There is no valid manifest.
        OutputError: OUT cannot be written.
    """
    from exporter.report import manifest
    from exporter.report.manifest import restore

    listed = manifest.load_manifest(out / MANIFEST)
    if not os.access(out, os.W_OK):
        raise OutputError(f"{out} cannot be written.", "Check the folder's permissions.")
    return restore.restore_report(listed), listed


LAUNCH = re.compile(r": launch \d+ of \d+$")
"""The harness' message that a process starts."""


APP_LIKE = ", as an app runs"


@dataclass(frozen=True, eq=False)
class Benched:
    """The results of one run of `bench_export`."""

    report: Report
    latencies: tuple[tuple[str, DeviceLatency], ...]
    """(artifact, its latency on a device), of this run."""
    skipped: Mapping[str, str]
    failures: tuple[HarnessError, ...]
    problems: Mapping[str, str]
    """The messages of the failures, by device and artifact."""

    @property
    def verdict(self) -> BudgetVerdict:
        """Return the verdict on the chosen artifact if it was measured now, else on all that was measured."""
        chosen = [item for name, item in self.latencies if name == self.report.selected]
        counted = chosen or [item for _, item in self.latencies]
        return budget.budget_verdict(counted, self.report.budget_ms)


def bench_export(
    out: Path,
    names: Sequence[str] = (),
    *,
    artifact: str | None = None,
    every: bool = False,
    budget_ms: float | None = None,
    settings: Mapping[str, Any] | None = None,
    observer: Observer | None = None,
) -> Benched:
    """Measure artifacts of OUT on devices, check their outputs by the manifest's limits, write it into OUT.

    Args:
        out: A folder that `export` made.
        names: Serials, "host" or "all"; empty is the only connected device.
        artifact: The artifact to measure; the chosen one when None.
        every: Measure all that can be measured.
        budget_ms: The budget; the export's when None.
        settings: Further fields of `android_harness.records.BenchConfig`.
        observer: Called at every step.

    Raises:
        ExportError: OUT cannot be used or written.
        HarnessError: There is no such device, or nothing could be measured on any.
    """
    from android_harness import all_devices, saved_launches
    from android_harness.records import BenchConfig

    report, _ = read_for_bench(out)
    check_bench_artifact_target(report)
    chosen = select_bench_artifacts(report, artifact, every)
    expected = load_bench_artifact_evidence(out, report)
    plan = BenchConfig(budget_ms=budget_ms or report.own_budget_ms, **(settings or {}))
    connected = connect_for_bench(names)
    if every:
        chosen = bench_artifacts_without_unbuilt(chosen, all(device.serial == "host" for device in connected))
    standards = load_bench_artifact_standards(out, report, chosen.artifacts, expected)
    sessions: list[Session] = []
    failures: dict[str, HarnessError] = {}
    for config in _bench_configs(plan):
        outcomes = all_devices.bench_all_devices(
            connected,
            tasks_of_bench_artifacts(out, chosen.artifacts, expected),
            config,
            soc=budget.soc_of_budget(report.target_soc),
            observer=_bench_observer(observer, len(connected), len(chosen.artifacts), config),
            saved=saved_launches.saved_launches_root(),
        )
        finished, failed = _split_bench_outcomes(outcomes)
        sessions += finished
        failures |= {
            f"{where}{APP_LIKE if config.app_like else ''}": error for where, error in failed.items()
        }
    if not sessions:
        raise next(iter(failures.values()))
    artifacts = {row.variant.name: row for row in chosen.artifacts}
    judged_sessions = [
        (session, judge_bench_session(session, artifacts[session.task.name], standards[session.task.name]))
        for session in sessions
    ]
    updated_report, latencies = store_bench(out, report, judged_sessions, plan.budget_ms)
    for session in sessions:
        saved_launches.discard_saved_launches(session)
    problems = {where: str(error) for where, error in failures.items()}
    return Benched(updated_report, latencies, chosen.skipped, tuple(failures.values()), problems)


def _bench_configs(plan: BenchConfig) -> tuple[BenchConfig, ...]:
    """Return what is measured: with the threads and cores of the plan and, if asked for, as an app runs."""
    pinned = replace(plan, app_like=False)
    if not plan.app_like:
        return (pinned,)
    return pinned, replace(plan, threads=0, affinity="", profile=False)


def _bench_observer(
    observer: Observer | None, devices: int, artifacts: int, plan: BenchConfig
) -> Callable[[str, str], None]:
    """Return an observer for the harness that counts launches. Each device's thread calls it."""
    lock = threading.Lock()
    begun, total = 0, devices * artifacts * plan.launches
    tell = observer or (lambda event: None)
    at_least = artifacts * plan.launches * plan.min_seconds
    message = (
        f"{total} launches, at least {at_least:.0f} s of timed calls; loading and warming up come on top"
    )
    tell(Event("device", message, 0, total))

    def relay(serial: str, message: str) -> None:
        nonlocal begun
        with lock:
            launches = bool(LAUNCH.search(message))
            tell(Event("device", f"{serial}: {message}", begun, total))
            begun += launches

    return relay


def _split_bench_outcomes(outcomes: Mapping[str, Outcome]) -> tuple[list[Session], dict[str, HarnessError]]:
    """Split outcomes into the sessions, and the failures by device (and artifact)."""
    from android_harness.errors import DeviceError, HarnessError
    from android_harness.one_device import Failed

    sessions: list[Session] = []
    failures: dict[str, HarnessError] = {}
    for serial, outcome in outcomes.items():
        if isinstance(outcome.error, HarnessError):
            failures[serial] = outcome.error
        elif outcome.error:
            failures[serial] = DeviceError(f"Unexpected {type(outcome.error).__name__}: {outcome.error}.")
        for result in outcome.results:
            if isinstance(result, Failed):
                failures[f"{result.task.name} on {serial}"] = result.reason
            else:
                sessions.append(result)
    return sessions, failures


def judge_bench_session(session: Session, artifact: Artifact, standard: Standard) -> Latency:
    """Judge a session: its evidence, and its outputs as verification does.

    Raises:
        DeviceError: The session has no figures.
    """
    from android_harness import latency_stats, provenance

    error, problem = device_outputs.judge_device_outputs(
        artifact, standard, [launch.outputs for launch in session.launches], session.edge_outputs
    )
    unanswered = session.edge_failure and f"It does not run on the edge inputs: {session.edge_failure}"
    check = provenance.ProvenanceCheck(error, problem or unanswered or _unrepeatable_bench(session))
    return provenance.latency_with_provenance(
        session, latency_stats.latency_stats(session), check, session.config.budget_ms
    )


def _unrepeatable_bench(session: Session) -> str:
    """Return which launch computed other outputs from one input; an empty string when none did."""
    numbers = [str(launch.index + 1) for launch in session.launches if not launch.repeatable]
    if not numbers:
        return ""
    return (
        f"Launch {', '.join(numbers)} computed one input several times, with other outputs: the device's "
        "results are not repeatable."
    )


def connect_for_bench(names: Sequence[str]) -> tuple[Device, ...]:
    """Connect to the named devices: serials, "host" or "all"; without names to the only phone.

    Raises:
        HarnessError: There is no such device, or there are several and none was named.
    """
    from android_harness import adb
    from android_harness.errors import NoDeviceError
    from android_harness.resolve_devices import resolve_devices

    if not names:
        return (adb.connect_adb(),)
    resolved = resolve_devices(names)
    for name in names:
        error = resolved.errors.get(name)
        if error and not (resolved.devices and isinstance(error, NoDeviceError) and name == "all"):
            raise error
    if not resolved.devices:
        raise NoDeviceError("No phone is ready to be used.", "See `export-mobile devices`.")
    return tuple(resolved.devices.values())
