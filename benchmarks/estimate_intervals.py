"""Give a fit its intervals, from the misses of predictions that never saw their own model.

`benchmarks/estimate.py` is the program. A row that is judged is judged by the whole procedure, intervals
included, without any row of its model: what is printed as coverage is that of the intervals that users get.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks import estimate_fit
from benchmarks.estimate_fit import BASES, Subject
from exporter.estimate.parameters import Fit, Spread

COVERAGE = 0.9
CROSS_RUNTIME = 1.68
"""Nine of ten networks differ by at most this factor between TensorFlow Lite and PyTorch Mobile on a core
of a Pixel 4 (128 networks; `estimate_anchors.py` prints how many intervals hold with it)."""
ONE_SOURCE = 1.25
"""The least factor of an interval whose rows come from one source: sources differ by 8 % in one cell, and
each has its own harness. A judgement, not a fit."""
SPEEDUPS_DIFFER = 1.25
"""How much wider the interval is for a number of threads without rows. A judgement, not a fit."""
SHORT_OPERATOR_MS = 0.5
"""Single operators below are judged apart: their published latencies are mostly noise."""
FOLDS = 10
MOST_LEFT_OUT_ALONE = 40
"""If there are more models than this, a tenth of them is left out at a time."""


@dataclass(frozen=True)
class Miss:
    """How far a row's prediction was off that never saw its model."""

    subject: Subject
    basis: str
    """What it was predicted from: one of `BASES`."""
    log: float
    """The logarithm of published / predicted."""


def fit_with_intervals(subjects: Sequence[Subject], speedup: float, caveat: str = "") -> Fit:
    """Fit one runtime and precision, with an interval for each basis and number of threads.

    Args:
        subjects: Its rows.
        speedup: The published speedup of four threads.
        caveat: What the rows cannot tell.
    """
    fit = estimate_fit.fit_runtime(subjects, speedup, caveat)
    misses = tuple(left_out_misses(subjects, speedup))
    operators = _whole_misses(misses, "operators") or _interval_misses(misses, "operators")
    counted = _whole_misses(misses, "counts") or _interval_misses(misses, "counts") or operators
    least = 1.0 if len({s.row.source for s in subjects if s.row.whole}) > 1 else ONE_SOURCE
    spreads = []
    for logs in (counted, operators, _interval_misses(misses, "graph")):
        # What knows less is never more certain: each basis has at least the interval of the one before.
        spread = _at_least(interval_of_misses(logs), least)
        least = spread.factor
        spreads.append(_by_threads(spread, subjects))
    return replace(fit, spread=spreads[0], operators_spread=spreads[1], graph_spread=spreads[2])


def left_out_misses(subjects: Sequence[Subject], speedup: float) -> Iterator[Miss]:
    """Predict every row from all bases that it has, by a fit without its model."""
    for models in _parts_left_out(subjects):
        rest = [s for s in subjects if s.row.model not in models]
        if len(rest) < 2:
            continue
        fit = estimate_fit.fit_runtime(rest, speedup)
        for subject in (s for s in subjects if s.row.model in models):
            for basis in _bases_of_subject(subject):
                predicted = estimate_fit.predicted_ms(subject, fit, basis)
                if predicted > 0:
                    yield Miss(subject, basis, math.log(subject.row.latency_ms / predicted))


def _bases_of_subject(subject: Subject) -> tuple[str, ...]:
    has = {"counts": subject.work.counts, "operators": subject.work.graph, "graph": subject.work.flops}
    return tuple(basis for basis in BASES if has[basis])


def _parts_left_out(subjects: Sequence[Subject]) -> list[set[str]]:
    """Return the models that are left out together."""
    models = sorted({s.row.model for s in subjects})
    if len(models) <= MOST_LEFT_OUT_ALONE:
        return [{model} for model in models]
    return [set(models[fold::FOLDS]) for fold in range(FOLDS)]


def _whole_misses(misses: Sequence[Miss], basis: str) -> list[float]:
    """Return the misses of whole models."""
    return [miss.log for miss in misses if miss.basis == basis and miss.subject.row.whole]


def _interval_misses(misses: Sequence[Miss], basis: str) -> list[float]:
    """Return the misses of whole models and of operators that are not noise."""
    return [
        miss.log
        for miss in misses
        if miss.basis == basis
        and (miss.subject.row.whole or miss.subject.row.latency_ms >= SHORT_OPERATOR_MS)
    ]


def interval_of_misses(misses: Sequence[float], coverage: float = COVERAGE) -> Spread:
    """Return the interval that holds a new case in `coverage` of cases.

    With nine misses or more it is that of split conformal prediction, which assumes nothing but that the new
    case is like the others. Fewer cannot promise 90 % so: conformal intervals, CV+ and the jackknife+ are all
    infinite then. The interval is then Student's, for logarithms that are normal around zero, and not
    narrower than the largest miss.

    Args:
        misses: Logarithms of published / predicted, each predicted without its own model.
        coverage: What is promised.
    """
    from scipy import stats

    sizes = sorted(abs(miss) for miss in misses)
    if not sizes:
        return Spread(1.0, 0.0, 0)
    rank = math.ceil((len(sizes) + 1) * coverage)
    if rank <= len(sizes):
        return Spread(math.exp(sizes[rank - 1]), coverage, len(sizes))
    spread = math.sqrt(sum(size**2 for size in sizes) / len(sizes))
    student = float(stats.t.ppf((1 + coverage) / 2, len(sizes))) * spread
    return Spread(math.exp(max(student, sizes[-1])), coverage, len(sizes))


def _at_least(spread: Spread, factor: float) -> Spread:
    return replace(spread, factor=max(spread.factor, factor))


def _by_threads(spread: Spread, subjects: Sequence[Subject]) -> dict[str, Spread]:
    """Return the interval by threads; one without rows is wider by as much as published speedups differ."""
    seen = {s.row.threads for s in subjects if s.row.whole} or {s.row.threads for s in subjects}
    return {
        str(threads): spread if threads in seen else wider_interval(spread, SPEEDUPS_DIFFER)
        for threads in (1, 4)
    }


def wider_interval(spread: Spread, more: float) -> Spread:
    """Return an interval that carries another, independent miss too."""
    factor = math.exp(math.hypot(math.log(spread.factor), math.log(more)))
    return replace(spread, factor=factor)


def intervals_of_another_runtime(fit: Fit, caveat: str) -> Fit:
    """Return a fit for a runtime without rows: the intervals carry how far runtimes differ."""

    def wide(spreads: Mapping[str, Spread]) -> dict[str, Spread]:
        return {key: wider_interval(spread, CROSS_RUNTIME) for key, spread in spreads.items()}

    return replace(
        fit,
        spread=wide(fit.spread),
        operators_spread=wide(fit.operators_spread),
        graph_spread=wide(fit.graph_spread),
        caveat=caveat,
        other_runtime=CROSS_RUNTIME,
    )
