"""Estimates latencies on one of a chip's small cores, where Android may put an app in the background.

Pure. Published latencies of the same networks on a fast and on a small core give the factors.
"""

from __future__ import annotations

import math

from exporter.config.targets import Target
from exporter.estimate import latency_model
from exporter.estimate.latency_model import Work
from exporter.estimate.parameters import Fit, Parameters
from exporter.records import EstimatedLatency, Precision


def estimate_on_small_core(
    work: Work, target: Target, parameters: Parameters, fit: Fit, precision: Precision
) -> EstimatedLatency | None:
    """Estimate the median latency on one of the chip's small cores; None where no rows of such a core exist.

    Args:
        work: What the artifact executes.
        target: The phone.
        parameters: The fitted parameters.
        fit: The costs of its runtime and precision.
        precision: Its precision; one without rows of its own widens the interval.
    """
    cluster = target.clusters[-1]
    small = fit.small.get(cluster.core)
    if small is None or not cluster.max_mhz:
        return None
    parts = {
        name: value * (small.arithmetic if name == "vectors" else small.others) * 1000 / cluster.max_mhz
        for name, value in latency_model.latency_model_parts(work, fit).items()
    }
    parts["call"] = fit.call_ms * small.others * parameters.mhz / cluster.max_mhz
    parts["memory"] = max(
        0.0, latency_model.memory_floor_of_latency_model(work, target) - sum(parts.values())
    )
    p50 = sum(parts.values())
    spread, notes = latency_model.latency_model_interval_of_fit(work, fit, precision, 1)
    factor = math.exp(math.hypot(math.log(spread.factor), math.log(small.spread.factor)))
    return EstimatedLatency(
        threads=1,
        p50_ms=p50,
        low_ms=p50 / factor,
        high_ms=p50 * factor,
        coverage=min(spread.coverage, small.spread.coverage),
        basis="counts" if work.counts else "graph",
        shares=latency_model.latency_model_shares(parts),
        notes=notes,
        core=cluster.core,
    )
