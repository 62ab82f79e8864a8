"""Render `nightly.html`: changes first, then the nights of each line. No script, no request, fits a phone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from exporter.nightly import night_plots, night_summary
from exporter.nightly.night_views import NightView
from exporter.nightly.records import WORDS, WORST_FIRST, Change, NightResult, NightRow, State
from exporter.report import templates, text

if TYPE_CHECKING:
    from android_harness.history.records import Gap
    from android_harness.regressions.records import Change as Step

CSS: Mapping[State, str] = {
    "fine": "passed",
    "regression": "failed",
    "over_budget": "failed",
    "failed": "error",
    "no_phone": "not-run",
    "inconclusive": "not-run",
    "not_measured": "not-run",
    "skipped": "not-run",
}
NEWS: frozenset[State] = frozenset({"regression", "over_budget", "failed", "no_phone", "inconclusive"})


@dataclass(frozen=True)
class Chart:
    """One line of the history as the page shows it; every cell is text."""

    artifact: str
    css: str
    word: str
    words: str
    cells: tuple[tuple[str, str], ...]
    steps: tuple[str, ...]
    trend: str
    launches: str | None
    evidence: str


@dataclass(frozen=True)
class Section:
    """One model on one device."""

    title: str
    device: str
    charts: tuple[Chart, ...]


def render_night_page(result: NightResult, views: Sequence[NightView], gaps: Sequence[Gap]) -> str:
    """Render the whole page.

    Args:
        result: The night's result.
        views: All lines, sorted by model, target and device.
        gaps: Nights in which something was not measured, newest first.

    Returns:
        HTML text, identical for identical arguments.
    """
    news = sorted(
        (row for row in result.rows if row.state in NEWS), key=lambda row: WORST_FIRST.index(row.state)
    )
    return (
        templates.template_environment("exporter.nightly", "exporter.report")
        .get_template("nightly.html.j2")
        .render(
            result=result,
            words=WORDS,
            css=CSS,
            headline=night_summary.night_summary_headline(result),
            lead=night_summary.night_summary_lead(result),
            steps=_night_page_steps(result),
            figures=_night_page_figures(result),
            news=news,
            place=_night_page_place,
            changes=_changes_only_on_night_page(result, news),
            sections=[
                _night_page_section(list(group))
                for _, group in groupby(
                    views, key=lambda view: (view.line.model, view.line.target, view.serial)
                )
            ],
            skipped=[row for row in result.rows if row.state == "skipped"],
            gaps=gaps,
            text=text,
        )
    )


def _night_page_place(row: NightRow | Change) -> str:
    """Name the place: model, target, artifact, device. Empty parts are left out."""
    serial = row.serial if isinstance(row, NightRow) else ""
    return " · ".join(part for part in (row.model, row.target, row.artifact, serial) if part) or "the night"


def _changes_only_on_night_page(result: NightResult, news: Sequence[NightRow]) -> list[Change]:
    """Return the changes that no row above them reports."""
    covered = {
        (row.model, row.target, row.artifact) for row in news if row.state == "regression" and not row.serial
    }
    return [c for c in result.changes if (c.model, c.target, c.artifact) not in covered]


def _night_page_steps(result: NightResult) -> tuple[tuple[str, str], ...]:
    def named(values: Iterator[str], noun: str) -> str:
        distinct = sorted({value for value in values if value})
        return ", ".join(distinct) if 0 < len(distinct) <= 3 else f"{len(distinct)} {noun}"

    return (
        ("models", named((row.model for row in result.rows), "models")),
        ("targets", named((row.target for row in result.rows), "targets")),
        ("devices", named((row.serial for row in result.rows if row.key), "devices")),
        ("measured", f"{sum(bool(row.key) for row in result.rows)} artifacts"),
        ("compared with", result.before or "nothing: the first night"),
    )


def _night_page_figures(result: NightResult) -> tuple[tuple[str, int, str], ...]:
    """Return (state, count, CSS class) for every state that occurs; skipped rows come last."""
    shown = [state for state in WORST_FIRST if state != "skipped" and result.count(state)]
    return tuple((WORDS[state], result.count(state), CSS[state]) for state in shown)


def _night_page_section(views: Sequence[NightView]) -> Section:
    last = views[0].last
    build = f"Android build {last.fingerprint}" if last.fingerprint else ""
    named = ", ".join(filter(None, (last.device_model, last.chip or last.soc, build)))
    return Section(
        title=f"{last.model} for {last.target}",
        device=f"{last.serial}: {named or 'it says nothing about itself'}",
        charts=tuple(_night_page_chart(view) for view in views),
    )


def _night_page_chart(view: NightView) -> Chart:
    last, row = view.last, view.row
    state: State = row.state if row else "skipped"
    return Chart(
        artifact=view.line.artifact,
        css=CSS[state],
        word=WORDS[state] if row else "not measured tonight",
        words=row.words if row else f"Last measured {last.started_at:%d %b %Y}.",
        cells=(
            ("p50", text.milliseconds_text(last.p50_ms)),
            ("p90", text.milliseconds_text(last.p90_ms)),
            ("p90 interval", text.interval_text((last.p90_low_ms, last.p90_high_ms))),
            ("p99", text.milliseconds_text(last.p99_ms)),
            ("Budget", text.milliseconds_text(last.budget_ms)),
            ("Threads", f"{last.threads}{f', cores {last.affinity}' if last.affinity else ''}"),
            ("Runtime", last.runtime),
            ("Nights", str(len({point.run for point in view.series}))),
        ),
        steps=tuple(_night_page_step(step) for step in view.changes),
        trend=night_plots.plot_night_trend(view),
        launches=night_plots.plot_night_launches(view),
        evidence=text.EVIDENCE_WORDS[last.evidence] if last.evidence != "measured" else "",
    )


def _night_page_step(step: Step) -> str:
    share = f"{abs(step.slower):.1%} {'slower' if step.slower > 0 else 'faster'}"
    levels = f"{text.sig3_text(step.before_ms)} to {text.milliseconds_text(step.after_ms)}"
    causes = " ".join(cause.description for cause in step.causes)
    return f"{step.started_at:%d %b %Y}: {levels}, {share}. {causes}"
