"""Estimates latencies on one of a chip's small cores, where Android may put an app in the background.

Pure. Published latencies of the same networks on a fast and on a small core give the factors; documented
widths scale them for the small core's successors.
"""

from __future__ import annotations

import math
from dataclasses import replace

from exporter.config.targets import Target
from exporter.estimate import latency_model
from exporter.estimate.chips import CORES
from exporter.estimate.latency_model import Work
from exporter.estimate.parameters import Fit, Parameters, SmallCore
from exporter.records import EstimatedLatency, Precision

FITTED = "Cortex-A55"
"""The small core whose latencies are published."""
SCALED = ("Cortex-A510", "Cortex-A520")
"""Its successors, in order as it is: its costs are scaled by their documented widths."""
CONFIGURED_FACTOR = 1.5
"""Two of these cores share a vector unit of 64 or 128 bits, as the chip's maker chose, and no page states
which: arithmetic may take twice as long as estimated. A judgement."""


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
    small, more, why = _costs_of_small_core(fit, cluster.core)
    if small is None or not cluster.max_mhz:
        return None
    parts = {
        name: value * (small.arithmetic if name == "vectors" else small.others) * 1000 / cluster.max_mhz
        for name, value in latency_model.latency_model_parts(work, fit).items()
    }
    parts["call"] = (
        latency_model.call_ms_of_latency_model(work, fit) * small.others * parameters.mhz / cluster.max_mhz
    )
    floor = latency_model.decoder_floor_of_latency_model(work, cluster)
    parts["other"] += max(0.0, floor - sum(parts.values()))
    parts["memory"] = max(
        0.0, latency_model.memory_floor_of_latency_model(work, target) - sum(parts.values())
    )
    p50 = sum(parts.values())
    spread, notes = latency_model.latency_model_interval_of_fit(work, fit, precision, 1)
    factor = more * math.exp(math.hypot(math.log(spread.factor), math.log(small.spread.factor)))
    return EstimatedLatency(
        threads=1,
        p50_ms=p50,
        low_ms=p50 / factor,
        high_ms=p50 * factor,
        coverage=min(spread.coverage, small.spread.coverage),
        basis="counts" if work.counts else "graph",
        shares=latency_model.latency_model_shares(parts),
        notes=(*notes, *why),
        core=cluster.core,
    )


def _costs_of_small_core(fit: Fit, core: str) -> tuple[SmallCore | None, float, tuple[str, ...]]:
    """Return a small core's factors, how much wider its interval is than their own misses tell, and why."""
    if core in fit.small or core not in SCALED or FITTED not in fit.small:
        return fit.small.get(core), 1.0, ()
    known, old, new = fit.small[FITTED], CORES[FITTED], CORES[core]
    scaled = replace(
        known,
        arithmetic=known.arithmetic * old.vectors / new.vectors,
        others=known.others * old.others / new.others,
    )
    notes = (
        f"No published latency of a {core} is in the fit: documented widths scale those of a {FITTED}.",
        f"Two {core}s share a vector unit whose width is the maker's choice: no public page states it.",
    )
    return scaled, latency_model.OTHER_CORE_FACTOR * CONFIGURED_FACTOR, notes
