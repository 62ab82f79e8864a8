"""How much memory an export takes, and how many jobs run at once within it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.errors import NotEnoughMemoryError
from exporter.pipeline.workers.pool import MAX_POOL_SIZE, default_pool_size
from exporter.records import TensorSpec

GIB = 1 << 30
FLOAT32_BYTES = 4
WORKER_BYTES = 800 << 20
"""What a job takes beside the weights: frameworks, activations, compilers. See benchmarks/growth.py."""
COPIES = 4.0
"""Copies of the weights that the largest job holds at once, with some room: those that were measured hold up
to three and a half (the float64 reference, and what ONNX Runtime makes of a model)."""
ACTIVATION_COPIES = 1.5
"""Room for values beside what float64 holds at once: the allocator's, and what a runtime plans."""
CALIBRATION_INPUTS, VERIFICATION_INPUTS, VERIFICATION_OUTPUTS = 2, 3, 11
"""Copies of each sample's inputs and outputs, as float32, in the job that computes or compares them."""
EDGE_INPUTS = 7
"""Inputs of their own that are verified beside the samples: zeros and the like."""
VALUES_LIMIT = 2
"""A job is stopped when it takes this many times what is expected for values, beside its other limit."""
LARGE_BYTES = 64 << 20
"""From here on jobs run one at a time: two would hold twice that many copies."""
CGROUP_LIMIT, CGROUP_USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


@dataclass(frozen=True)
class MemoryNeed:
    """What makes a job take memory."""

    weights_bytes: int
    """The weights as float32."""
    activation_bytes: int = 0
    """The most that one call's values take at once in float64."""
    samples_bytes: int = 0
    """The inputs and outputs of all samples, in all copies of them."""

    @property
    def value_bytes(self) -> int:
        """What a job takes for values, which are not weights."""
        return int(ACTIVATION_COPIES * self.activation_bytes) + self.samples_bytes

    @property
    def job_bytes(self) -> int:
        """The estimate of the largest job's peak."""
        return int(WORKER_BYTES + COPIES * self.weights_bytes) + self.value_bytes

    def __str__(self) -> str:
        values = f" with {self.value_bytes / GIB:.2f} GiB of values" if self.value_bytes else ""
        return f"{self.weights_bytes / GIB:.2f} GiB of weights{values}"


def samples_memory_bytes(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], calibration: int, verification: int
) -> int:
    """Return what so many calibration and verification samples take in the largest job."""
    verified = verification + EDGE_INPUTS
    of_inputs = (CALIBRATION_INPUTS * calibration + VERIFICATION_INPUTS * verified) * _specs_memory_bytes(
        inputs
    )
    return of_inputs + VERIFICATION_OUTPUTS * verified * _specs_memory_bytes(outputs)


def _specs_memory_bytes(specs: Sequence[TensorSpec]) -> int:
    return sum(FLOAT32_BYTES * math.prod(max(1, size) for size in spec.shape) for spec in specs)


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
    """Choose how many jobs run at once, from the weights alone: nothing has been read yet.

    Args:
        weights_bytes: The size of the weights as float32.
        jobs: The number of worker processes that the user asks for; 0 chooses it.
        memory_gib: GiB that all processes may take together; 0 takes what is free.

    Raises:
        NotEnoughMemoryError: One job alone takes more than that.
    """
    free = int(memory_gib * GIB) if memory_gib else free_memory_bytes()
    most = jobs or (1 if weights_bytes > LARGE_BYTES else default_pool_size())
    return _fitting_memory_plan(MemoryNeed(weights_bytes), most, bool(jobs), free, bool(memory_gib))


def plan_memory_of_network(planned: MemoryPlan, need: MemoryNeed, jobs: int, given: bool) -> MemoryPlan:
    """Choose anew once the network is known: its values may take more than its weights.

    Args:
        planned: The choice from the weights alone.
        need: The network's weights, values and samples.
        jobs: As for `plan_memory`.
        given: Whether `--memory` says what is free.

    Raises:
        NotEnoughMemoryError: One job alone takes more than what is free.
    """
    return _fitting_memory_plan(need, planned.workers, bool(jobs), planned.free_bytes, given)


def _fitting_memory_plan(
    need: MemoryNeed, most: int, asked: bool, free: int | None, given: bool
) -> MemoryPlan:
    fitting = MAX_POOL_SIZE if free is None else free // need.job_bytes
    if not fitting:
        raise NotEnoughMemoryError(
            f"Exporting {need} takes about {need.job_bytes / GIB:.1f} GiB of memory, "
            f"and {'--memory gives' if given else 'free are'} {(free or 0) / GIB:.1f}.",
            "Close other programs, or use a machine with more memory; --memory GIB tries with what you say."
            + (" A smaller --input-shape needs less." if need.value_bytes > need.weights_bytes else ""),
        )
    workers = most if asked else min(most, fitting)
    return MemoryPlan(workers, workers * need.job_bytes, free)


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
