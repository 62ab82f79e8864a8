"""Predict published latencies without their own model or source, and by baselines beside.

`benchmarks/estimate.py` is the program.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import estimate_fit, estimate_intervals
from benchmarks.estimate_fit import Subject
from benchmarks.estimate_rows import Row


@dataclass(frozen=True)
class Judged:
    """A row with what it was predicted as by fits that had not seen it."""

    row: Row
    predicted_ms: float
    low_ms: float
    high_ms: float
    """The interval's ends, of the same fit."""
    flops_ms: float
    host_ms: float | None
    """The host's latency times the factor that fits the other rows best; None where it was not timed."""
    host_raw_ms: float | None = None
    basis: str = "counts"
    """What it was predicted from: one of `estimate_fit.BASES`."""

    @property
    def error(self) -> float:
        """The share by which the prediction is off."""
        return self.error_of(self.predicted_ms)

    @property
    def covered(self) -> bool:
        """Tell whether the interval holds the published latency."""
        return self.low_ms <= self.row.latency_ms <= self.high_ms

    def error_of(self, predicted_ms: float) -> float:
        """Return the share by which another prediction is off."""
        return abs(predicted_ms / self.row.latency_ms - 1)


def row_key(row: Row) -> str:
    """Return the key of a row's network among the counts."""
    return f"{row.model.removeprefix('op:')}|{row.precision}|{row.runtime}"


def judge_group(
    group: Sequence[Subject], speedup: float, hosts: Mapping[str, float], split: str, basis: str = "counts"
) -> list[Judged]:
    """Predict every row of one runtime and precision by fits without its model, or without its source.

    Args:
        group: The rows.
        speedup: The published speedup of four threads.
        hosts: A row's key -> its network's latency on this host.
        split: "model" or "source".
        basis: The best of `BASES` that may be used.
    """

    def part(subject: Subject) -> str:
        return subject.row.model if split == "model" else subject.row.source.split()[0]

    judged = []
    for value in dict.fromkeys(part(s) for s in group):
        rest = [s for s in group if part(s) != value]
        if len(rest) < 3:
            continue
        fit = estimate_intervals.fit_with_intervals(rest, speedup)
        flops = _one_factor(rest, lambda s: float(s.work.flops))
        host = _one_factor(rest, lambda s: hosts.get(row_key(s.row), 0.0))
        for s in (s for s in group if part(s) == value):
            host_ms = hosts.get(row_key(s.row))
            estimate = estimate_fit.estimated_row(s, fit, basis)
            judged.append(
                Judged(
                    s.row,
                    estimate.p50_ms,
                    estimate.low_ms,
                    estimate.high_ms,
                    flops(s.row.threads) * max(s.work.flops, 1),
                    host(s.row.threads) * host_ms if host_ms else None,
                    host_ms,
                    estimate_fit.best_basis(s.work),
                )
            )
    return judged


def _one_factor(rest: Sequence[Subject], size: Callable[[Subject], float]) -> Callable[[int], float]:
    """Return, for a number of threads, the factor from a size to a latency that fits the other rows best."""

    def factor(threads: int) -> float:
        same = [s for s in rest if s.row.threads == threads] or rest
        ratios = [math.log(s.row.latency_ms / size(s)) for s in same if size(s) > 0]
        return math.exp(statistics.median(ratios)) if ratios else 0.0

    return factor
