"""Turns instruction counts into milliseconds on a phone's core. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from exporter.config.targets import Cluster, Target
from exporter.estimate.chips import ASSUMED, CORES, MEMORIES
from exporter.estimate.graph_work import GraphWork, work_of_graph
from exporter.estimate.instruction_counts import Counts
from exporter.estimate.operator_split import GraphOperator
from exporter.estimate.parameters import Fit, Parameters, Spread
from exporter.records import QUANTIZED, EstimatedLatency, Precision

THREADS = (1, 4)


OTHER_CORE_FACTOR = 1.25
"""A chip without rows: predicting one from another's rows misses by 8.5 to 10.7 % in the mean, anchored."""
ASSUMED_FACTOR = 1.1
"""A figure of the chip without a source; if it is off by 20 %, a part of the time is. A judgement."""
SHARED_POWER = math.sqrt(0.5)
"""Half of the variance by which another chip or runtime is off is taken to be common to all networks. On one
phone, TensorFlow Lite and PyTorch Mobile differ by 3 % in the median and by 40 % from network to network."""
UNSEEN_FACTOR = 1.4
"""A model unlike every published one, in its latency or its operators, is an extrapolation."""
DEPTHWISE_IN_INT8 = (
    "One published int8 network alone has depthwise convolutions, which counts find to take up to twice as "
    "long as the graph tells."
)
FUNCTIONS_IN_INT8 = (
    "No published int8 network has functions such as Sigmoid, which are computed in floating point: counts "
    "find one to take more than twice as long as the graph tells."
)
MUCH_MORE = 1.5
"""The factor by which a share of other instructions must exceed the rows' to count as unseen."""
KERNELS = ("conv", "gemm", "matmul", "linear", "fully_connected", "fullyconnected", "addmm", "bmm", "mm")
BOUND = {
    "vectors": "arithmetic",
    "simd": "other vector instructions",
    "load": "loads",
    "other": "other instructions",
    "threads": "starting threads",
    "call": "the call itself",
    "memory": "memory",
}
"""Part of the time -> what it is called."""


@dataclass(frozen=True)
class Work:
    """What an artifact does in one inference."""

    counts: Counts | None
    """None where nothing was counted."""
    flops: int
    weight_bytes: int
    kernels: int
    """Convolutions and matrix products: each is distributed over the threads once."""
    graph: GraphWork | None = None
    """None where no graph of the network can be read."""


def graph_work_for_latency_model(
    operators: Sequence[GraphOperator], target: Target, bytes_per_value: int
) -> GraphWork | None:
    """Return what a network's graph tells for a chip; None without operators.

    Args:
        operators: Those of the graph.
        target: The phone.
        bytes_per_value: 4 in float32, 1 in int8.
    """
    if not operators:
        return None
    memory = MEMORIES.get(target.soc)
    return work_of_graph(operators, bytes_per_value, memory.caches_mb * 1e6 if memory else math.inf)


def count_kernels_for_latency_model(operators: Mapping[str, int]) -> int:
    """Count convolutions and matrix products among an artifact's operators."""
    names = {name: name.rsplit("::")[-1].lower() for name in operators}
    return sum(
        operators[name]
        for name, plain in names.items()
        if any(kind in plain for kind in KERNELS) and "quantizelinear" not in plain
    )


def has_latency_model(target: Target) -> bool:
    """Tell whether a target is a Snapdragon whose cores are known."""
    return bool(target.clusters) and all(c.core in CORES and c.max_mhz for c in target.clusters)


def fit_of_latency_model(parameters: Parameters, runtime: str, precision: Precision) -> Fit | None:
    """Return the fit for a runtime ("onnxruntime", "executorch", "torchscript") and a precision."""
    narrow = "int8" if precision in {"int8", "mixed"} else "fp32"
    return parameters.fits.get(f"{runtime} {narrow}")


def estimate_by_latency_model(
    work: Work, target: Target, parameters: Parameters, fit: Fit, precision: Precision, threads: int
) -> EstimatedLatency:
    """Estimate the median latency of one artifact.

    Args:
        work: What it executes.
        target: The phone.
        parameters: The fitted parameters.
        fit: The costs of its runtime and precision.
        precision: Its precision; one without rows of its own widens the interval.
        threads: 1 or 4.
    """
    cycles = latency_model_parts(work, fit)
    scale = _latency_model_scale_of_core(target, parameters)
    parts = {name: value * scale.get(name, scale["other"]) for name, value in cycles.items()}
    # The published latencies are those of the reference core, and so is what is far outside of them.
    slower = sum(parts.values()) / (sum(cycles.values()) * 1000 / parameters.mhz or 1.0) or 1.0
    whole = max(sum(parts.values()), decoder_floor_of_latency_model(work, target.clusters[0])) or 1.0
    others = 1 - sum(value for name, value in parts.items() if name not in ONE_THREAD) / whole
    if threads > 1:
        parts = {name: value / _latency_model_speedup(name, target, fit) for name, value in parts.items()}
        parts["threads"] = fit.scaling.kernel_ms * work.kernels
    parts["call"] = call_ms_of_latency_model(work, fit)
    parts["other"] += max(
        0.0, _least_of_threads_in_latency_model(work, target, fit, threads) - sum(parts.values())
    )
    parts["memory"] = max(0.0, memory_floor_of_latency_model(work, target) - sum(parts.values()))
    p50 = sum(parts.values())
    spread, notes = _latency_model_interval(work, target, parameters, fit, precision, threads)
    unseen = _unseen_by_latency_model((p50 - parts["call"]) / slower + parts["call"], others, work, fit)
    assumed = _assumed_by_latency_model(target, threads, parts["memory"] > 0)
    more = UNSEEN_FACTOR ** len(unseen) * ASSUMED_FACTOR ** len(assumed)
    spread = replace(spread, factor=spread.factor * more)
    other_chip = OTHER_CORE_FACTOR if target.clusters[0].core != parameters.core else 1.0
    unlike = fit.other_runtime * other_chip * ASSUMED_FACTOR ** len(assumed)
    return EstimatedLatency(
        threads=threads,
        p50_ms=p50,
        low_ms=p50 / spread.factor,
        high_ms=p50 * spread.factor,
        coverage=spread.coverage,
        basis="counts" if work.counts else "graph",
        shares=latency_model_shares(parts),
        notes=(*notes, *unseen, *assumed),
        shared=unlike**SHARED_POWER,
    )


def latency_model_shares(parts: Mapping[str, float]) -> dict[str, float]:
    """Return what bounds an estimate -> its share of the time."""
    whole = sum(parts.values())
    return {BOUND[name]: value / whole for name, value in parts.items() if value} if whole else {}


def _unseen_by_latency_model(p50: float, others: float, work: Work, fit: Fit) -> tuple[str, ...]:
    """Return what no published model of the fit shows, a sentence each.

    Args:
        p50: The estimate, as if it were of the reference core.
        others: The share of other instructions, or of a graph's values, in the time on one thread.
        work: What the artifact executes. FLOPs alone do not tell which operators are unseen.
        fit: The costs of its runtime and precision.
    """
    notes = []
    low, high = fit.seen_ms
    if not low / 2 <= p50 <= high * 2:
        notes.append(f"The published models take {low:.3g} to {high:.3g} ms; this one is far outside.")
    most = fit.most_other if work.counts else fit.most_other_of_graph
    if (work.counts or work.graph) and others > MUCH_MORE * most:
        notes.append("No published model spends so much of its time on operators without matrix products.")
    return tuple(notes)


def _assumed_by_latency_model(target: Target, threads: int, memory_bound: bool) -> tuple[str, ...]:
    """Return which figures of the chip have no source, a sentence each.

    Args:
        target: The phone.
        threads: On one, both widths of the fastest core count; on four, also how many vectors the others do.
        memory_bound: The memory's speed and the caches' sizes decide the estimate.
    """
    fastest, *others = _four_fastest_cores(target)[: max(threads, 1)]
    assumed = [fastest] if CORES[fastest].assumed else []
    assumed += [core for core in others if CORES[core].vectors_source == ASSUMED and core not in assumed]
    notes = [
        f"A width of the {core} is assumed: no public page states it." for core in dict.fromkeys(assumed)
    ]
    if memory_bound:
        notes.append("The size of the chip's system cache is assumed: no public page states it.")
    return tuple(notes)


def _latency_model_parts_of_counts(counts: Counts, fit: Fit) -> dict[str, float]:
    """Return the parts of a call on the reference core, in cycles / 1e6."""
    cost = fit.cycles
    vectors = counts.fma * cost["fma"] + (counts.dot + 2 * counts.matrix) * cost["dot"]
    return {
        "vectors": vectors / 1e6,
        "simd": counts.simd * cost["simd"] / 1e6,
        "load": (counts.load + counts.store) * cost["load"] / 1e6,
        "other": (counts.scalar + counts.branch) * cost["other"] / 1e6,
    }


PARTS_OF_GRAPH: Mapping[str, str] = {
    "macs": "vectors",
    "depthwise_macs": "vectors",
    "depthwise_values": "load",
    "patches": "load",
    "values": "other",
    "conv_values": "other",
    "functions": "other",
}
"""Field of `GraphWork` -> the part of a call that it belongs to."""


def latency_model_parts_of_graph(graph: GraphWork, costs: Mapping[str, float]) -> dict[str, float]:
    """Return the parts of a call on the reference core, in cycles / 1e6, by the operators of the graph.

    Args:
        graph: What the graph tells of a call.
        costs: Field of `GraphWork` -> cycles of each.
    """
    parts = dict.fromkeys(("vectors", "load", "other"), 0.0)
    for name, part in PARTS_OF_GRAPH.items():
        parts[part] += getattr(graph, name) * costs.get(name, 0.0) / 1e6
    return parts


def latency_model_parts(work: Work, fit: Fit) -> dict[str, float]:
    """Return the parts of a call on the reference core, in cycles / 1e6, by the best that is known."""
    if work.counts:
        return _latency_model_parts_of_counts(work.counts, fit)
    if work.graph:
        return latency_model_parts_of_graph(work.graph, fit.operators)
    vectors = work.flops * fit.graph["flop"] + work.weight_bytes * fit.graph["byte"]
    return {"vectors": vectors / 1e6, "other": work.kernels * fit.graph["kernel"] / 1e6}


def _latency_model_scale_of_core(target: Target, parameters: Parameters) -> dict[str, float]:
    """Return ms per million cycles of the reference core, on the target's fastest core."""
    reference, cluster = CORES[parameters.core], target.clusters[0]
    core, mhz = CORES[cluster.core], cluster.max_mhz or parameters.mhz
    ratios = {
        "vectors": reference.vectors / core.vectors,
        "simd": reference.vectors / core.vectors,
        "load": reference.others / core.others,
        "other": reference.others / core.others,
    }
    return {name: ratio * 1000 / mhz for name, ratio in ratios.items()}


def _latency_model_speedup(part: str, target: Target, fit: Fit) -> float:
    """Return the speedup of a part by four threads: the fit's, scaled by the target's four fastest cores."""
    fitted = fit.scaling.other_speedup if part in ONE_THREAD else fit.scaling.speedup
    return max(1.0, fitted * _ideal_latency_model_speedup(target) / IDEAL_OF_REFERENCE) if fitted > 1 else 1.0


def call_ms_of_latency_model(work: Work, fit: Fit) -> float:
    """Return what a call costs once; in a network of fewer kernels than the rows' it costs a part of that.

    The rows in int8 are of whole networks alone: of a network of two layers they tell no constant.
    """
    return fit.call_ms * min(1.0, work.kernels / fit.least_kernels if fit.least_kernels else 1.0)


def decoder_floor_of_latency_model(work: Work, cluster: Cluster) -> float:
    """Return the time in which a core's decoders take what was counted: one thread takes no less.

    It decides in int8 alone, whose rows have too few other instructions to tell that these cost as much.
    """
    counted = work.counts.instructions if work.counts else 0.0
    return counted / CORES[cluster.core].others / (cluster.max_mhz or 1) / 1000


def _least_of_threads_in_latency_model(work: Work, target: Target, fit: Fit, threads: int) -> float:
    """Return the time of the fastest cores' decoders."""
    speedups = [_latency_model_speedup(part, target, fit) for part in ("vectors", "other")]
    return decoder_floor_of_latency_model(work, target.clusters[0]) / (max(speedups) if threads > 1 else 1.0)


def memory_floor_of_latency_model(work: Work, target: Target) -> float:
    """Return the time in which the memory gives what comes from beyond the caches: no call is faster.

    Without a graph, that is the weights that do not fit into the caches; others stay there between calls.
    """
    memory = MEMORIES.get(target.soc)
    if memory is None:
        return 0.0
    beyond = work.weight_bytes - memory.caches_mb * 1e6
    missed = work.graph.missed_bytes if work.graph else beyond
    return max(missed, beyond, 0.0) / memory.gb_per_s / 1e6


ONE_THREAD = ("simd", "other")
"""Parts that stay on one thread in float32."""
IDEAL_OF_REFERENCE = (2842 + 3 * 2419) / 2842
"""The four fastest cores of the 865 beside its fastest one."""


def _ideal_latency_model_speedup(target: Target) -> float:
    fastest = [(c.max_mhz or 0, CORES[c.core].vectors) for c in target.clusters for _ in range(c.count)][:4]
    speeds = [mhz * vectors for mhz, vectors in fastest]
    return sum(speeds) / speeds[0]


def _four_fastest_cores(target: Target) -> list[str]:
    return [cluster.core for cluster in target.clusters for _ in range(cluster.count)][:4]


def _latency_model_interval(
    work: Work, target: Target, parameters: Parameters, fit: Fit, precision: Precision, threads: int
) -> tuple[Spread, tuple[str, ...]]:
    """Return the interval on the fastest cores, wider for what no published row shows, and why."""
    spread, notes = latency_model_interval_of_fit(work, fit, precision, threads)
    if target.clusters[0].core == parameters.core:
        return spread, notes
    other = f"No published latency of a {target.clusters[0].core} is in the fit: documented widths scale it."
    return replace(spread, factor=spread.factor * OTHER_CORE_FACTOR), (*notes, other)


def _unseen_in_int8_by_latency_model(graph: GraphWork | None) -> tuple[str, ...]:
    """Return which operators the int8 rows tell no costs of; without a graph, all of them."""
    depthwise = (DEPTHWISE_IN_INT8,) if graph is None or graph.depthwise_macs else ()
    functions = (FUNCTIONS_IN_INT8,) if graph is None or graph.functions else ()
    return (*depthwise, *functions)


def latency_model_interval_of_fit(
    work: Work, fit: Fit, precision: Precision, threads: int
) -> tuple[Spread, tuple[str, ...]]:
    """Return the interval on the cores of the published rows, and why it is wide."""
    spreads = fit.spread if work.counts else fit.operators_spread if work.graph else fit.graph_spread
    spread = spreads[str(threads)]
    factor, notes = spread.factor, [fit.caveat] if fit.caveat else []
    if not work.counts:
        basis = "the operators of the graph" if work.graph else "FLOPs and the size of the weights"
        notes.append(f"Nothing was counted: the estimate follows from {basis}.")
        unseen = _unseen_in_int8_by_latency_model(work.graph) if precision in QUANTIZED else ()
        factor *= UNSEEN_FACTOR ** len(unseen)
        notes += unseen
    if precision not in {"fp32", "int8"}:
        factor *= OTHER_CORE_FACTOR
        notes.append(f"No published latency in {precision} is in the fit.")
    return Spread(factor, spread.coverage, spread.rows), tuple(notes)
