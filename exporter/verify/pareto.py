"""Which points of a mixed-precision search no other point beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from exporter.records import MixedPoint


def series(points: Sequence[MixedPoint]) -> Mapping[str, list[MixedPoint]]:
    """Runtime ("executorch-xnnpack") -> its points, fastest first."""
    found: dict[str, list[MixedPoint]] = {}
    for point in sorted(points, key=lambda point: (point.p50_ms, -point.sqnr_db)):
        found.setdefault(point.variant.rpartition("-")[0] or point.variant, []).append(point)
    return dict(sorted(found.items()))


def on_front(points: Sequence[MixedPoint]) -> list[MixedPoint]:
    """Those of one runtime that no other beats in latency, SQNR and size together, fastest first."""
    goods = {point: (-point.p50_ms, point.sqnr_db, -point.size_bytes) for point in points}
    best = [point for point in goods if not any(_beats(other, goods[point]) for other in goods.values())]
    return sorted(best, key=lambda point: (point.p50_ms, -point.sqnr_db))


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Better in one, worse in none."""
    return one != other and all(mine >= theirs for mine, theirs in zip(one, other, strict=True))
