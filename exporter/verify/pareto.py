"""Finds the points of a mixed-precision search that no other point beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from exporter.records import MixedPoint


def pareto_series(points: Sequence[MixedPoint]) -> Mapping[str, list[MixedPoint]]:
    """Return runtime ("executorch-xnnpack") -> its points, fastest first."""
    points_by_runtime: dict[str, list[MixedPoint]] = {}
    for point in sorted(points, key=lambda point: (point.p50_ms, -point.sqnr_db)):
        points_by_runtime.setdefault(point.variant.rpartition("-")[0] or point.variant, []).append(point)
    return dict(sorted(points_by_runtime.items()))


def pareto_front(points: Sequence[MixedPoint]) -> list[MixedPoint]:
    """Return the points of a runtime that no other beats in latency, SQNR and size, fastest first."""
    goods = {point: (-point.p50_ms, point.sqnr_db, -point.size_bytes) for point in points}
    best = [
        point
        for point in goods
        if not any(_beats_for_pareto(other, goods[point]) for other in goods.values())
    ]
    return sorted(best, key=lambda point: (point.p50_ms, -point.sqnr_db))


def _beats_for_pareto(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    """Tell whether the first is better in some figure and worse in none."""
    return first != second and all(mine >= theirs for mine, theirs in zip(first, second, strict=True))
