"""Plot one line for the page: its nights, and the launches of the last ones. The page sets the colours."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from exporter.report.plots import ACCENT, FAINT, INK, STATUS_COLOURS, plot_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from android_harness.history.records import Point
    from exporter.nightly.night_views import NightView

BAD, GOOD, WEAK = STATUS_COLOURS["failed"], STATUS_COLOURS["passed"], STATUS_COLOURS["not_run"]
CALM = 0.12
"""The axis spans at least this share of the middle above and below, so that a steady line looks steady."""
BUDGET_IN_SIGHT = 1.5
"""A budget above this multiple of the highest value is written as text: drawn, it would flatten the trend."""


def plot_night_trend(view: NightView) -> str:
    """Draw every night: a dot at p50, a whisker up to p90, levels and change-points, the budget, gaps."""

    def draw(figure: Figure) -> None:
        import matplotlib.dates as mdates

        dates: Any = mdates  # untyped
        axes = figure.add_axes((0.13, 0.17, 0.85, 0.71))
        _plot_night_trend_levels(axes, view)
        _plot_night_trend_dots(axes, view)
        low, high = _night_trend_plot_limits(
            [point.p50_ms for point in view.series] + [point.p90_ms for point in view.series]
        )
        high = _plot_night_trend_budget(axes, view.last.budget_ms, low, high)
        axes.set_ylim(low, high)
        _plot_night_trend_gaps(axes, view, low)
        _plot_night_time_axis(
            axes, [point.started_at for point in view.series] + [gap.at for gap in view.gaps]
        )
        locator = dates.AutoDateLocator(minticks=2, maxticks=6)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
        axes.set_ylabel("ms per call")

    return plot_svg(f"trend-{view.line.id}", 2.6, draw)


def _plot_night_trend_dots(axes: Any, view: NightView) -> None:
    """Draw dots: filled for a stable run, hollow for an unstable one, tonight's in the accent colour."""
    tonight = {session.key for session in view.tonight}
    bad = view.row is not None and view.row.state in {"regression", "over_budget", "failed"}
    axes.plot(
        [session.started_at for session in view.series],
        [session.p50_ms for session in view.series],
        color=FAINT,
        linewidth=0.8,
        zorder=1,
    )
    groups: dict[tuple[bool, bool], list[Point]] = {}
    for session in view.series:
        groups.setdefault((session.key in tonight, session.stable), []).append(session)
    for (now, stable), sessions in groups.items():
        colour = (BAD if bad else ACCENT) if now else INK
        times = [session.started_at for session in sessions]
        middles = [session.p50_ms for session in sessions]
        axes.vlines(
            times, middles, [session.p90_ms for session in sessions], color=colour, linewidth=1, alpha=0.45
        )
        axes.plot(
            times,
            middles,
            linestyle="none",
            marker="o",
            markersize=6.5 if now else 4,
            markerfacecolor=colour if stable else "none",
            markeredgecolor=colour,
            zorder=3,
        )


def _plot_night_trend_levels(axes: Any, view: NightView) -> None:
    """Draw a line at each level's median, and a numbered dotted line at each change-point."""
    places = [0, *(change.index for change in view.changes), len(view.series)]
    levels = [change.before_ms for change in view.changes[:1]] + [change.after_ms for change in view.changes]
    for level, start, end in zip(levels, places, places[1:], strict=False):
        nights = view.series[start:end]
        span = (nights[0].started_at, nights[-1].started_at)
        axes.plot(span, (level, level), color=ACCENT, linewidth=5, alpha=0.22, solid_capstyle="round")
    for number, change in enumerate(view.changes, 1):
        colour = BAD if change.slower > 0 else GOOD
        axes.axvline(change.started_at, color=colour, linestyle=":", linewidth=1.3)
        axes.annotate(
            f"{number}",
            (change.started_at, 1.02),
            xycoords=("data", "axes fraction"),
            ha="center",
            fontsize=10,
            color=colour,
        )


def _plot_night_trend_budget(axes: Axes, budget_ms: float, low: float, high: float) -> float:
    """Draw the budget where it fits, else write where it is. Return the upper end of the axis."""
    if budget_ms > high * BUDGET_IN_SIGHT:
        remark = f"budget {budget_ms:g} ms, above"
        axes.annotate(remark, (1, 1.02), xycoords="axes fraction", ha="right", fontsize=9, color=WEAK)
        return high
    axes.axhline(budget_ms, color=BAD, linestyle="--", linewidth=1.2)
    if budget_ms < low:
        remark = f"budget {budget_ms:g} ms, below"
        axes.annotate(remark, (1, 1.02), xycoords="axes fraction", ha="right", fontsize=9, color=BAD)
        return high
    axes.annotate(
        f"budget {budget_ms:g} ms",
        (0.995, budget_ms),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        fontsize=9,
        color=BAD,
    )
    return max(high, budget_ms * 1.08)


def _plot_night_trend_gaps(axes: Any, view: NightView, low: float) -> None:
    for gap in view.gaps:
        axes.plot((gap.at,), (low,), marker="x", color=WEAK, markersize=6, clip_on=False)


def _night_trend_plot_limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    middle = (low + high) / 2
    return max(0.0, min(low * 0.97, middle * (1 - CALM))), max(high * 1.03, middle * (1 + CALM))


def _plot_night_time_axis(axes: Any, times: Sequence[datetime]) -> None:
    """Set up a time axis at least a day wide, with room for the outer dots."""
    from datetime import timedelta

    first, last = min(times), max(times)
    room = max((last - first) * 0.03, timedelta(hours=12) - (last - first) / 2, timedelta(minutes=30))
    axes.set_xlim(first - room, last + room)


def plot_night_launches(view: NightView) -> str | None:
    """Draw the last sessions' launches: a line from p5 to p95, thick from p25 to p75, a dot at the median."""
    if not view.launches:
        return None
    tonight = {session.key for session in view.tonight}
    height = 0.75 + 0.32 * len(view.launches)

    def draw(figure: Figure) -> None:
        bottom = 0.5 / height
        axes = figure.add_axes((0.24, bottom, 0.73, 0.9 - bottom))
        for row, (session, quantiles) in enumerate(view.launches):
            _plot_night_launch_strip(axes, row, quantiles, ACCENT if session.key in tonight else INK)
        labels = [f"{session.started_at:%d %b, %H:%M}" for session, _ in view.launches]
        axes.set_yticks(range(len(labels)), labels, fontsize=9)
        axes.set_ylim(-0.6, len(labels) - 0.4)
        values = [
            value
            for _, quantiles in view.launches
            for launch in quantiles
            for value in (launch[0], launch[4])
        ]
        low, high = _night_trend_plot_limits(values)
        budget_ms = view.last.budget_ms
        if low < budget_ms < high * BUDGET_IN_SIGHT:
            axes.axvline(budget_ms, color=BAD, linestyle="--", linewidth=1.2)
            high = max(high, budget_ms * 1.05)
        axes.set_xlim(low, high)
        axes.set_xlabel("ms per call")

    return plot_svg(f"launches-{view.line.id}", height, draw)


def _plot_night_launch_strip(
    axes: Axes, row: int, quantiles: Sequence[tuple[float, ...]], colour: str
) -> None:
    for index, (p5, p25, p50, p75, p95) in enumerate(quantiles):
        y = row + 0.6 * ((index + 0.5) / len(quantiles) - 0.5)
        axes.plot((p5, p95), (y, y), color=colour, linewidth=0.8)
        axes.plot((p25, p75), (y, y), color=colour, linewidth=3, alpha=0.5, solid_capstyle="butt")
        axes.plot((p50,), (y,), marker="o", markersize=2.5, color=colour)
