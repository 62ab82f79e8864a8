"""The measure stage: times every artifact that runs on this host."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from exporter.files import digest_file, digest_file_or_folder
from exporter.pipeline import cache, results
from exporter.pipeline.context import Context, Event, preload_of_context
from exporter.pipeline.results import CheckedArtifactResult
from exporter.pipeline.steps import Step, cached_steps
from exporter.pipeline.workers.pool import Job
from exporter.records import Latency, Variant


def measure_latency(
    path: Path, variant: Variant, evidence_path: Path, threads: int, budget_s: float = 2.0
) -> Latency:
    """Time the artifact in its runtime on real inputs, after a warm-up.

    Warm-up: at least 10 calls and 0.3 s. Then up to 200 calls, fewer when `budget_s` is over, at least 20.
    """
    import numpy as np

    from exporter.formats import FORMATS
    from exporter.verify import reference_io

    run, _ = FORMATS[variant.format].load(path, variant, threads)
    samples = reference_io.load(evidence_path).samples()[:8]
    started, calls = time.monotonic(), 0
    while calls < 10 or time.monotonic() - started < 0.3:
        run(samples[calls % len(samples)])
        calls += 1
    taken: list[int] = []
    started = time.monotonic()
    while len(taken) < 200 and (len(taken) < 20 or time.monotonic() - started < budget_s):
        begin = time.perf_counter_ns()
        run(samples[len(taken) % len(samples)])
        taken.append(time.perf_counter_ns() - begin)
    p50, p90 = np.percentile(taken, [50, 90]) / 1e6
    return Latency(float(p50), float(p90), len(taken), threads, tuple(taken))


def measure_artifacts(
    context: Context, built: Sequence[results.BuildResult], checked: Mapping[str, CheckedArtifactResult]
) -> Mapping[str, Latency]:
    """Time every artifact that ran here, one at a time so that nothing disturbs the figures."""
    ran = [b for b in built if b.file and checked[b.variant.name].verdict.comparison is not None]
    latencies: dict[str, Latency] = {}
    for done, item in enumerate(ran):
        context.observer(Event("measure", item.variant.name, done, len(ran)))
        path = context.folders.out / str(item.file)
        if (latency := measure_host_latency(context, path, item.variant)) is not None:
            latencies[item.variant.name] = latency
    return latencies


def measure_host_latency(context: Context, path: Path, variant: Variant) -> Latency | None:
    """Time one file here, or take what the cache knows of it; None when its runtime fails."""
    key = cache.cache_key(
        cache.cache_toolchain_key(),
        digest_file_or_folder(path),
        digest_file(context.evidence),
        _threads_to_measure(context),
    )
    arguments = (path, variant, context.evidence, _threads_to_measure(context))
    job = Job(variant.name, measure_latency, arguments, preload=preload_of_context(variant), read_only=True)
    step = Step("latency", key, Latency, lambda _: job, failed=lambda _: None)
    (latency,) = cached_steps(context.run_silently, context.cache, "measure", [step])
    return cast("Latency | None", latency)


def _threads_to_measure(context: Context) -> int:
    return context.request.threads or min(len(os.sched_getaffinity(0)), 4)
