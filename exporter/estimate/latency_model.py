"""Turns instruction counts into milliseconds on a phone's core. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from exporter.config.targets import Target
from exporter.estimate.instruction_counts import Counts
from exporter.estimate.parameters import Fit, Parameters, Spread
from exporter.records import EstimatedLatency, Precision

THREADS = (1, 4)


@dataclass(frozen=True)
class Core:
    """What a core executes in a cycle, as its maker documents it."""

    vectors: float
    """128-bit vector operations."""
    loads: float
    """128-bit loads."""
    others: float
    """Other instructions, decoded and retired."""


CORES: Mapping[str, Core] = {
    "Cortex-A55": Core(1, 1, 2),
    "Cortex-A77": Core(2, 2, 4),
    "Cortex-A78": Core(2, 3, 4),
    "Cortex-A510": Core(1, 1, 3),
    "Cortex-A520": Core(1, 1, 3),
    "Cortex-A710": Core(2, 3, 4),
    "Cortex-A715": Core(2, 3, 5),
    "Cortex-A720": Core(2, 3, 5),
    "Cortex-X1": Core(4, 3, 5),
    "Cortex-X2": Core(4, 3, 5),
    "Cortex-X3": Core(4, 3, 6),
    "Cortex-X4": Core(4, 3, 8),
    "Oryon": Core(4, 4, 8),
}
"""Core -> widths of Arm's software optimisation guides; Oryon's are of Qualcomm's Hot Chips 2024 talk."""


@dataclass(frozen=True)
class Memory:
    """What a chip's cores share."""

    caches_mb: float
    """The last two levels together: what of a model's weights can stay from call to call."""
    gb_per_s: float
    """The fastest memory that its maker supports: no call reads faster."""


MEMORIES: Mapping[str, Memory] = {
    "SM8250": Memory(4 + 3, 44.0),
    "SM8350": Memory(4 + 3, 51.2),
    "SM8450": Memory(6 + 4, 51.2),
    "SM8550": Memory(8 + 6, 67.2),
    "SM8650": Memory(12 + 6, 76.8),
    "SM8750": Memory(24 + 8, 85.4),
}
"""SoC -> its caches and memory, as Qualcomm's product pages and the kernel's device trees give them. The
speed is a bound and not a fit: no published row is long enough in memory to tell a cost of it."""
OTHER_CORE_FACTOR = 1.25
"""A chip without rows: predicting one from another's rows misses by 8.5 to 10.7 % in the mean, anchored."""
UNSEEN_FACTOR = 1.4
"""A model unlike every published one, in its latency or its operators, is an extrapolation."""
MUCH_MORE = 1.5
"""The factor by which a share of other instructions must exceed the rows' to count as unseen."""
KERNELS = ("conv", "gemm", "matmul", "linear", "fully_connected", "fullyconnected", "addmm", "bmm", "mm")
BOUND = {
    "vectors": "arithmetic",
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


def count_kernels_for_latency(operators: Mapping[str, int]) -> int:
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


def estimate_latency(
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
    parts = _latency_parts_of_counts(work.counts, fit) if work.counts else _latency_parts_of_graph(work, fit)
    scale = _latency_scale_of_core(target, parameters)
    parts = {name: value * scale.get(name, scale["other"]) for name, value in parts.items()}
    others = parts.get("other", 0.0) / (sum(parts.values()) or 1.0)
    if threads > 1:
        parts = {name: value / _latency_speedup(name, target, fit) for name, value in parts.items()}
        parts["threads"] = fit.scaling.kernel_ms * work.kernels
    parts["call"] = fit.call_ms
    parts["memory"] = max(0.0, _least_latency_of_memory(work.weight_bytes, target) - sum(parts.values()))
    p50 = sum(parts.values())
    shares = {BOUND[name]: value / p50 for name, value in parts.items() if value} if p50 else {}
    spread, notes = _latency_interval(work, target, parameters, fit, precision, threads)
    unseen = _unseen_by_latency_model(p50, others, fit) if work.counts else ()
    spread = replace(spread, factor=spread.factor * UNSEEN_FACTOR ** len(unseen))
    return EstimatedLatency(
        threads=threads,
        p50_ms=p50,
        low_ms=p50 / spread.factor,
        high_ms=p50 * spread.factor,
        coverage=spread.coverage,
        basis="counts" if work.counts else "graph",
        shares=shares,
        notes=(*notes, *unseen),
    )


def _unseen_by_latency_model(p50: float, others: float, fit: Fit) -> tuple[str, ...]:
    """Return what no published model of the fit shows, a sentence each.

    Args:
        p50: The estimate.
        others: The share of other instructions in the time on one thread.
        fit: The costs of its runtime and precision.
    """
    notes = []
    low, high = fit.seen_ms
    if not low / 2 <= p50 <= high * 2:
        notes.append(f"The published models take {low:.3g} to {high:.3g} ms; this one is far outside.")
    if others > MUCH_MORE * fit.most_other:
        notes.append("No published model spends so much of its time on operators without matrix products.")
    return tuple(notes)


def _latency_parts_of_counts(counts: Counts, fit: Fit) -> dict[str, float]:
    """Return the parts of a call on the reference core, in cycles / 1e6."""
    cost = fit.cycles
    vectors = counts.fma * cost["fma"] + (counts.dot + 2 * counts.matrix) * cost["dot"]
    others = counts.simd + counts.scalar + counts.branch
    loads = counts.load * cost["load"] + counts.store * cost["store"]
    return {"vectors": vectors / 1e6, "load": loads / 1e6, "other": others * cost["other"] / 1e6}


def _latency_parts_of_graph(work: Work, fit: Fit) -> dict[str, float]:
    """Return the parts of a call by its graph, in cycles / 1e6: kernels cost what is no arithmetic."""
    vectors = work.flops * fit.graph["flop"] + work.weight_bytes * fit.graph["byte"]
    return {"vectors": vectors / 1e6, "other": work.kernels * fit.graph["kernel"] / 1e6}


def _latency_scale_of_core(target: Target, parameters: Parameters) -> dict[str, float]:
    """Return ms per million cycles of the reference core, on the target's fastest core."""
    reference, cluster = CORES[parameters.core], target.clusters[0]
    core, mhz = CORES[cluster.core], cluster.max_mhz or parameters.mhz
    ratios = {
        "vectors": reference.vectors / core.vectors,
        "load": reference.loads / core.loads,
        "other": reference.others / core.others,
    }
    return {name: ratio * 1000 / mhz for name, ratio in ratios.items()}


def _latency_speedup(part: str, target: Target, fit: Fit) -> float:
    """Return the speedup of a part by four threads: the fit's, scaled by the target's four fastest cores."""
    fitted = fit.scaling.other_speedup if part == "other" else fit.scaling.speedup
    return max(1.0, fitted * _ideal_latency_speedup(target) / IDEAL_OF_REFERENCE) if fitted > 1 else 1.0


def _least_latency_of_memory(weight_bytes: int, target: Target) -> float:
    """Return the least time of a call whose weights do not fit into the caches: each is read once.

    Weights that fit stay there from call to call. Activations are not known, and count for nothing.
    """
    memory = MEMORIES.get(target.soc)
    if memory is None or weight_bytes <= memory.caches_mb * 1e6:
        return 0.0
    return (weight_bytes - memory.caches_mb * 1e6) / memory.gb_per_s / 1e6


IDEAL_OF_REFERENCE = (2842 + 3 * 2419) / 2842
"""The four fastest cores of the 865 beside its fastest one."""


def _ideal_latency_speedup(target: Target) -> float:
    fastest = [(c.max_mhz or 0, CORES[c.core].vectors) for c in target.clusters for _ in range(c.count)][:4]
    speeds = [mhz * vectors for mhz, vectors in fastest]
    return sum(speeds) / speeds[0]


def _latency_interval(
    work: Work, target: Target, parameters: Parameters, fit: Fit, precision: Precision, threads: int
) -> tuple[Spread, tuple[str, ...]]:
    """Return the interval, wider for what no published row shows, and why."""
    spread = (fit.spread if work.counts else fit.graph_spread)[str(threads)]
    factor, notes = spread.factor, [fit.caveat] if fit.caveat else []
    if not work.counts:
        notes.append("Nothing was counted: the estimate follows from FLOPs and the size of the weights.")
    if target.clusters[0].core != parameters.core:
        factor *= OTHER_CORE_FACTOR
        notes.append(
            f"No published latency of a {target.clusters[0].core} is in the fit: documented widths scale it."
        )
    if precision not in {"fp32", "int8"}:
        factor *= OTHER_CORE_FACTOR
        notes.append(f"No published latency in {precision} is in the fit.")
    return Spread(factor, spread.coverage, spread.rows), tuple(notes)
