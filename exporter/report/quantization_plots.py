"""Plot the cost of quantisation: operator by operator, and the front of a mixed-precision search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from exporter.records import MixedPoint, OperatorCost
from exporter.report import plots
from exporter.report.plots import ACCENT, FAINT, INK, STATUS_COLOURS
from exporter.verify.pareto import pareto_front, pareto_series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = 6
"""How many of the costliest operators the plot names."""
HEADROOM_DB = 5.0
"""Operators that cost nothing (infinite SQNR) are drawn this far above the others."""
SERIES = ((ACCENT, "o"), (STATUS_COLOURS["not_run"], "s"), (STATUS_COLOURS["error"], "^"), (INK, "D"))
"""Colour and marker of the first, second, … runtime."""


def costliest_for_quantization_plot(costs: Sequence[OperatorCost]) -> list[OperatorCost]:
    """Sort operators by noise, most first; those that are not a number come before all others."""
    return sorted(costs, key=lambda cost: (not math.isnan(cost.noise), -cost.noise))


def plot_quantization_by_operator(costs: Sequence[OperatorCost]) -> str | None:
    """Plot operators in running order against the SQNR that each alone leaves; None when none is finite."""
    finite = [cost.sqnr_db for cost in costs if math.isfinite(cost.sqnr_db)]
    if not finite:
        return None
    top = max(finite) + HEADROOM_DB
    points = [
        (cost, place, min(cost.sqnr_db, top))
        for place, cost in enumerate(costs, 1)
        if cost.sqnr_db > -math.inf  # neither -inf nor NaN
    ]
    worst = costliest_for_quantization_plot([cost for cost, _, _ in points])[:NAMED]

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.12, 0.16, 0.5, 0.8))
        axes.set(xlabel="operator, in running order", ylabel="SQNR with only it in int8, dB")
        for cost, place, db in points:
            colour = STATUS_COLOURS["failed"] if cost in worst else ACCENT
            axes.plot((place, place), (db, top), color=FAINT, linewidth=0.8, alpha=0.5, zorder=1)
            marker = "o" if db < top else "^"
            axes.plot((place,), (db,), marker=marker, markersize=4, color=colour, clip_on=False)
        axes.set_ylim(top=top)
        axes.margins(x=0.03)
        labels = [
            (_short_layer_of_quantization_plot(cost.where), place, db)
            for cost, place, db in points
            if cost in worst
        ]
        plots.name_plotted_points(axes, labels, None)

    return plots.plot_svg("sensitivity", 3.2, draw)


def _short_layer_of_quantization_plot(path: str) -> str:
    """Shorten a module path to its end, which distinguishes it from others."""
    return plots.literal_plot_text(path if len(path) <= 26 else "…" + path[-25:])


def plot_quantization_mixes(points: Sequence[MixedPoint]) -> str | None:
    """Plot latency against SQNR, size as area, with each runtime's front; None if nothing is finite."""
    shown = pareto_series([point for point in points if math.isfinite(point.sqnr_db)])
    if not shown:
        return None
    largest = max(point.size_bytes for point in points) or 1

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.12, 0.16, 0.85, 0.72))
        axes.set(xlabel="p50, ms per call", ylabel="SQNR, dB")
        for index, (name, own) in enumerate(shown.items()):
            colour, marker = SERIES[index % len(SERIES)]
            front = pareto_front(own)
            axes.plot([p.p50_ms for p in front], [p.sqnr_db for p in front], color=colour, linewidth=1)
            axes.plot([], [], color=colour, marker=marker, label=name)
            for point in own:
                _mark_quantization_plot_point(
                    axes, point, colour, marker, 25 + 90 * (point.size_bytes / largest) ** 2
                )
                _name_quantization_plot_point(axes, point, left=index % 2 == 1)
        axes.margins(0.12)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False, fontsize=9,
                    borderaxespad=0.2)  # fmt: skip

    return plots.plot_svg("mixed", 3.4, draw)


def _mark_quantization_plot_point(
    axes: Axes, point: MixedPoint, colour: str, marker: str, area: float
) -> None:
    """Draw a mark: filled when it passed, hollow when not; ringed when it was emitted."""
    x, y = point.p50_ms, point.sqnr_db
    face = colour if point.passed else "none"
    axes.scatter(x, y, s=area, marker=marker, facecolor=face, edgecolor=colour, linewidth=1.2, zorder=3)
    if point.chosen:
        ring = STATUS_COLOURS["passed"]
        axes.scatter(x, y, s=area * 2.6, marker="o", facecolor="none", edgecolor=ring, linewidth=2, zorder=4)


def _name_quantization_plot_point(axes: Axes, point: MixedPoint, *, left: bool) -> None:
    """Write how many operators a point keeps in float; left of the point for every second runtime."""
    words = f"+{len(point.float_ops)}" if point.float_ops else "int8"
    axes.annotate(
        f"{words}, chosen" if point.chosen else words,
        (point.p50_ms, point.sqnr_db),
        xytext=(-9, 5) if left else (9, -10),
        textcoords="offset points",
        ha="right" if left else "left",
        fontsize=8,
        color=STATUS_COLOURS["passed"] if point.chosen else INK,
    )
