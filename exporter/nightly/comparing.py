"""Compare tonight's exports with those of the night before: quality, size, choice and tools, as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from android_harness.regressions.records import Limits
from exporter import files
from exporter.errors import ExportError
from exporter.nightly import journal
from exporter.nightly.records import Change, Exported, Night
from exporter.records import Artifact, Report
from exporter.report import text
from exporter.verify import accuracy

LIMITS = Limits()
"""The smallest changes that are reported, in both directions. Less is chance, or a file's metadata."""


def night_to_compare(out: Path, night: Night) -> Path | None:
    """Return the folder of the last finished night, None without one."""
    return next(
        (folder for folder in reversed(journal.ended_nights_in_journal(out)) if folder.name < night.id), None
    )


def night_export_to_compare(folder: Path | None, exported: Exported) -> Report | None:
    """Return that night's export of the same model and target; None where there is none or it was deleted."""
    from exporter.report import manifest
    from exporter.report.manifest import restore

    path = folder / f"{exported.model}-{exported.target}" / files.MANIFEST if folder else None
    if path is None or not path.is_file():
        return None
    try:
        return restore.restore_report(manifest.load_manifest(path))
    except ExportError:  # of another version, or damaged: nothing to compare with
        return None


def compare_with_night(exported: Sequence[Exported], folder: Path | None) -> tuple[Change, ...]:
    """List everything that changed since the night of `folder`; what got worse comes first."""
    changed = [
        change
        for item in exported
        if item.report and (old := night_export_to_compare(folder, item))
        for change in _compare_night_exports(item, old, item.report)
    ]
    return tuple(sorted(changed, key=lambda change: not change.worse))


def _compare_night_exports(item: Exported, old: Report, new: Report) -> Iterator[Change]:
    rows = {a.variant.name: a for a in old.artifacts}
    for artifact in new.artifacts:
        if (was := rows.get(artifact.variant.name)) is not None:
            for words, worse in _compare_night_artifacts(was, artifact):
                yield Change(item.model, item.target, artifact.variant.name, words, worse)
    for words, worse in _compare_night_whole_exports(old, new):
        yield Change(item.model, item.target, "", words, worse)


def _compare_night_whole_exports(old: Report, new: Report) -> Iterator[tuple[str, bool]]:
    if old.source_sha256 != new.source_sha256:
        yield (
            f"the checkpoint is another: {old.source_sha256[:12]} before, {new.source_sha256[:12]} now",
            False,
        )
    if old.selected != new.selected:
        words = f"{new.selected or 'nothing'} is chosen, {old.selected or 'nothing'} was before"
        yield f"{words}. {new.selection_reason}", new.selected is None
    tools = [
        f"{name} {old.tools.get(name, 'none')} to {new.tools.get(name, 'none')}"
        for name in sorted({*old.tools, *new.tools})
        if old.tools.get(name) != new.tools.get(name)
    ]
    if tools:
        yield f"tools changed: {', '.join(tools)}", False


def _compare_night_artifacts(old: Artifact, new: Artifact) -> Iterator[tuple[str, bool]]:
    if old.status != new.status:
        was, now = (text.status_text(a.status, a.executor) for a in (old, new))
        yield f"{now}, {was} before. {text.reason_text(new)}".strip(), old.status == "passed"
    if old.size_bytes and new.size_bytes and abs(new.size_bytes / old.size_bytes - 1) > LIMITS.size_share:
        words = f"{text.scaled_text(new.size_bytes, 'B')}, {text.scaled_text(old.size_bytes, 'B')} before"
        yield words, new.size_bytes > old.size_bytes
    yield from _compare_night_quality(old, new)
    yield from _compare_night_accuracy(old, new)


def _compare_night_quality(old: Artifact, new: Artifact) -> Iterator[tuple[str, bool]]:
    was = old.verdict.comparison if old.verdict else None
    now = new.verdict.comparison if new.verdict else None
    if was is None or now is None or now.problem or was.problem:
        return
    # Of fp32 it is rounding noise, which its own limit holds.
    if new.variant.precision != "fp32" and abs(now.sqnr_db - was.sqnr_db) > LIMITS.sqnr_db:
        yield (
            f"{text.decibels_text(now.sqnr_db)} SQNR, {text.decibels_text(was.sqnr_db)} before",
            now.sqnr_db < was.sqnr_db,
        )
    if (
        was.agreement is not None
        and now.agreement is not None
        and abs(now.agreement - was.agreement) > LIMITS.agreement
    ):
        words = f"{text.percent_text(now.agreement)} agreement, {text.percent_text(was.agreement)} before"
        yield words, now.agreement < was.agreement


def _compare_night_accuracy(old: Artifact, new: Artifact) -> Iterator[tuple[str, bool]]:
    if old.accuracy is None or new.accuracy is None or old.accuracy.count != new.accuracy.count:
        return  # other labelled samples: another question
    was, now = (accuracy.accuracy_share(score.right, score.count) for score in (old.accuracy, new.accuracy))
    if abs(now - was) > LIMITS.accuracy:
        yield f"{text.percent_text(now)} accuracy, {text.percent_text(was)} before", now < was
