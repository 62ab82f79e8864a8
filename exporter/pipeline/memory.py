"""How much memory an export takes, and how many jobs run at once within it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exporter.errors import NotEnoughMemoryError
from exporter.pipeline.workers.pool import MAX_POOL_SIZE, default_pool_size

GIB = 1 << 30
WORKER_BYTES = 800 << 20
"""What a job takes beside the weights: frameworks, activations, compilers. See benchmarks/growth.py."""
COPIES = 4.0
"""Copies of the weights that the largest job holds at once, with some room: those that were measured hold up
to three and a half (the float64 reference, and what ONNX Runtime makes of a model)."""
LARGE_BYTES = 64 << 20
"""From here on jobs run one at a time: two would hold twice that many copies."""
CGROUP_LIMIT, CGROUP_USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


@dataclass(frozen=True)
class MemoryPlan:
    """How many worker processes an export runs at once, and what they may take together."""

    workers: int
    needed_bytes: int
    """The estimate of the peak of all of them."""
    free_bytes: int | None
    """What `--memory` gives, else what is free here; None where unknown."""

    def __str__(self) -> str:
        workers = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        free = f" of {self.free_bytes / GIB:.1f}" if self.free_bytes is not None else ""
        return f"{workers}, up to about {self.needed_bytes / GIB:.1f}{free} GiB of memory"


def plan_memory(weights_bytes: int, jobs: int = 0, memory_gib: float = 0) -> MemoryPlan:
    """Choose how many jobs run at once.

    Args:
        weights_bytes: The size of the weights as float32.
        jobs: The number of worker processes that the user asks for; 0 chooses it.
        memory_gib: GiB that all processes may take together; 0 takes what is free.

    Raises:
        NotEnoughMemoryError: One job alone takes more than that.
    """
    free = int(memory_gib * GIB) if memory_gib else free_memory_bytes()
    each = int(WORKER_BYTES + COPIES * weights_bytes)
    fitting = MAX_POOL_SIZE if free is None else free // each
    if not fitting:
        raise NotEnoughMemoryError(
            f"Exporting {weights_bytes / GIB:.2f} GiB of weights takes about {each / GIB:.1f} GiB of memory, "
            f"and {'--memory gives' if memory_gib else 'free are'} {(free or 0) / GIB:.1f}.",
            "Close other programs, or use a machine with more memory; --memory GIB tries with what you say.",
        )
    most = 1 if weights_bytes > LARGE_BYTES else default_pool_size()
    workers = jobs or min(most, fitting)
    return MemoryPlan(workers, workers * each, free)


def free_memory_bytes() -> int | None:
    """Return what is available without swapping, within a container's limit; None where unknown."""
    free = [size for size in (_available_memory_bytes(), _cgroup_memory_bytes()) if size is not None]
    return min(free, default=None)


def _available_memory_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return int(kilobytes) << 10 if kilobytes else None


def _cgroup_memory_bytes() -> int | None:
    try:
        limit, used = (path.read_text().strip() for path in (CGROUP_LIMIT, CGROUP_USED))
    except OSError:
        return None
    return max(0, int(limit) - int(used)) if limit.isdigit() and used.isdigit() else None
