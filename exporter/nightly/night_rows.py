"""Build the rows of a night's report: one for everything that was to be done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from android_harness.history.records import StoredSession
from exporter.nightly import night_summary
from exporter.nightly.config import NightConfig
from exporter.nightly.devices import DevicePool
from exporter.nightly.night_judging import JudgedCell
from exporter.nightly.night_measuring import Measurements
from exporter.nightly.records import Cell, Exported, NightRow, State
from exporter.records import Artifact, Report
from exporter.report import instability_flags, text

VERDICT_STATES: Mapping[str, State] = {
    "pass": "fine",
    "fail": "over_budget",
    "inconclusive": "inconclusive",
    "not_measured": "not_measured",
}
WHY_NOT_MEASURED = {
    "host": "It was measured on this machine, not on a phone.",
    "simulated": "The device did not prove to be a real phone.",
    "measured": "",
}


def rows_of_night(
    config: NightConfig,
    exported: Sequence[Exported],
    pool: DevicePool,
    measurements: Measurements,
    verdicts: Mapping[Cell, JudgedCell],
    earlier: Mapping[tuple[str, str], Report],
) -> tuple[NightRow, ...]:
    """Build all rows, sorted by model, target, artifact and device; one for each cell.

    Args:
        config: The task; it lists the broken cards.
        exported: The exports, and why others failed.
        pool: The devices that answered.
        measurements: What was measured, failed and skipped.
        verdicts: The verdict on each measured cell.
        earlier: (model, target) -> its report from the night before.
    """
    of_exports = [
        row
        for item in exported
        for row in _night_rows_of_export(item, earlier.get((item.model, item.target)))
    ]
    # What did not pass is not measured, what was not measured again was measured: once is enough.
    covered = {row.cell for row in of_exports} | measurements.sessions.keys()
    not_again = measurements.skipped | measurements.failures
    drafts = [
        *(NightRow(name, "", "", "", "failed", why) for name, why in config.broken),
        *of_exports,
        *_night_rows_of_devices(pool),
        *(
            NightRow(*cell, "skipped", why)
            for cell, why in measurements.skipped.items()
            if cell not in covered
        ),
        *(
            NightRow(*cell, "failed", why)
            for cell, why in measurements.failures.items()
            if cell not in measurements.sessions
        ),
        *(
            _night_row_of_session(cell, sessions, verdicts[cell], not_again.get(cell, ""))
            for cell, sessions in measurements.sessions.items()
        ),
    ]
    cells: dict[Cell, list[NightRow]] = {}
    for row in drafts:
        cells.setdefault(row.cell, []).append(row)
    return tuple(_merge_night_rows(cells[cell]) for cell in sorted(cells))


def _merge_night_rows(same: Sequence[NightRow]) -> NightRow:
    """Merge the rows of one cell: the worst state, and all sentences."""
    ordered = night_summary.worst_first_for_night_summary(same)
    words = " ".join(dict.fromkeys(row.words for row in ordered))
    return replace(ordered[0], words=words, key=next((row.key for row in ordered if row.key), ""))


def _night_rows_of_devices(pool: DevicePool) -> Iterator[NightRow]:
    """Return rows for devices that were asked for and cannot be used."""
    state: State = "no_phone" if pool.lacks_phone else "failed"
    for serial, why in pool.absent.items():
        yield NightRow("", "", "", serial, state, why)


def _night_rows_of_export(item: Exported, old: Report | None) -> Iterator[NightRow]:
    """Return rows for what is wrong with an export before any device measures it."""
    if item.report is None:
        yield NightRow(item.model, item.target, "", "", "failed", item.problem)
        return
    before = {a.variant.name: a.status for a in old.artifacts} if old else {}
    for artifact in item.report.artifacts:
        if artifact.status != "passed":
            yield _night_row_of_not_passed(item, artifact, before.get(artifact.variant.name) == "passed")
    for name in item.require:
        if not any(a.status == "passed" for a in item.report.artifacts if name in _names_in_night_row(a)):
            words = f"The card requires {name}, and none of it passed."
            yield NightRow(item.model, item.target, "", "", "failed", words)


def _night_row_of_not_passed(item: Exported, artifact: Artifact, passed_before: bool) -> NightRow:
    """Return the row of an artifact that did not pass; it is skipped where it cannot run on this machine."""
    cell = (item.model, item.target, artifact.variant.name, "")
    words = (
        f"{text.status_text(artifact.status, artifact.executor).capitalize()}: {text.reason_text(artifact)}"
    )
    if artifact.status == "not_run":
        return NightRow(*cell, "skipped", words)
    if passed_before:
        return NightRow(*cell, "regression", f"It passed the night before. {words}")
    return NightRow(*cell, "failed", words)


def _names_in_night_row(artifact: Artifact) -> tuple[str, str, str]:
    return artifact.variant.format, artifact.variant.precision, artifact.variant.name


def _night_row_of_session(
    cell: Cell, sessions: Sequence[StoredSession], verdict: JudgedCell, failed_again: str
) -> NightRow:
    """Return the row of a measured cell. The re-run decides: it confirms or clears the first session."""
    last = sessions[-1]
    sentences = [
        f"p90 {text.milliseconds_text(last.p90_ms)} "
        f"({text.interval_text((last.p90_low_ms, last.p90_high_ms))}), "
        f"budget {text.milliseconds_text(last.budget_ms)}.",
        verdict.words,
        f"It could not be measured again: {failed_again}" if failed_again else "",
        WHY_NOT_MEASURED[last.evidence],
        " ".join(f"{flag}." for flag in instability_flags.group_instability_flags(last.flags)),
    ]
    if last.problem:
        return NightRow(*cell, "failed", f"Its outputs differ from the model's: {last.problem}", last.key)
    words = " ".join(part for part in sentences if part)
    return NightRow(*cell, _night_row_state(last, verdict), words, last.key)


def _night_row_state(session: StoredSession, verdict: JudgedCell) -> State:
    if verdict.regressions:
        return "regression"
    state = VERDICT_STATES[session.verdict]
    return "inconclusive" if verdict.suspected and state == "fine" else state
