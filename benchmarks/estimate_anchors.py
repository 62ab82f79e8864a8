"""Print what one measurement of a phone does to later estimates. `benchmarks/estimate.py` is the program.

Published rows stand for measurements: those of a runtime, core or chip that the fit has not seen, predicted
by the costs of PyTorch Mobile on a Pixel 4, without their own model.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import estimate_fit, estimate_rows
from benchmarks.estimate_fit import Subject
from benchmarks.estimate_intervals import (
    CROSS_RUNTIME,
    FOLDS,
    interval_of_misses,
    wider_interval,
)
from benchmarks.estimate_rows import Row
from exporter.estimate import anchors
from exporter.estimate.anchors import Anchor
from exporter.estimate.latency_model import OTHER_CORE_FACTOR, SHARED_POWER, Work
from exporter.records import EstimatedLatency

Cell = tuple[str, str, str]
"""Runtime, phone and cores of published rows, as their files name them."""
KNOWN: Cell = ("torch", "pixel4", "1large")


@dataclass(frozen=True)
class Unseen:
    """Rows that a fit has not seen, and what its estimate of them says."""

    cell: Cell
    unlike: float = 1.0
    """The factor by which its interval is wider than that of the fit's own rows."""
    slowed: float = 1.0
    """The rows are made longer by this."""


UNSEEN: Mapping[str, Unseen] = {
    "the same runtime, phone and core": Unseen(KNOWN),
    "another runtime: TensorFlow Lite": Unseen(("tflite", "pixel4", "1large"), CROSS_RUNTIME),
    "another chip: a Galaxy S10": Unseen(("torch", "s10", "1large"), OTHER_CORE_FACTOR),
    "a phone that is half as fast": Unseen(KNOWN, slowed=2.0),
    "another runtime on it": Unseen(("tflite", "pixel4", "1large"), CROSS_RUNTIME, slowed=2.0),
}
"""What is estimated -> its rows. From the first there is nothing to learn."""
DRAWS, MANY = 100, 5


def print_anchors(paths: Sequence[Path], works: Mapping[str, Work]) -> None:
    """Print a Markdown table: errors and coverage without, with one, and with five measurements.

    Args:
        paths: The CSV files.
        works: Model -> what its network does, with its graph.
    """
    known = _published_latencies(paths, works, KNOWN)
    print("\n| what is estimated | n | without | held | 1 measurement | held | 5 | held |")
    print("|---|---|---|---|---|---|---|---|")
    if len(known) < FOLDS:
        return
    own = interval_of_misses([math.log(ratio) for ratio in _ratios_to_predictions(known, known, works)])
    for name, unseen in UNSEEN.items():
        rows = _published_latencies(paths, works, unseen.cell)
        if len(rows) >= FOLDS:
            ratios = [unseen.slowed * ratio for ratio in _ratios_to_predictions(known, rows, works)]
            factor = wider_interval(own, unseen.unlike).factor
            results = (_anchored(ratios, factor, unseen.unlike, count) for count in (0, 1, MANY))
            cells = " | ".join(f"{error:.0%} | {held:.0%}" for error, held in results)
            print(f"| {name} | {len(ratios)} | {cells} |")
    print()


def _published_latencies(paths: Sequence[Path], works: Mapping[str, Work], cell: Cell) -> dict[str, float]:
    """Return model -> published milliseconds of a cell, where the graph is known."""
    runtime, phone, cores = cell
    published = estimate_rows.pixel_latencies_of_runtime(paths, runtime, "fp32", phone)
    return {
        model: by_cores[cores]
        for model, by_cores in published.items()
        if cores in by_cores and model in works and works[model].graph
    }


def _ratios_to_predictions(
    known: Mapping[str, float], rows: Mapping[str, float], works: Mapping[str, Work]
) -> list[float]:
    """Return published / predicted of each row, by costs of the known cell that never saw its model."""
    models = sorted(rows)
    ratios = []
    for fold in range(FOLDS):
        out = models[fold::FOLDS]
        rest = [_subject(model, ms, works) for model, ms in known.items() if model not in out]
        fit = estimate_fit.fit_runtime(rest, 1.0)
        subjects = [_subject(model, rows[model], works) for model in out]
        ratios += [s.row.latency_ms / estimate_fit.predicted_ms(s, fit, "operators") for s in subjects]
    return ratios


def _subject(model: str, latency_ms: float, works: Mapping[str, Work]) -> Subject:
    return Subject(Row("qed-usc", "torchscript", model, "fp32", 1, latency_ms), works[model])


def _anchored(ratios: Sequence[float], factor: float, unlike: float, count: int) -> tuple[float, float]:
    """Return the mean error and the coverage of the other rows' estimates, after some were measured.

    Args:
        ratios: Published / estimated.
        factor: The interval of an estimate.
        unlike: How much of it is of another chip or runtime.
        count: How many rows are measured.
    """
    draw = random.Random(0)
    estimate = EstimatedLatency(1, 1.0, 1 / factor, factor, 0.9, "graph", shared=unlike**SHARED_POWER)
    errors, held = [], []
    for _ in range(DRAWS):
        chosen = draw.sample(range(len(ratios)), count)
        known = [Anchor("soc", "phone", "runtime", "fp32", 1, str(index), ratios[index]) for index in chosen]
        corrected = anchors.anchor_estimate(estimate, known, "soc", "runtime", "fp32")
        others = [ratio for index, ratio in enumerate(ratios) if index not in chosen]
        errors += [abs(corrected.p50_ms / ratio - 1) for ratio in others]
        held += [corrected.low_ms <= ratio <= corrected.high_ms for ratio in others]
    return statistics.mean(errors), statistics.mean(held)
