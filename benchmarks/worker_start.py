"""Start-up time and memory of the workers, beside the standard library's fork server.

python -m benchmarks.worker_start [--runs 5]

Both run the same jobs in two processes at a time, each in a fresh process in which the job's frameworks are
imported: two jobs for each format. Ours has a server for each process, which imports what its next job needs;
`multiprocessing`'s has one server, which imports every framework before it forks. Prints the seconds until
the first and until the last job has ended, the most memory that the whole process tree holds at once, and the
ratios.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from benchmarks.process_memory import run_and_watch_memory
from exporter.pipeline.context import TORCH

JOBS_A_FORMAT = 2
PROCESSES = 2
RUN = "from benchmarks.worker_start import run_pool; run_pool"
"""The start of a program that measures one pool: workers can import the jobs from this module by its name."""


def format_preloads() -> list[tuple[str, ...]]:
    """Return the modules that each job needs."""
    from exporter.formats import FORMATS

    return [(*TORCH, *spec.PRELOAD) for spec in FORMATS.values() for _ in range(JOBS_A_FORMAT)]


def import_and_compute(modules: Sequence[str]) -> float:
    """Import the modules, compute with torch, and return the time at which that has ended."""
    for module in modules:
        importlib.import_module(module)
    import torch

    assert float(torch.ones(64, 64).matmul(torch.ones(64, 64)).sum()) == 64.0**3
    return time.monotonic()


def run_ours(preloads: Sequence[tuple[str, ...]]) -> list[float]:
    """Run the jobs in the project's pool and return the times at which they ended."""
    from exporter.pipeline.workers.jobs import Job
    from exporter.pipeline.workers.pool import WorkerPool

    jobs = [Job(str(i), import_and_compute, (modules,), modules) for i, modules in enumerate(preloads)]
    with tempfile.TemporaryDirectory() as folder, WorkerPool(PROCESSES, Path(folder) / "log") as pool:
        return [outcome.result() for outcome in pool.run(jobs)]


def run_standard_library(preloads: Sequence[tuple[str, ...]]) -> list[float]:
    """Run the jobs by `multiprocessing`'s fork server and return the times at which they ended."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*dict.fromkeys(name for modules in preloads for name in modules)])
    with ProcessPoolExecutor(PROCESSES, mp_context=context, max_tasks_per_child=1) as pool:
        return [
            future.result() for future in as_completed(pool.submit(import_and_compute, m) for m in preloads)
        ]


POOLS: dict[str, Callable[[Sequence[tuple[str, ...]]], list[float]]] = {
    "ours": run_ours,
    "forkserver": run_standard_library,
}


def run_pool(name: str) -> None:
    """Run every job in one pool and print the seconds to the first and to the last job's end."""
    preloads = format_preloads()
    start = time.monotonic()
    ends = [end - start for end in POOLS[name](preloads)]
    sys.stdout.write(f"{min(ends)} {max(ends)}\n")


def measure_pool(name: str) -> tuple[float, float, float]:
    """Return seconds to the first end, seconds to the last end, and the peak memory in MB."""
    with tempfile.TemporaryFile() as log:
        run = run_and_watch_memory([sys.executable, "-c", f"{RUN}({name!r})"], log)
        log.seek(0)
        output = log.read().decode(errors="replace")
    if run.code:
        raise subprocess.CalledProcessError(run.code, name, output)
    first, last = map(float, output.strip().splitlines()[-1].split())
    return first, last, run.peak_bytes / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5, help="runs of each pool, in turns")
    arguments = parser.parse_args()
    runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in POOLS}
    for _ in range(arguments.runs):
        for name in POOLS:
            runs[name].append(measure_pool(name))
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in runs.items()
    }
    sys.stdout.write("pool        first job, s  last job, s  peak, MB\n")
    for name, (first, last, peak) in medians.items():
        sys.stdout.write(f"{name:<12}{first:>11.2f}{last:>13.2f}{peak:>10.0f}\n")
    ratios = [a / b for a, b in zip(medians["forkserver"], medians["ours"], strict=True)]
    sys.stdout.write(f"{'ratio':<12}{ratios[0]:>11.2f}{ratios[1]:>13.2f}{ratios[2]:>10.2f}\n")


if __name__ == "__main__":
    main()
