"""Measure every export on every device. Sessions go to the history; what it has is not measured again."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from android_harness.errors import HarnessError
from android_harness.history.make_stored import make_stored_samples, make_stored_session
from android_harness.history.records import Origin, StoredSession, history_record_key
from android_harness.records import HOST
from exporter import bench
from exporter.bench.bench_artifacts import (
    bench_artifacts_without_unbuilt,
    check_bench_artifact_target,
    load_bench_artifact_evidence,
    load_bench_artifact_standards,
    select_bench_artifacts,
    tasks_of_bench_artifacts,
)
from exporter.errors import ExportError
from exporter.nightly.config import NightConfig
from exporter.nightly.devices import DevicePool
from exporter.nightly.exporting import unexpected_night_export_error
from exporter.nightly.records import Cell, Exported, Night
from exporter.pipeline.context import Event, Observer
from exporter.records import Artifact, Report
from exporter.verify import budget

if TYPE_CHECKING:
    from android_harness.all_devices import Outcome
    from android_harness.history.spool import Spool
    from android_harness.history.store import History
    from android_harness.latencies import Latency
    from android_harness.one_device import Failed
    from android_harness.records import BenchTask, Session
    from exporter.verify.standard import Standard


@dataclass(eq=False)
class Measurements:
    """The results of measuring, cell by cell; the devices' threads fill it."""

    sessions: dict[Cell, tuple[StoredSession, ...]] = field(default_factory=dict)
    """The first session of each cell, and the second where it was measured again."""
    failures: dict[Cell, str] = field(default_factory=dict)
    skipped: dict[Cell, str] = field(default_factory=dict)

    def has(self, cell: Cell, attempt: int) -> bool:
        """Return whether the session of an attempt exists: 0 is the first, 1 the second."""
        return len(self.sessions.get(cell, ())) > attempt

    def add(self, cell: Cell, session: StoredSession) -> None:
        self.sessions[cell] = (*self.sessions.get(cell, ()), session)


@dataclass(frozen=True, eq=False)
class Stage:
    """What measuring needs from its night."""

    config: NightConfig
    night: Night
    pool: DevicePool
    history: History
    spool: Spool
    """Holds the sessions that the history does not have yet."""
    observer: Observer
    measurements: Measurements = field(default_factory=Measurements)
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Devices measure in parallel; this lock lets one at a time store its results."""


@dataclass(eq=False)
class MeasuringGroup:
    """One model for one target: its artifacts are measured together, with launches in alternating order."""

    folder: Path
    model: str
    report: Report
    standards: Mapping[str, Standard]
    """What each artifact's outputs are judged by."""
    artifacts: Mapping[str, Artifact]
    works: Mapping[str, BenchTask]

    def cell(self, artifact: str, serial: str) -> Cell:
        return self.model, self.report.target_name, artifact, serial

    @property
    def soc(self) -> str | None:
        return budget.soc_of_budget(self.report.target_soc)


def session_key_of_night_measuring(night: Night, cell: Cell, attempt: int) -> str:
    """Return the history key of a session. It is the same for every start of a night."""
    return history_record_key("night", night.host or platform.node(), night.id, *cell, str(attempt))


def measure_night(
    stage: Stage, exported: Sequence[Exported], attempt: int = 0, only: Collection[Cell] | None = None
) -> None:
    """Measure what is not in the history yet, and store it there.

    Args:
        stage: Sessions, failures and skipped cells are added to its `measurements`.
        exported: The exports to measure.
        attempt: 0 for the first measurement, 1 for the second.
        only: The cells to measure; all when None.

    Raises:
        HistoryError: The history cannot be written, so nothing would be stored.
        KeyboardInterrupt: Raised after the runners were killed and the phones' settings restored.
    """
    for item in exported:
        group = _night_measuring_group(stage, item)
        if group is not None:
            _measure_night_group(stage, group, attempt, only)


def _night_measuring_group(stage: Stage, item: Exported) -> MeasuringGroup | None:
    """Select what can be measured here of an export; note in `measurements` why the rest cannot."""
    whole = (item.model, item.target, "", "")
    if item.report is None or item.folder is None:
        return None
    try:
        check_bench_artifact_target(item.report)
    except ExportError as error:
        stage.measurements.skipped[whole] = str(error)
        return None
    try:
        every = stage.config.protocol.artifacts == "all"
        chosen = select_bench_artifacts(item.report, every=every)
        chosen = bench_artifacts_without_unbuilt(chosen, set(stage.pool.devices) == {HOST})
        expected = load_bench_artifact_evidence(item.folder, item.report)
        standards = load_bench_artifact_standards(item.folder, item.report, chosen.artifacts, expected)
        works = tasks_of_bench_artifacts(item.folder, chosen.artifacts, expected)
    except ExportError as error:
        stage.measurements.failures[whole] = str(error)
        return None
    for name, why in chosen.skipped.items():
        stage.measurements.skipped[item.model, item.target, name, ""] = why
    artifacts = {a.variant.name: a for a in chosen.artifacts}
    return MeasuringGroup(
        item.folder, item.model, item.report, standards, artifacts, {w.name: w for w in works}
    )


def _measure_night_group(
    stage: Stage, group: MeasuringGroup, attempt: int, only: Collection[Cell] | None
) -> None:
    from android_harness import all_devices, saved_launches
    from android_harness.records import BenchConfig

    wanted = (*stage.pool.devices, *stage.pool.absent)
    todo = {serial: _artifacts_for_night_measuring(stage, group, serial, attempt, only) for serial in wanted}
    plan = BenchConfig(budget_ms=group.report.own_budget_ms, **stage.config.settings)
    for names in dict.fromkeys(todo.values()):
        if not names:
            continue
        all_devices.bench_all_devices(
            [stage.pool.devices[serial] for serial, open_ in todo.items() if open_ == names],
            [group.works[name] for name in names],
            plan,
            soc=group.soc,
            observer=_night_measuring_observer(stage.observer, group),
            measured=partial(_store_night_measured, stage, group, attempt),
            finished=partial(_record_night_measuring_end, stage, group, attempt, names),
            saved=saved_launches.saved_launches_root(),
        )


def _artifacts_for_night_measuring(
    stage: Stage, group: MeasuringGroup, serial: str, attempt: int, only: Collection[Cell] | None
) -> tuple[str, ...]:
    """Return the artifacts still to be measured on a device; none for an absent device."""
    names = []
    for name in group.works:
        cell = group.cell(name, serial)
        if only is not None and cell not in only:
            continue
        session_key = session_key_of_night_measuring(stage.night, cell, attempt)
        if session := stage.spool.get(session_key) or stage.history.get(session_key):
            stage.measurements.add(cell, session)
        elif why := stage.pool.why_not(serial, group.soc):
            stage.measurements.skipped[cell] = why
        else:
            names.append(name)
    return tuple(names)


def _night_measuring_observer(observer: Observer, group: MeasuringGroup) -> Callable[[str, str], None]:
    name = f"{group.model} for {group.report.target_name}"
    return lambda serial, message: observer(Event("device", f"{name}: {serial}: {message}", 0, 0))


def _store_night_measured(
    stage: Stage, group: MeasuringGroup, attempt: int, serial: str, session: Session
) -> None:
    """Store a complete session at once: a night may be killed before the device is done."""
    with stage.lock:
        _keep_night_measured(stage, group, attempt, serial, [session])


def _record_night_measuring_end(
    stage: Stage, group: MeasuringGroup, attempt: int, names: Sequence[str], outcome: Outcome
) -> None:
    """Record how a device ended: what failed, and interrupted sessions that are worth storing."""
    with stage.lock:
        left = [
            name for name in names if not stage.measurements.has(group.cell(name, outcome.serial), attempt)
        ]
        if outcome.error is not None:
            expected = isinstance(outcome.error, HarnessError)
            words = str(outcome.error) if expected else unexpected_night_export_error(outcome.error)
            stage.measurements.failures |= {group.cell(name, outcome.serial): words for name in left}
        results = [result for result in outcome.results if result.task.name in left]
        _keep_night_measured(stage, group, attempt, outcome.serial, results)


def _keep_night_measured(
    stage: Stage, group: MeasuringGroup, attempt: int, serial: str, results: Sequence[Session | Failed]
) -> None:
    """Write samples and page into the export's folder, and sessions into the history."""
    from android_harness import saved_launches
    from android_harness.one_device import Failed

    benched = []
    for result in results:
        cell = group.cell(result.task.name, serial)
        try:
            if isinstance(result, Failed):
                raise result.reason
            name = result.task.name
            judged = bench.judge_bench_session(result, group.artifacts[name], group.standards[name])
            benched.append((cell, result, judged))
        except HarnessError as error:
            stage.measurements.failures[cell] = str(error)
    _update_night_measured_export(stage, group, [(session, latency) for _, session, latency in benched])
    for cell, session, latency in benched:
        _remember_night_measured(stage, group, cell, session, latency, attempt)
        saved_launches.discard_saved_launches(session)


def _update_night_measured_export(
    stage: Stage, group: MeasuringGroup, benched: Sequence[tuple[Session, Latency]]
) -> None:
    """Update samples, manifest and page of the export; the history gets the sessions even if this fails."""
    if not benched:
        return
    try:
        group.report, _ = bench.store_bench(group.folder, group.report, benched, group.report.own_budget_ms)
    except ExportError as error:
        stage.measurements.failures[group.model, group.report.target_name, "", ""] = str(error)


def _remember_night_measured(
    stage: Stage, group: MeasuringGroup, cell: Cell, session: Session, latency: Latency, attempt: int
) -> None:
    row = make_stored_session(
        session,
        latency,
        _night_measuring_origin(group, group.artifacts[session.task.name]),
        run=stage.night.id,
        host=stage.night.host,
        budget_ms=session.config.budget_ms,
        key=session_key_of_night_measuring(stage.night, cell, attempt),
    )
    stage.spool.add(stage.history, row, make_stored_samples(session))
    stage.measurements.add(cell, row)


def _night_measuring_origin(group: MeasuringGroup, artifact: Artifact) -> Origin:
    compared = artifact.verdict.comparison if artifact.verdict else None
    return Origin(
        model=group.model,
        target=group.report.target_name,
        artifact=artifact.variant.name,
        format=artifact.variant.format,
        backend=artifact.variant.backend,
        precision=artifact.variant.precision,
        source_sha256=group.report.source_sha256,
        size_bytes=artifact.size_bytes,
        sqnr_db=compared.sqnr_db if compared else None,
        top1_agreement=compared.agreement if compared else None,
        accuracy=artifact.accuracy.right / artifact.accuracy.count if artifact.accuracy else None,
        toolchain=group.report.tools,
    )
