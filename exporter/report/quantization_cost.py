"""Describe the cost of quantisation in words and rows, for the page and the terminal."""

from __future__ import annotations

import math
from dataclasses import dataclass

from exporter.records import Artifact, MixedPoint, OperatorCost, Report
from exporter.report import quantization_plots, text
from exporter.verify import pareto

SHOWN = 12
"""How many operators of the table are shown; the rest is folded away."""
NAMED = 3
"""How many layers the terminal names."""
FINE_DB = 25.0
"""An int8 artifact that passed with at least this SQNR needs no hint."""
LAYERS = 3
"""How many layers of a mixed artifact are named; the rest is folded away."""


@dataclass(frozen=True)
class Cost:
    where: str
    kind: str
    sqnr: str


@dataclass(frozen=True)
class Point:
    """One row of the search's table; every cell is text."""

    variant: str
    css: str
    status: str
    chosen: bool
    layers: str
    more: str
    """All layers, when `layers` does not name them all."""
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class View:
    """Both sections. A plot without a finite figure is empty; a section without entries is left out."""

    costs: tuple[Cost, ...]
    other_costs: tuple[Cost, ...]
    sensitivity: str
    points: tuple[Point, ...]
    front: str


def quantization_cost_view(report: Report) -> View:
    ordered = [
        _quantization_cost_row(cost)
        for cost in quantization_plots.costliest_for_quantization_plot(report.operator_costs)
    ]
    layers = {cost.name: cost.where for cost in report.operator_costs}
    runtimes = pareto.pareto_series(report.mixed_points)
    labelled = any(point.drop is not None for point in report.mixed_points)
    return View(
        costs=tuple(ordered[:SHOWN]),
        other_costs=tuple(ordered[SHOWN:]),
        sensitivity=quantization_plots.plot_quantization_by_operator(report.operator_costs) or "",
        points=tuple(
            _quantization_cost_point(point, layers, labelled) for own in runtimes.values() for point in own
        ),
        front=quantization_plots.plot_quantization_mixes(report.mixed_points) or "",
    )


def _quantization_cost_row(cost: OperatorCost) -> Cost:
    return Cost(cost.where, cost.kind, text.decibels_text(cost.sqnr_db))


def _quantization_cost_point(point: MixedPoint, layers: dict[str, str], labelled: bool) -> Point:
    in_float = list(dict.fromkeys(layers.get(name, name) for name in point.float_ops))
    return Point(
        variant=point.variant,
        # The search's own limits: an int8 artifact that does not meet them may have passed.
        css="passed" if point.passed else "not-run",
        status="met" if point.passed else "not met",
        chosen=point.chosen,
        layers=", ".join(in_float[:LAYERS])
        + (f" and {len(in_float) - LAYERS} more" if len(in_float) > LAYERS else ""),
        more=", ".join(in_float) if len(in_float) > LAYERS else "",
        cells=(
            ("In float", str(len(point.float_ops))),
            ("SQNR", text.decibels_text(point.sqnr_db)),
            ("Agreement", text.percent_text(point.agreement)),
            *([("Top-1 lost", text.points_text(point.drop))] * labelled),
            ("p50", text.milliseconds_text(point.p50_ms)),
            ("Size", text.scaled_text(point.size_bytes, "B")),
        ),
    )


def quantization_cost_hint(report: Report) -> str:
    """Say where int8 loses most, when it failed or nearly did; else return an empty string."""
    if not any(_poor_quantization_cost(artifact) for artifact in report.artifacts):
        return ""
    worst: dict[str, str] = {}
    for cost in quantization_plots.costliest_for_quantization_plot(report.operator_costs):
        if math.isfinite(cost.sqnr_db):
            worst.setdefault(cost.where, f"{cost.where} ({text.decibels_text(cost.sqnr_db)} alone)")
    return f"int8 loses most in {', '.join([*worst.values()][:NAMED])}." if worst else ""


def _poor_quantization_cost(artifact: Artifact) -> bool:
    comparison = artifact.verdict.comparison if artifact.verdict else None
    if artifact.variant.precision != "int8" or comparison is None:
        return False
    return artifact.status == "failed" or comparison.sqnr_db < FINE_DB
