"""Run a night from start to end: export, measure, judge, measure again, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.nightly import comparing, journal, judging, measuring, rows, writing
from exporter.nightly import devices as phones
from exporter.nightly.config import Config
from exporter.nightly.exporting import export_all
from exporter.nightly.judging import Judged
from exporter.nightly.measuring import Stage
from exporter.nightly.records import Cell, Exported, Night, Result, Row, State, as_json
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

    result: Result
    folder: Path


def run(
    config: Config,
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
        writing.check_tensorboard()
    with journal.only_one(config.out), history.open_history(config.history) as memory:
        night = journal.begin(config.out, config.resume.hours, fresh)
        waiting = spool.Spool(config.out / SPOOL)
        waiting.flush(memory)
        _close_abandoned(memory, night)
        result = _night(config, night, memory, waiting, tell)
        _remember_gaps(memory, night, result.rows)
        tell(Event("night", "writing the report", 0, 0))
        writing.write(config, night, memory, result, tensorboard)
        journal.end(night, as_json(result))
        _forget(config, memory)
    return Finished(result, night.folder)


def _night(config: Config, night: Night, memory: History, waiting: Spool, tell: Observer) -> Result:
    exported = export_all(config, night, tell)
    pool = phones.find(config.devices)
    stage = Stage(config, night, pool, memory, waiting, tell)
    measuring.measure(stage, exported)
    waiting.flush(memory)
    verdicts = judging.judge_all(memory, stage.measurements)
    if config.protocol.confirm and (again := judging.suspects(verdicts, stage.measurements)):
        tell(Event("night", f"measuring {len(again)} again that look slower", 0, 0))
        measuring.measure(stage, exported, attempt=1, only=again)
        waiting.flush(memory)
        verdicts |= judging.judge_all(memory, stage.measurements, again)
    judging.mark(memory, verdicts, stage.measurements)
    return _result(config, night, exported, stage, verdicts)


def _result(
    config: Config, night: Night, exported: Sequence[Exported], stage: Stage, verdicts: Mapping[Cell, Judged]
) -> Result:
    before = comparing.before(config.out, night)
    earlier: dict[tuple[str, str], Report] = {
        (item.model, item.target): old for item in exported if (old := comparing.earlier(before, item))
    }
    return Result(
        night=night.id,
        host=night.host,
        started_at=journal.began(night.folder).isoformat(),
        ended_at=datetime.now(UTC).isoformat(timespec="seconds"),
        before=before.name if before else "",
        rows=rows.rows(config, exported, stage.pool, stage.measurements, verdicts, earlier),
        changes=comparing.changes(exported, before),
        tools=next((item.report.tools for item in exported if item.report), {}),
        config=str(config.path),
        notes=_notes(night),
    )


def _notes(night: Night) -> tuple[str, ...]:
    resumed = ("This night was interrupted and resumed where it stopped.",) if night.resumed else ()
    return (*resumed, *(f"The night {name} was interrupted and never finished." for name in night.abandoned))


def _close_abandoned(memory: History, night: Night) -> None:
    from android_harness.history.records import Gap, key_of

    for name in night.abandoned:
        folder = night.folder.parent / name
        host, at = journal.host(folder), journal.began(folder)
        gap_key = key_of("gap", host, name, "abandoned")
        memory.add_gap(Gap(gap_key, name, host, at, "The night was interrupted and never finished."))
        judging.mark_abandoned(memory, name)


def _remember_gaps(memory: History, night: Night, night_rows: Sequence[Row]) -> None:
    """Store as gaps what should have been measured and was not."""
    from android_harness.history.records import Gap, device_hash, key_of, now

    for row in night_rows:
        if row.state in GAPS and not row.key:
            memory.add_gap(
                Gap(
                    key=key_of("gap", night.host, night.id, *row.cell),
                    run=night.id,
                    host=night.host,
                    at=now(),
                    reason=row.words,
                    model=row.model,
                    target=row.target,
                    artifact=row.artifact,
                    device=device_hash(row.serial) if row.serial not in {"", phones.ALL} else "",
                )
            )


def _forget(config: Config, memory: History) -> None:
    """Delete what the retention rules no longer keep. Baselines of other sessions stay."""
    from android_harness.history.pruning import Policy, prune

    retention = config.retention
    journal.forget(config.out, retention.nights)
    for days, samples_only in ((retention.samples_days, True), (retention.history_days, False)):
        if days is not None:
            prune(memory, Policy(days=days, samples_only=samples_only))
