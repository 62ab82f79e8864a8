"""Print which instruction costs were tried. `benchmarks/estimate.py` is the program."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from benchmarks import estimate_fit
from benchmarks.estimate_fit import LEAST_VECTOR, MHZ, Subject
from benchmarks.estimate_intervals import SHORT_OPERATOR_MS
from exporter.estimate.instruction_counts import Counts

Missed = Mapping[str, int]
"""Cache -> the bytes of a call that come from beyond it."""
Columns = Callable[[Counts, Missed], list[float]]


def _decoded(counts: Counts) -> float:
    return counts.scalar + counts.branch + counts.load + counts.store


def _with_misses(level: str) -> Columns:
    return lambda c, missed: [c.fma, c.simd, _decoded(c), missed[level]]


TRIED: Mapping[str, tuple[Columns, Sequence[float]]] = {
    "multiply-adds, other vector instructions, all others alike (used)": (
        lambda c, missed: [c.fma, c.simd, _decoded(c)],
        (LEAST_VECTOR, LEAST_VECTOR, 0),
    ),
    **{
        f"the same, and bytes from beyond {level} by reuse distances": (
            _with_misses(f"missed_{level}"),
            (LEAST_VECTOR, LEAST_VECTOR, 0, 0),
        )
        for level in ("L1", "L2", "L3")
    },
    "the same, but loads with a cost of their own": (
        lambda c, missed: [c.fma, c.simd, c.scalar + c.branch, c.load],
        (LEAST_VECTOR, LEAST_VECTOR, 0, 0),
    ),
    "multiply-adds, loads, stores, all others alike (before)": (
        lambda c, missed: [c.fma, c.load, c.store, c.simd + c.scalar + c.branch],
        (0, 0, 0, 0),
    ),
}
"""What is tried -> its columns, and each one's least cycles."""


def print_tried_costs(subjects: Sequence[Subject], missed: Mapping[str, Missed]) -> None:
    """Print a Markdown table: the mean error of one-thread rows by fits that never saw their model.

    Args:
        subjects: The rows of ONNX Runtime in float32.
        missed: Model -> what comes from beyond each cache.
    """
    alone = [s for s in subjects if s.row.threads == 1 and s.work.counts and s.row.model in missed]
    print("\n| costs | whole models | operators | operators under 0.5 ms | all rows |\n|---|---|---|---|---|")
    for name, (columns, least) in TRIED.items():
        errors = _tried_errors(alone, missed, columns, least)
        means = [f"{statistics.mean(errors[kind]):.1%}" for kind in ("whole", "operators", "short")]
        every = statistics.mean(error for kind in errors.values() for error in kind)
        print(f"| {name} | {' | '.join(means)} | {every:.1%} |")
    print()


def _tried_errors(
    subjects: Sequence[Subject], missed: Mapping[str, Missed], columns: Columns, least: Sequence[float]
) -> dict[str, list[float]]:
    rows = [columns(s.work.counts, missed[s.row.model]) for s in subjects if s.work.counts]
    errors: dict[str, list[float]] = {"whole": [], "operators": [], "short": []}
    for own, row in zip(subjects, rows, strict=True):
        others = [index for index, s in enumerate(subjects) if s.row.model != own.row.model]
        *cycles, call = estimate_fit.fitted_costs(
            [rows[index] for index in others], [subjects[index] for index in others], least
        )
        predicted = float(np.dot(cycles, row)) / (MHZ * 1e3) + call
        long = own.row.latency_ms >= SHORT_OPERATOR_MS
        kind = "whole" if own.row.whole else "operators" if long else "short"
        errors[kind].append(abs(predicted / own.row.latency_ms - 1))
    return errors


SPEEDUPS = (2.0, 2.4, 2.8, 3.2, 3.6, 4.0)
"""The speedups of multiply-adds and loads that are tried; an 865's four fastest cores allow 3.55."""


def print_tried_speedups(subjects: Sequence[Subject]) -> None:
    """Print a Markdown table: the mean error of whole models on four threads, whatever the speedup is.

    Args:
        subjects: The rows of ONNX Runtime in float32.
    """
    four = [s for s in subjects if s.row.threads == 4 and s.row.whole]
    names = [f"{speedup:g}" for speedup in SPEEDUPS]
    print(f"\n| speedup | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    means = [statistics.mean(_speedup_error(s, subjects, speedup) for s in four) for speedup in SPEEDUPS]
    print(f"| mean error | {' | '.join(f'{mean:.0%}' for mean in means)} |\n")


def _speedup_error(own: Subject, subjects: Sequence[Subject], speedup: float) -> float:
    """Return a row's error by costs that never saw its model, and a speedup that saw nothing."""
    rest = [s for s in subjects if s.row.model != own.row.model and s.row.threads == 1]
    fit = estimate_fit.fit_runtime(rest, speedup)
    scaling = replace(fit.scaling, speedup=speedup, kernel_ms=estimate_fit.KERNEL_MS)
    return abs(estimate_fit.predicted_ms(own, replace(fit, scaling=scaling)) / own.row.latency_ms - 1)


def print_faster_rows(subjects: Sequence[Subject], speedup: float) -> None:
    """Print the mean error of whole models by fits that see the fastest row of each cell only.

    Args:
        subjects: The rows of ONNX Runtime in float32.
        speedup: The published speedup of four threads.
    """
    fastest = [s for s in subjects if s.row.latency_ms == _least_of_cell(s, subjects)]
    errors = []
    for own in (s for s in subjects if s.row.whole):
        fit = estimate_fit.fit_runtime([s for s in fastest if s.row.model != own.row.model], speedup)
        errors.append(abs(estimate_fit.predicted_ms(own, fit) / own.row.latency_ms - 1))
    print(f"{statistics.mean(errors):.1%}\n")


def _least_of_cell(own: Subject, subjects: Sequence[Subject]) -> float:
    """Return the fastest published latency of a row's model and number of threads."""
    cell = (own.row.model, own.row.threads)
    return min(s.row.latency_ms for s in subjects if (s.row.model, s.row.threads) == cell)
