"""Fit the costs of instruction classes to published latencies. `benchmarks/estimate.py` is the program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize

from benchmarks.estimate_rows import Row
from exporter.config.targets import get_target
from exporter.estimate import latency_model
from exporter.estimate.instruction_counts import Counts
from exporter.estimate.parameters import Fit, Parameters, Scaling, Spread
from exporter.records import Precision

REFERENCE = get_target("snapdragon865")
CORE, MHZ = "Cortex-A77", 2842
SHORT_MS = 0.3
"""Rows below weigh as if they were so long: they are noisy."""
COVERAGE = 0.9
CROSS_RUNTIME = 1.41
"""One runtime's latency predicted from another's on the same phone misses by 41 % in the mean."""
ONE_SOURCE = 1.25
"""The least factor of an interval whose rows come from one source: sources differ by 8 % in one cell, and
each has its own harness. A judgement, not a fit."""
PRIOR = 0.2
"""How loosely a runtime's speedup is tied to the published one of other runtimes (deviation of the log)."""
KERNEL_MS, KERNEL_PRIOR = 0.01, 1.0
"""What starting threads costs a kernel in other runtimes (0.5 to 0.7 ms a network), and how loosely."""
LEAST_OTHER = 0.1
"""Cycles of an int8 network's other instructions, at least: beside dot products the rows show none at all,
but a network of nothing else takes time."""


@dataclass(frozen=True)
class Subject:
    """A row, and what its network executes."""

    row: Row
    work: latency_model.Work


def fit_runtime(subjects: Sequence[Subject], speedup: float, caveat: str = "") -> Fit:
    """Fit one runtime and precision; the intervals are set later.

    Args:
        subjects: Its rows.
        speedup: The published median speedup of four threads.
        caveat: What the rows cannot tell.
    """
    counted = [s for s in subjects if s.work.counts]
    alone = [s for s in counted if s.row.threads == 1]
    if alone:
        cycles, call_ms = _costs(alone, 1.0)
        scaling = _scaling([s for s in counted if s.row.threads == 4], cycles, call_ms, speedup)
    else:
        cycles, call_ms = _costs(counted, speedup)
        scaling = Scaling(speedup, speedup, 0.0)
    whole = [s.row.latency_ms for s in subjects if s.row.whole] or [0.0]
    others = [_other_share(s.work, cycles) for s in counted if s.row.whole]
    seen = (min(whole), max(whole))
    graph = _graph_costs(subjects, scaling, call_ms)
    return Fit(cycles, call_ms, scaling, {}, graph, {}, seen, max(others, default=1.0), caveat)


def _other_share(work: latency_model.Work, cycles: Mapping[str, float]) -> float:
    """Return the share of other instructions in a model's time."""
    counts = work.counts
    assert counts is not None
    others = (counts.simd + counts.scalar + counts.branch) * cycles["other"]
    return others / (MHZ * 1e3) / _one_thread_ms(work, cycles)


def _costs(subjects: Sequence[Subject], speedup: float) -> tuple[dict[str, float], float]:
    """Fit nonnegative cycles of each class, and what a call costs; relative errors count."""
    if not subjects:
        return dict.fromkeys(("fma", "dot", "other", "load", "store"), 0.0), 0.0
    narrow = any(s.work.counts and s.work.counts.dot for s in subjects)
    columns = [_columns(s.work.counts, narrow) for s in subjects if s.work.counts]
    latencies = np.array([s.row.latency_ms for s in subjects])
    weights = 1 / np.maximum(latencies, SHORT_MS)
    matrix = np.hstack([np.array(columns) / (MHZ * 1e3) / speedup, np.ones((len(subjects), 1))])
    least = [0.0] * matrix.shape[1]
    if narrow:
        least[1] = LEAST_OTHER
    bounds = (least, [np.inf] * len(least))
    exact = optimize.lsq_linear(matrix * weights[:, None], latencies * weights, bounds).x
    solved = [round(float(value), 6) for value in exact]
    if narrow:
        dot, other, call = solved
        return {"fma": dot, "dot": dot, "other": other, "load": other, "store": other}, call
    fma, load, store, other, call = solved
    return {"fma": fma, "dot": fma, "other": other, "load": load, "store": store}, call


def _columns(counts: Counts, narrow: bool) -> list[float]:
    others = counts.simd + counts.scalar + counts.branch
    if narrow:
        return [counts.dot + 2 * counts.matrix + counts.fma, others + counts.load + counts.store]
    return [counts.fma, counts.load, counts.store, others]


def _scaling(
    subjects: Sequence[Subject], cycles: Mapping[str, float], call_ms: float, speedup: float
) -> Scaling:
    """Fit the speedup and each kernel's cost of starting threads; both stay near those of other runtimes.

    Only multiply-adds and their loads are distributed: with all instructions distributed, the rows that were
    left out are missed by a third more (`python -m benchmarks.estimate`).
    """
    if not subjects:
        return Scaling(speedup, 1.0, 0.0)
    others = np.array([_one_thread_ms(s.work, {**cycles, **NOTHING_BUT_OTHERS}) for s in subjects])
    kernels = np.array([s.work.kernels for s in subjects])
    latencies = np.array([s.row.latency_ms for s in subjects])
    shared = np.array([_one_thread_ms(s.work, cycles) for s in subjects]) - others

    def misses(values: np.ndarray) -> np.ndarray:
        predicted = shared / math.exp(values[0]) + others + math.exp(values[1]) * kernels + call_ms
        ties = [(values[0] - math.log(speedup)) / PRIOR, (values[1] - math.log(KERNEL_MS)) / KERNEL_PRIOR]
        return np.append(np.log(predicted / latencies), ties)

    solved = optimize.least_squares(misses, [math.log(speedup), math.log(KERNEL_MS)]).x
    return Scaling(float(math.exp(solved[0])), 1.0, float(math.exp(solved[1])))


NOTHING_BUT_OTHERS = {"fma": 0.0, "dot": 0.0, "load": 0.0, "store": 0.0}


def _one_thread_ms(work: latency_model.Work, cycles: Mapping[str, float]) -> float:
    counts = work.counts
    assert counts is not None
    others = counts.simd + counts.scalar + counts.branch
    sums = {
        "fma": counts.fma, "dot": counts.dot + 2 * counts.matrix, "other": others, "load": counts.load,
        "store": counts.store,
    }  # fmt: skip
    return sum(cycles[name] * value for name, value in sums.items()) / (MHZ * 1e3)


def _graph_costs(subjects: Sequence[Subject], scaling: Scaling, call_ms: float) -> dict[str, float]:
    """Fit cycles of a FLOP, of a byte of weights and of a kernel, for machines that cannot count.

    A kernel costs the instructions that stay on one thread; where all are distributed, it costs nothing.
    """
    some = [s for s in subjects if s.work.flops]
    factors = np.array([1.0 if s.row.threads == 1 else 1 / scaling.speedup for s in some])
    sizes = np.array([[s.work.flops, s.work.weight_bytes, s.work.kernels] for s in some], float)
    matrix = sizes / (MHZ * 1e3)
    matrix[:, :2] *= factors[:, None]
    matrix[:, 2] *= scaling.other_speedup == 1
    latencies = np.array([max(s.row.latency_ms - call_ms, 0.0) for s in some])
    weights = 1 / np.maximum(latencies, SHORT_MS)
    (flop, byte, kernel), _ = optimize.nnls(matrix * weights[:, None], latencies * weights)
    return {"flop": float(flop), "byte": float(byte), "kernel": float(kernel)}


def predicted_ms(subject: Subject, fit: Fit, counted: bool = True) -> float:
    """Predict a row with a fit, by its counts or by its graph."""
    work = (
        subject.work
        if counted
        else latency_model.Work(None, subject.work.flops, subject.work.weight_bytes, subject.work.kernels)
    )
    blank = {str(threads): Spread(1.0, 0.0, 0) for threads in (1, 4)}
    whole = replace(fit, spread=blank, graph_spread=blank)
    precision: Precision = "int8" if subject.row.precision == "int8" else "fp32"
    parameters = Parameters(CORE, MHZ, {}, ())
    return latency_model.estimate_latency(
        work, REFERENCE, parameters, whole, precision, subject.row.threads
    ).p50_ms


def conformal_factor(misses: Sequence[float], coverage: float = COVERAGE) -> Spread:
    """Return the interval that holds a new case in `coverage` of cases, by split conformal prediction.

    Args:
        misses: Logarithms of published / predicted, each predicted without its own model.
        coverage: What is asked for; with few rows the largest miss counts, and promises less.
    """
    sizes = sorted(abs(miss) for miss in misses)
    rank = math.ceil((len(sizes) + 1) * coverage)
    if rank <= len(sizes):
        return Spread(math.exp(sizes[rank - 1]), coverage, len(sizes))
    return Spread(math.exp(sizes[-1]), len(sizes) / (len(sizes) + 1), len(sizes))


def wider(spread: Spread, more: float) -> Spread:
    """Return an interval that carries another, independent miss too."""
    factor = math.exp(math.hypot(math.log(spread.factor), math.log(more)))
    return Spread(factor, spread.coverage, spread.rows)
