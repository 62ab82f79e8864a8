"""The measure stage: times every artifact that runs on this host.

Latencies are compared, and the load of a machine changes by the minute. So files of one runtime are timed in
one process, in blocks that take turns, and a set of files is in the cache as a whole or not at all: a latency
of an earlier run is never compared with one of this run.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from exporter.files import digest_file, digest_file_or_folder, file_size_bytes
from exporter.pipeline import cache, stage_results
from exporter.pipeline.cached_steps import Step, cached_steps
from exporter.pipeline.context import Context, Event, preload_of_context
from exporter.pipeline.stage_results import CheckedArtifactResult
from exporter.pipeline.workers.jobs import Job
from exporter.records import Latency, Sample, Variant

File = tuple[Path, Variant]
Latencies = tuple[Latency | None, ...]
BLOCK_CALLS = 5
MOST_CALLS = 200
TURNS = 4
"""Blocks of a file at least."""
WARM_UP_CALLS = 10
SLOW_S = 4.0
"""Seconds after which fewer calls are enough: those of a large network take a second or more."""
TOGETHER_BYTES = 256 << 20
"""Files that are larger together are not loaded together: a runtime holds up to twice a file's weights."""


def measure_host_latencies(
    files: Sequence[File], evidence_path: Path, threads: int, budget_s: float = 2.0
) -> Latencies:
    """Time files of one runtime in turn, on real inputs, after a warm-up of each.

    Warm-up: at least 10 calls and 0.3 s, fewer calls after `SLOW_S`. Then blocks of 5 calls, in alternating
    order, up to 200 calls of each file, fewer when `budget_s` for each is over; at least 20, or 10 where
    these take `SLOW_S`. Large files are loaded one at a time, twice each, in either order.

    Returns:
        A latency for each file; None for one whose runtime fails.
    """
    from exporter.verify import reference_io

    samples = reference_io.load_reference_io(evidence_path).samples()[:8]
    places = list(range(len(files)))
    groups = [places]
    if len(files) > 1 and sum(file_size_bytes(path) for path, _ in files) > TOGETHER_BYTES:
        groups = [[place] for place in (*places, *reversed(places))]
    rounds = len(groups) // len(files) or 1
    taken: list[list[int]] = [[] for _ in files]
    for group in groups:
        durations = _host_latency_durations(
            [files[place] for place in group], samples, threads, budget_s / rounds, TURNS // rounds
        )
        for place, more in zip(group, durations, strict=True):
            taken[place] += more
    return tuple(_host_latency_of_durations(durations, threads) if durations else None for durations in taken)


def _host_latency_durations(
    files: Sequence[File], samples: Sequence[Sample], threads: int, budget_s: float, least_turns: int
) -> list[list[int]]:
    """Load files, and return the nanoseconds of each call of each; nothing for one that fails."""
    calls = [_load_for_host_latency(path, variant, samples, threads) for path, variant in files]
    taken: list[list[int]] = [[] for _ in files]
    usable = [
        index for index, call in enumerate(calls) if call is not None and _warm_up_for_host_latency(call)
    ]
    started = time.monotonic()
    for turn in range(least_turns * MOST_CALLS // BLOCK_CALLS // TURNS if usable else 0):
        for index in usable if turn % 2 == 0 else reversed(usable):
            taken[index] += _host_latency_block(cast("Callable[[], object]", calls[index]))
        each_s = (time.monotonic() - started) / len(usable)
        least = least_turns if each_s < SLOW_S else least_turns // 2
        if turn + 1 >= least and each_s >= budget_s:
            break
    return taken


def _load_for_host_latency(
    path: Path, variant: Variant, samples: Sequence[Sample], threads: int
) -> Callable[[], object] | None:
    from exporter.formats import FORMATS

    try:
        run, _ = FORMATS[variant.format].load(path, variant, threads)
    except Exception:  # whatever a runtime makes of its file: what does not run has no latency
        return None
    turn = itertools.cycle(samples)
    return lambda: run(next(turn))


def _warm_up_for_host_latency(call: Callable[[], object]) -> bool:
    started, calls = time.monotonic(), 0
    try:
        while calls < WARM_UP_CALLS or time.monotonic() - started < 0.3:
            call()
            calls += 1
            if calls > 1 and time.monotonic() - started > SLOW_S:
                break
    except Exception:  # as above
        return False
    return True


def _host_latency_block(call: Callable[[], object]) -> list[int]:
    durations = []
    for _ in range(BLOCK_CALLS):
        begin = time.perf_counter_ns()
        call()
        durations.append(time.perf_counter_ns() - begin)
    return durations


def _host_latency_of_durations(durations: Sequence[int], threads: int) -> Latency:
    import numpy as np

    p50, p90 = np.percentile(durations, [50, 90]) / 1e6
    return Latency(float(p50), float(p90), len(durations), threads, tuple(durations))


def measure_host_latencies_of_artifacts(
    context: Context, built: Sequence[stage_results.BuildResult], checked: Mapping[str, CheckedArtifactResult]
) -> Mapping[str, Latency]:
    """Time every artifact that ran here, one runtime after the other; stand-ins' times say nothing."""
    ran = stage_results.stage_results_run_here(built, checked)
    context.observer(Event("measure", f"{len(ran)} artifacts", 0, len(ran)))
    latencies = measure_host_latencies_together(
        context, [(context.folders.out / str(item.file), item.variant) for item in ran]
    )
    pairs = zip(ran, latencies, strict=True)
    return {item.variant.name: latency for item, latency in pairs if latency is not None}


def measure_host_latencies_together(context: Context, files: Sequence[File]) -> Latencies:
    """Time files that are to be compared, or take what the cache knows of all of them.

    Returns:
        A latency for each file; None for one whose runtime fails.
    """
    whole = cache.cache_key(*(digest_file_or_folder(path) for path, _ in files))
    places: dict[str, list[int]] = {}
    for place, (_, variant) in enumerate(files):
        places.setdefault(variant.format, []).append(place)
    steps = [
        _host_latency_step(context, name, [files[p] for p in own], whole) for name, own in places.items()
    ]
    by_format = cached_steps(context.run_silently, context.cache, "measure", steps)
    latencies: list[Latency | None] = [None] * len(files)
    for own, measured in zip(places.values(), by_format, strict=True):
        for place, latency in zip(own, measured, strict=True):
            latencies[place] = latency
    return tuple(latencies)


def _host_latency_step(context: Context, name: str, files: Sequence[File], whole: str) -> Step:
    key = cache.cache_key(
        cache.cache_toolchain_key(),
        whole,
        name,
        digest_file(context.evidence),
        _threads_for_host_latency(context),
    )
    arguments = (tuple(files), context.evidence, _threads_for_host_latency(context))
    preload = preload_of_context(files[0][1])
    job = Job(f"{name} latencies", measure_host_latencies, arguments, preload=preload, read_only=True)
    nothing: Latencies = (None,) * len(files)
    return Step("latencies", key, Latencies, lambda _: job, failed=lambda _: nothing)


def measure_host_latencies_beside(
    context: Context, base: File, latency: Latency, files: Sequence[File]
) -> Latencies:
    """Time files of one runtime in turn with one whose latency is known, and scale theirs accordingly.

    Args:
        context: The run.
        base: The file that the others are compared with.
        latency: Its latency in this run.
        files: The others.
    """
    anew, *others = measure_host_latencies_together(context, [base, *files])
    factor = latency.p50_ms / anew.p50_ms if anew is not None and anew.p50_ms else 1.0
    return tuple(other and _scale_host_latency(other, factor) for other in others)


def _scale_host_latency(latency: Latency, factor: float) -> Latency:
    calls = tuple(round(call * factor) for call in latency.samples_ns)
    return Latency(latency.p50_ms * factor, latency.p90_ms * factor, latency.samples, latency.threads, calls)


def _threads_for_host_latency(context: Context) -> int:
    return context.request.threads or min(len(os.sched_getaffinity(0)), 4)
