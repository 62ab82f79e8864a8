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
from exporter.estimate.chips import CORES
from exporter.estimate.graph_work import GraphWork
from exporter.estimate.instruction_counts import Counts
from exporter.estimate.parameters import Fit, Parameters, Scaling, Spread
from exporter.records import EstimatedLatency, Precision

REFERENCE = get_target("snapdragon865")
CORE, MHZ = "Cortex-A77", 2842
SHORT_MS = 0.3
"""Rows below weigh as if they were so long: they are noisy."""
PRIOR = 0.2
"""How loosely a runtime's speedup is tied to the published one of other runtimes (deviation of the log)."""
KERNEL_MS, KERNEL_PRIOR = 0.01, 1.0
"""What starting threads costs a kernel in other runtimes (0.5 to 0.7 ms a network), and how loosely."""


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
    operators = _operator_costs(subjects, scaling, call_ms)
    graph = _graph_costs(subjects, scaling, call_ms)
    most = max(others, default=1.0)
    graphs = [s.work.graph for s in subjects if s.work.graph and s.row.whole]
    most_of_graph = max((_other_share_of_graph(graph, operators) for graph in graphs), default=1.0)
    least = min((s.work.kernels for s in subjects), default=0)
    return Fit(
        cycles, call_ms, least, scaling, {}, operators, {}, graph, {}, seen, most, most_of_graph, caveat
    )


def _other_share(work: latency_model.Work, cycles: Mapping[str, float]) -> float:
    """Return the share of what stays on one thread in a model's time."""
    return _one_thread_ms(work, {**cycles, **NOTHING_BUT_OTHERS}) / _one_thread_ms(work, cycles)


def _other_share_of_graph(graph: GraphWork, operators: Mapping[str, float]) -> float:
    """Return the share of the values' time in that of all operators of a model's graph."""
    parts = latency_model.latency_model_parts_of_graph(graph, operators)
    return parts["other"] / (sum(parts.values()) or 1.0)


def _costs(subjects: Sequence[Subject], speedup: float) -> tuple[dict[str, float], float]:
    """Fit cycles of each class, and what a call costs; relative errors count.

    No vector instruction takes less than the core's documented width allows. What is no vector instruction
    takes a place in the decoder, whatever it does. `benchmarks/estimate_costs.py` prints what else was tried:
    loads with a cost of their own, and caches' misses.
    """
    if not subjects:
        return dict.fromkeys(("fma", "dot", "simd", "other", "load"), 0.0), 0.0
    narrow = any(s.work.counts and s.work.counts.dot for s in subjects)
    columns = [_columns(s.work.counts, narrow) for s in subjects if s.work.counts]
    if narrow:
        # Dot products and other vector instructions share the pipes. What else is executed runs beside them:
        # the rows show no cost of it, and `decoder_floor_of_latency_model` bounds a network that has much.
        vector, other, call = fitted_costs(columns, subjects, (LEAST_VECTOR, 0.0), speedup)
        return {"fma": vector, "dot": vector, "simd": vector, "other": other, "load": other}, call
    if len({s.row.model for s in subjects}) <= len(DOCUMENTED):
        # Too few networks tell the classes apart: the documented costs, times what fits.
        sums = [[float(np.dot(DOCUMENTED, column))] for column in columns]
        factor, call = fitted_costs(sums, subjects, (1.0,), speedup)[0], 0.0
        fma, simd, other = (cost * factor for cost in DOCUMENTED)
    else:
        fma, simd, other, call = fitted_costs(columns, subjects, (LEAST_VECTOR, LEAST_VECTOR, 0.0), speedup)
    return {"fma": fma, "dot": fma, "simd": simd, "other": other, "load": other}, call


LEAST_VECTOR = 1 / CORES[CORE].vectors
DOCUMENTED = (LEAST_VECTOR, LEAST_VECTOR, 1 / CORES[CORE].others)
"""Cycles of a multiply-add, of another vector instruction and of any other, as the core's widths allow."""


def fitted_costs(
    columns: Sequence[Sequence[float]],
    subjects: Sequence[Subject],
    least: Sequence[float],
    speedup: float = 1.0,
) -> list[float]:
    """Return the cycles of each column, at least those of `least`, and the milliseconds of a call."""
    latencies = np.array([s.row.latency_ms for s in subjects])
    weights = 1 / np.maximum(latencies, SHORT_MS)
    matrix = np.hstack([np.array(columns) / (MHZ * 1e3) / speedup, np.ones((len(subjects), 1))])
    sizes = np.maximum(matrix.max(axis=0), 1e-12)  # columns of like size, which the solver needs
    bounds = (np.array([*least, 0.0]) * sizes, [np.inf] * (len(least) + 1))
    exact = optimize.lsq_linear(matrix / sizes * weights[:, None], latencies * weights, bounds).x / sizes
    return [round(float(value), 6) for value in exact]


def _columns(counts: Counts, narrow: bool) -> list[float]:
    decoded = counts.scalar + counts.branch + counts.load + counts.store
    if narrow:
        return [counts.dot + 2 * counts.matrix + counts.fma + counts.simd, decoded]
    return [counts.fma, counts.simd, decoded]


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


NOTHING_BUT_OTHERS = {"fma": 0.0, "dot": 0.0, "load": 0.0}


def _one_thread_ms(work: latency_model.Work, cycles: Mapping[str, float]) -> float:
    counts = work.counts
    assert counts is not None
    sums = {
        "fma": counts.fma, "dot": counts.dot + 2 * counts.matrix, "simd": counts.simd,
        "other": counts.scalar + counts.branch, "load": counts.load + counts.store,
    }  # fmt: skip
    return sum(cycles[name] * value for name, value in sums.items()) / (MHZ * 1e3)


Column = Mapping[str, float]
"""Field of `GraphWork` -> its weight: a column is fitted with one cost."""
ARITHMETIC: Column = {"macs": 1, "depthwise_macs": 1}
FORMS: Mapping[str, Sequence[Column]] = {
    "onnxruntime": (ARITHMETIC, {"depthwise_values": 1}, {"values": 1, "patches": 2}),
    "tflite": (ARITHMETIC, {"depthwise_values": 1}, {"values": 1}, {"patches": 1}, {"functions": 1}),
    "torchscript": (ARITHMETIC, {"depthwise_macs": 1}, {"values": 1}, {"conv_values": 1}, {"functions": 1}),
}
"""Runtime -> the columns of its graphs' costs.

ONNX Runtime and TensorFlow Lite copy the patches of a convolution before they multiply matrices (im2col):
each value is written and read once more. PyTorch Mobile's XNNPACK reads through pointers instead, and changes
the layout of what a convolution reads and writes. `benchmarks/estimate_forms.py` prints what each term does
where there are hundreds of rows. One network of ONNX Runtime's rows has functions, which tells no cost.
"""


def _operator_costs(subjects: Sequence[Subject], scaling: Scaling, call_ms: float) -> dict[str, float]:
    """Fit the cycles of each column of the runtime's form; return them by field of `GraphWork`."""
    some = [s for s in subjects if s.work.graph]
    if not some:
        return {}
    form = FORMS[some[0].row.runtime]
    alone = latency_model.ONE_THREAD if scaling.other_speedup == 1 else ()
    sizes = np.array(
        [form_columns(form, s.work.graph, _one_thread_share(s, scaling), alone) for s in some], float
    )
    solved = _relative_costs(sizes, some, call_ms)
    costs: dict[str, float] = {}
    for column, cost in zip(form, solved, strict=True):
        for name, weight in column.items():
            costs[name] = costs.get(name, 0.0) + weight * cost
    return costs


def form_columns(
    form: Sequence[Column],
    graph: GraphWork | None,
    shared: float = 1.0,
    alone: Sequence[str] = latency_model.ONE_THREAD,
) -> list[float]:
    """Return the size of each column.

    Args:
        form: The columns.
        graph: What they weigh.
        shared: What threads leave of the time of parts that they share.
        alone: Parts that stay on one thread.
    """
    part = latency_model.PARTS_OF_GRAPH
    left = {name: 1.0 if part[name] in alone else shared for name in part}
    return [sum(weight * getattr(graph, name) * left[name] for name, weight in c.items()) for c in form]


def _one_thread_share(subject: Subject, scaling: Scaling) -> float:
    """Return what a row's threads leave of the time of arithmetic and loads."""
    return 1.0 if subject.row.threads == 1 else 1 / scaling.speedup


def _graph_costs(subjects: Sequence[Subject], scaling: Scaling, call_ms: float) -> dict[str, float]:
    """Fit cycles of a FLOP, of a byte of weights and of a kernel, for networks without a graph.

    A kernel costs the instructions that stay on one thread; where all are distributed, it costs nothing.
    """
    some = [s for s in subjects if s.work.flops]
    sizes = np.array([[s.work.flops, s.work.weight_bytes, s.work.kernels] for s in some], float)
    sizes[:, :2] *= np.array([_one_thread_share(s, scaling) for s in some])[:, None]
    sizes[:, 2] *= scaling.other_speedup == 1
    flop, byte, kernel = _relative_costs(sizes, some, call_ms)
    return {"flop": flop, "byte": byte, "kernel": kernel}


def _relative_costs(sizes: np.ndarray, subjects: Sequence[Subject], call_ms: float) -> list[float]:
    """Fit nonnegative cycles of each column, relative errors being what counts."""
    matrix = sizes / (MHZ * 1e3)
    latencies = np.array([max(s.row.latency_ms - call_ms, 0.0) for s in subjects])
    weights = 1 / np.maximum(latencies, SHORT_MS)
    widths = np.maximum(matrix.max(axis=0), 1e-12)
    solved, _ = optimize.nnls(matrix / widths * weights[:, None], latencies * weights)
    return [float(value) for value in solved / widths]


BASES = ("counts", "operators", "graph")
"""What an estimate follows from, the best first."""


def best_basis(work: latency_model.Work) -> str:
    """Return what a network's estimate follows from."""
    return "counts" if work.counts else "operators" if work.graph else "graph"


def predicted_ms(subject: Subject, fit: Fit, basis: str = "counts") -> float:
    """Predict a row with a fit, by the best basis that it has from `basis` on."""
    blank = {str(threads): Spread(1.0, 0.0, 0) for threads in (1, 4)}
    whole = replace(fit, spread=blank, operators_spread=blank, graph_spread=blank)
    return estimated_row(subject, whole, basis).p50_ms


def estimated_row(subject: Subject, fit: Fit, basis: str = "counts") -> EstimatedLatency:
    """Estimate a row as the package does, by the best basis that it has from `basis` on."""
    work = subject.work if basis == "counts" else replace(subject.work, counts=None)
    work = replace(work, graph=None) if basis == "graph" else work
    precision: Precision = "int8" if subject.row.precision == "int8" else "fp32"
    return latency_model.estimate_by_latency_model(
        work, REFERENCE, Parameters(CORE, MHZ, {}, ()), fit, precision, subject.row.threads
    )
