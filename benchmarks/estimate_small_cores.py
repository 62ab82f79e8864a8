"""Fit how much longer a small core takes, by class, and judge it. `benchmarks/estimate.py` is the program.

The rows are those of a Pixel 4, whose chip has the small cores of a Snapdragon 865. Each network was
published on the fastest core and on a Cortex-A55, in PyTorch Mobile and in TensorFlow Lite. Its costs on the
fastest core, divided into arithmetic and all the rest by the graph, times a factor each, give those on the
small one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import optimize

from benchmarks import estimate_fit, estimate_intervals, estimate_rows
from benchmarks.estimate_fit import MHZ, Subject
from benchmarks.estimate_intervals import FOLDS, ONE_SOURCE
from benchmarks.estimate_rows import A77_TO_A76, Row
from exporter.estimate import latency_model
from exporter.estimate.latency_model import Work
from exporter.estimate.parameters import SmallCore

CORE, SMALL_MHZ = "Cortex-A55", 1785
"""The Pixel 4's small core and its clock."""
LEAST_ROWS = 20
RUNTIMES = {"torch": "torchscript", "tflite": "tflite"}
"""The published files' name of a runtime -> that of its form of costs."""
SOURCES: Mapping[str, tuple[str, ...]] = {
    "torchscript fp32": ("torch fp32",),
    "onnxruntime fp32": ("torch fp32", "tflite fp32"),
    "executorch fp32": ("torch fp32", "tflite fp32"),
    "onnxruntime int8": ("tflite int8",),
    "executorch int8": ("tflite int8",),
}
"""Fit -> the published runtimes whose small core it takes. PyTorch Mobile's int8 kernels of these rows have
no dot products, so that they tell nothing of an 865."""


@dataclass(frozen=True)
class SmallRow:
    """A network's published latencies on a fast and on a small core."""

    model: str
    runtime: str
    """"torch" or "tflite"."""
    arithmetic: float
    """Million cycles on the reference core, by the costs that the fast core's rows give."""
    others: float
    fast_ms: float
    """Published on the fast core, as if it were the reference core."""
    small_ms: float

    @property
    def cycles(self) -> float:
        """Million cycles that were published on the small core."""
        return self.small_ms * SMALL_MHZ / 1000

    @property
    def own_miss(self) -> float:
        """The logarithm of published / calculated on the fast core."""
        return math.log(self.fast_ms * MHZ / 1000 / (self.arithmetic + self.others))


def fitted_small_cores(paths: Sequence[Path], works: Mapping[str, Work]) -> dict[str, SmallCore]:
    """Print how well small cores are predicted, and return name of a fit -> what it knows of the small core.

    Args:
        paths: The CSV files.
        works: Model -> what its network does, with its graph.
    """
    rows = {
        f"{runtime} {precision}": _small_rows(paths, works, runtime, precision)
        for runtime in ("torch", "tflite")
        for precision in ("fp32", "int8")
    }
    print("\n| on a Cortex-A55 | n | arithmetic | others | mean error | FLOPs only | interval |")
    print("|---|---|---|---|---|---|---|")
    fitted = {}
    for name, sources in SOURCES.items():
        some = [row for source in sources for row in rows[source]]
        if len(some) >= LEAST_ROWS:
            # One runtime's rows that stand for another's tell nothing of how far runtimes differ.
            foreign = len(sources) == 1 and not name.startswith("torchscript")
            fitted[name] = _fitted(some, ONE_SOURCE if foreign else 1.0)
            _print_small_core(name, fitted[name], some, works)
    print()
    return fitted


def _small_rows(
    paths: Sequence[Path], works: Mapping[str, Work], runtime: str, precision: str
) -> list[SmallRow]:
    """Return the rows of one runtime and precision whose graph is known."""
    cells = estimate_rows.pixel_latencies_of_runtime(paths, runtime, precision)
    both = {
        model: cell
        for model, cell in cells.items()
        if {"1large", "1small"} <= set(cell) and model in works and works[model].graph
    }
    subjects = [
        Subject(Row("qed-usc", RUNTIMES[runtime], model, precision, 1, ms), works[model])
        for model, cell in both.items()
        for ms in [cell["1large"] / A77_TO_A76]
    ]
    if len(subjects) < LEAST_ROWS:
        return []
    fit = estimate_fit.fit_runtime(subjects, 1.0)
    rows = []
    for subject in subjects:
        parts, model = latency_model.latency_model_parts(subject.work, fit), subject.row.model
        others = sum(parts.values()) - parts["vectors"]
        small_ms = both[model]["1small"]
        rows.append(SmallRow(model, runtime, parts["vectors"], others, subject.row.latency_ms, small_ms))
    return rows


def _factors(rows: Sequence[SmallRow]) -> tuple[float, float]:
    """Return the factors of arithmetic and of the rest, by nonnegative least squares of relative errors."""
    matrix = np.array([(row.arithmetic / row.cycles, row.others / row.cycles) for row in rows])
    arithmetic, others = optimize.nnls(matrix, np.ones(len(rows)))[0]
    return float(arithmetic), float(others)


def _left_out(rows: Sequence[SmallRow]) -> Iterator[tuple[SmallRow, float]]:
    """Return every row with its prediction in milliseconds, by factors that never saw its model."""
    models = sorted({row.model for row in rows})
    for fold in range(FOLDS):
        out = set(models[fold::FOLDS])
        arithmetic, others = _factors([row for row in rows if row.model not in out])
        for row in (row for row in rows if row.model in out):
            yield row, (row.arithmetic * arithmetic + row.others * others) * 1000 / SMALL_MHZ


def _fitted(rows: Sequence[SmallRow], least: float) -> SmallCore:
    """Fit the factors; the interval is that of their own misses, beyond those on the fast core."""
    misses = [math.log(row.small_ms / ms) - row.own_miss for row, ms in _left_out(rows)]
    spread = estimate_intervals.interval_of_misses(misses)
    return SmallCore(*_factors(rows), replace(spread, factor=max(spread.factor, least)))


def _print_small_core(
    name: str, small: SmallCore, rows: Sequence[SmallRow], works: Mapping[str, Work]
) -> None:
    pairs = list(_left_out(rows))
    error = statistics.mean(abs(ms / row.small_ms - 1) for row, ms in pairs)
    ratios = [row.small_ms / works[row.model].flops for row in rows]
    by_flops = [abs(statistics.median(ratios) / ratio - 1) for ratio in ratios]
    print(
        f"| {name} | {len(rows)} | {small.arithmetic:.2f} | {small.others:.2f} | {error:.0%} "
        f"| {statistics.mean(by_flops):.0%} | {small.spread.factor:.2f} |"
    )
