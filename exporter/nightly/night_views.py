"""Collect what the page shows of each line: its nights, its changes, and how its launches spread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from android_harness.history.records import Filter, Gap, Point, SeriesKey, StoredSession
from android_harness.regressions import changes
from android_harness.regressions.records import Change
from exporter.bench import device_outputs
from exporter.nightly.config import NightConfig
from exporter.nightly.records import NightResult, NightRow

if TYPE_CHECKING:
    from android_harness.history.store import History

NIGHTS = 120
"""The most nights drawn of a line: more would be thinner than a pixel on a phone."""
LAUNCHES_OF = 6
"""How many sessions have their launches shown: tonight's and some before."""
FORGOTTEN = 30
"""Days after which a line that is no longer measured leaves the page."""


@dataclass(frozen=True, eq=False)
class NightView:
    """One line of the history, as of tonight."""

    line: SeriesKey
    series: tuple[Point, ...]
    """The points, oldest first."""
    last: StoredSession
    """The full session of the last point."""
    tonight: tuple[Point, ...]
    changes: tuple[Change, ...]
    gaps: tuple[Gap, ...]
    launches: tuple[tuple[StoredSession, tuple[tuple[float, ...], ...]], ...]
    """The last sessions, oldest first, each with p5, p25, p50, p75, p95 of every launch in ms."""
    row: NightRow | None
    """Tonight's row; None where the line was not measured tonight."""

    @property
    def serial(self) -> str:
        return self.last.serial


def night_views(config: NightConfig, memory: History, result: NightResult) -> tuple[NightView, ...]:
    """Return all lines of tonight's models and targets, sorted by model, target, device and artifact."""
    rows = {row.key: row for row in result.rows if row.key}
    lines = [
        view
        for card in config.cards
        for line in memory.series_keys(Filter(model=card.name))
        if line.target in config.targets and (view := _make_night_view(memory, line, result, rows))
    ]
    return tuple(sorted(lines, key=_night_view_order))


def _night_view_order(view: NightView) -> tuple[str, str, str, str]:
    return view.line.model, view.line.target, view.serial, view.line.artifact


def _make_night_view(
    memory: History, line: SeriesKey, result: NightResult, rows: Mapping[str, NightRow]
) -> NightView | None:
    series, recent = memory.trend(line, newest=NIGHTS), memory.series(line, newest=LAUNCHES_OF)
    tonight = tuple(point for point in series if point.run == result.night)
    if not tonight and _is_night_view_old(series[-1], result):
        return None
    row = next((rows[point.key] for point in tonight if point.key in rows), None)
    return NightView(
        line=line,
        series=series,
        last=recent[-1],
        tonight=tonight,
        changes=changes.changes_of_series(series, memory.get_all),
        gaps=tuple(_gaps_in_night_view(memory, line, series)),
        launches=tuple(_launches_in_night_view(memory, recent)),
        row=row,
    )


def _is_night_view_old(session: Point, result: NightResult) -> bool:
    return datetime.fromisoformat(result.started_at) - session.started_at > timedelta(days=FORGOTTEN)


def _gaps_in_night_view(memory: History, line: SeriesKey, series: Sequence[Point]) -> Iterator[Gap]:
    """Yield the gaps in which this line would have been measured."""
    wanted = Filter(
        model=line.model,
        target=line.target,
        artifact=line.artifact,
        device=line.device,
        since=series[0].started_at,
        newest=NIGHTS,
    )
    measured = {point.run for point in series}
    return (gap for gap in memory.gaps(wanted) if gap.run not in measured)


def _launches_in_night_view(
    memory: History, sessions: Sequence[StoredSession]
) -> Iterator[tuple[StoredSession, tuple[tuple[float, ...], ...]]]:
    for session in sessions:
        raw = memory.samples(session.key)
        if raw is not None:
            yield (
                session,
                device_outputs.quantiles_of_device_outputs([launch.durations_ns for launch in raw.launches]),
            )
