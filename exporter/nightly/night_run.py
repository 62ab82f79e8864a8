"""Run a night from start to end: export, measure, judge, measure again, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.nightly import comparing, journal, night_judging, night_measuring, night_rows, writing
from exporter.nightly import devices as phones
from exporter.nightly.config import NightConfig
from exporter.nightly.exporting import export_night
from exporter.nightly.night_judging import JudgedCell
from exporter.nightly.night_measuring import Stage
from exporter.nightly.records import (
    Cell,
    Exported,
    Night,
    NightResult,
    NightRow,
    State,
    night_records_as_json,
)
from exporter.pipeline.context import Event, Observer
from exporter.records import Report

if TYPE_CHECKING:
    from android_harness.history.spool import Spool
    from android_harness.history.store import History

SPOOL = "spool"
"""The folder of `out` with sessions that the history does not have yet."""
GAPS: frozenset[State] = frozenset({"failed", "no_phone"})
"""States of rows that are stored as gaps: they should have been measured."""


@dataclass(frozen=True, eq=False)
class Finished:
    """A finished night, and the folder that holds its files."""

    result: NightResult
    folder: Path


def run_night(
    config: NightConfig,
    observer: Observer | None = None,
    *,
    fresh: bool = False,
    tensorboard: Path | None = None,
) -> Finished:
    """Run a night, or resume the interrupted one.

    Args:
        config: The task that `nightly.toml` describes.
        observer: Called at every step.
        fresh: Begin a new night even if an earlier one was interrupted.
        tensorboard: The folder for scalars of tonight's sessions; None writes none.

    Returns:
        What was found out; also in the night's folder as page, JUnit, summary and JSON.

    Raises:
        NightRunningError: Another process is at it.
        HarnessError: The history cannot be used.
        ExportError: `out` cannot be written; a package is missing.
    """
    from android_harness import history
    from android_harness.history import spool

    tell = observer or (lambda _: None)
    if tensorboard:
        writing.check_night_can_be_written()
    with journal.lock_journal(config.out), history.open_history(config.history) as memory:
        night = journal.begin_journal(config.out, config.resume.hours, fresh)
        waiting = spool.Spool(config.out / SPOOL)
        waiting.flush(memory)
        _close_abandoned_night_run(memory, night)
        result = _run_locked_night(config, night, memory, waiting, tell)
        _remember_gaps_of_night_run(memory, night, result.rows)
        tell(Event("night", "writing the report", 0, 0))
        writing.write_night(config, night, memory, result, tensorboard)
        journal.end_journal(night, night_records_as_json(result))
        _forget_after_night_run(config, memory)
    return Finished(result, night.folder)


def _run_locked_night(
    config: NightConfig, night: Night, memory: History, waiting: Spool, tell: Observer
) -> NightResult:
    exported = export_night(config, night, tell)
    pool = phones.find_night_devices(config.devices)
    stage = Stage(config, night, pool, memory, waiting, tell)
    night_measuring.measure_night(stage, exported)
    waiting.flush(memory)
    verdicts = night_judging.judge_night(memory, stage.measurements)
    if config.protocol.confirm and (
        again := night_judging.suspects_for_night_judging_again(verdicts, stage.measurements)
    ):
        tell(Event("night", f"measuring {len(again)} again that look slower", 0, 0))
        night_measuring.measure_night(stage, exported, attempt=1, only=again)
        waiting.flush(memory)
        verdicts |= night_judging.judge_night(memory, stage.measurements, again)
    night_judging.mark_night_judged(memory, verdicts, stage.measurements)
    return _night_run_result(config, night, exported, stage, verdicts)


def _night_run_result(
    config: NightConfig,
    night: Night,
    exported: Sequence[Exported],
    stage: Stage,
    verdicts: Mapping[Cell, JudgedCell],
) -> NightResult:
    before = comparing.night_to_compare(config.out, night)
    earlier: dict[tuple[str, str], Report] = {
        (item.model, item.target): old
        for item in exported
        if (old := comparing.night_export_to_compare(before, item))
    }
    return NightResult(
        night=night.id,
        host=night.host,
        started_at=journal.journaled_start_of_night(night.folder).isoformat(),
        ended_at=datetime.now(UTC).isoformat(timespec="seconds"),
        before=before.name if before else "",
        rows=night_rows.rows_of_night(config, exported, stage.pool, stage.measurements, verdicts, earlier),
        changes=comparing.compare_with_night(exported, before),
        tools=next((item.report.tools for item in exported if item.report), {}),
        config=str(config.path),
        notes=_night_run_notes(night),
    )


def _night_run_notes(night: Night) -> tuple[str, ...]:
    resumed = ("This night was interrupted and resumed where it stopped.",) if night.resumed else ()
    return (*resumed, *(f"The night {name} was interrupted and never finished." for name in night.abandoned))


def _close_abandoned_night_run(memory: History, night: Night) -> None:
    from android_harness.history.records import Gap, history_record_key

    for name in night.abandoned:
        folder = night.folder.parent / name
        host, at = journal.journal_host(folder), journal.journaled_start_of_night(folder)
        gap_key = history_record_key("gap", host, name, "abandoned")
        memory.add_gap(Gap(gap_key, name, host, at, "The night was interrupted and never finished."))
        night_judging.mark_night_unjudged(memory, name)


def _remember_gaps_of_night_run(memory: History, night: Night, night_rows: Sequence[NightRow]) -> None:
    """Store as gaps what should have been measured and was not."""
    from android_harness.history.records import (
        Gap,
        history_record_device_hash,
        history_record_key,
        history_record_time,
    )

    for row in night_rows:
        if row.state in GAPS and not row.key:
            memory.add_gap(
                Gap(
                    key=history_record_key("gap", night.host, night.id, *row.cell),
                    run=night.id,
                    host=night.host,
                    at=history_record_time(),
                    reason=row.words,
                    model=row.model,
                    target=row.target,
                    artifact=row.artifact,
                    device=history_record_device_hash(row.serial)
                    if row.serial not in {"", phones.ALL}
                    else "",
                )
            )


def _forget_after_night_run(config: NightConfig, memory: History) -> None:
    """Delete what the retention rules no longer keep. Baselines of other sessions stay."""
    from android_harness.history.pruning import PruningPolicy, prune_history

    retention = config.retention
    journal.forget_journaled_nights(config.out, retention.nights)
    for days, samples_only in ((retention.samples_days, True), (retention.history_days, False)):
        if days is not None:
            prune_history(memory, PruningPolicy(days=days, samples_only=samples_only))
