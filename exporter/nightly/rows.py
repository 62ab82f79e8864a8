"""Build the rows of a night's report: one for everything that was to be done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from android_harness.history.records import StoredSession
from exporter.nightly import summary
from exporter.nightly.config import Config
from exporter.nightly.devices import DevicePool
from exporter.nightly.judging import Judged
from exporter.nightly.measuring import Measurements
from exporter.nightly.records import Cell, Exported, Row, State
from exporter.records import Artifact, Report
from exporter.report import flags, text

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


def rows(
    config: Config,
    exported: Sequence[Exported],
    pool: DevicePool,
    measurements: Measurements,
    verdicts: Mapping[Cell, Judged],
    earlier: Mapping[tuple[str, str], Report],
) -> tuple[Row, ...]:
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
        row for item in exported for row in _of_export(item, earlier.get((item.model, item.target)))
    ]
    # What did not pass is not measured, what was not measured again was measured: once is enough.
    covered = {row.cell for row in of_exports} | measurements.sessions.keys()
    not_again = measurements.skipped | measurements.failures
    drafts = [
        *(Row(name, "", "", "", "failed", why) for name, why in config.broken),
        *of_exports,
        *_of_devices(pool),
        *(Row(*cell, "skipped", why) for cell, why in measurements.skipped.items() if cell not in covered),
        *(
            Row(*cell, "failed", why)
            for cell, why in measurements.failures.items()
            if cell not in measurements.sessions
        ),
        *(
            _of_session(cell, sessions, verdicts[cell], not_again.get(cell, ""))
            for cell, sessions in measurements.sessions.items()
        ),
    ]
    cells: dict[Cell, list[Row]] = {}
    for row in drafts:
        cells.setdefault(row.cell, []).append(row)
    return tuple(_merged(cells[cell]) for cell in sorted(cells))


def _merged(same: Sequence[Row]) -> Row:
    """Merge the rows of one cell: the worst state, and all sentences."""
    ordered = summary.worst(same)
    words = " ".join(dict.fromkeys(row.words for row in ordered))
    return replace(ordered[0], words=words, key=next((row.key for row in ordered if row.key), ""))


def _of_devices(pool: DevicePool) -> Iterator[Row]:
    """Return rows for devices that were asked for and cannot be used."""
    state: State = "no_phone" if pool.lacks_phone else "failed"
    for serial, why in pool.absent.items():
        yield Row("", "", "", serial, state, why)


def _of_export(item: Exported, old: Report | None) -> Iterator[Row]:
    """Return rows for what is wrong with an export before any device measures it."""
    if item.report is None:
        yield Row(item.model, item.target, "", "", "failed", item.problem)
        return
    before = {a.variant.name: a.status for a in old.artifacts} if old else {}
    for artifact in item.report.artifacts:
        if artifact.status != "passed":
            yield _not_passed(item, artifact, before.get(artifact.variant.name) == "passed")
    for name in item.require:
        if not any(a.status == "passed" for a in item.report.artifacts if name in _names(a)):
            words = f"The card requires {name}, and none of it passed."
            yield Row(item.model, item.target, "", "", "failed", words)


def _not_passed(item: Exported, artifact: Artifact, passed_before: bool) -> Row:
    """Return the row of an artifact that did not pass; it is skipped where it cannot run on this machine."""
    cell = (item.model, item.target, artifact.variant.name, "")
    words = f"{text.STATUS_WORDS[artifact.status].capitalize()}: {text.reason(artifact)}"
    if artifact.status == "not_run":
        return Row(*cell, "skipped", words)
    if passed_before:
        return Row(*cell, "regression", f"It passed the night before. {words}")
    return Row(*cell, "failed", words)


def _names(artifact: Artifact) -> tuple[str, str, str]:
    return artifact.variant.format, artifact.variant.precision, artifact.variant.name


def _of_session(cell: Cell, sessions: Sequence[StoredSession], verdict: Judged, failed_again: str) -> Row:
    """Return the row of a measured cell. The re-run decides: it confirms or clears the first session."""
    last = sessions[-1]
    sentences = [
        f"p90 {text.milliseconds(last.p90_ms)} ({text.interval((last.p90_low_ms, last.p90_high_ms))}), "
        f"budget {text.milliseconds(last.budget_ms)}.",
        verdict.words,
        f"It could not be measured again: {failed_again}" if failed_again else "",
        WHY_NOT_MEASURED[last.evidence],
        " ".join(f"{flag}." for flag in flags.grouped(last.flags)),
    ]
    if last.problem:
        return Row(*cell, "failed", f"Its outputs differ from the model's: {last.problem}", last.key)
    words = " ".join(part for part in sentences if part)
    return Row(*cell, _state(last, verdict), words, last.key)


def _state(session: StoredSession, verdict: Judged) -> State:
    if verdict.regressions:
        return "regression"
    state = VERDICT_STATES[session.verdict]
    return "inconclusive" if verdict.suspected and state == "fine" else state
