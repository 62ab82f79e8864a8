"""What a confined process may do, and the bounds on what it may use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30
MEMORY_BYTES = 4 * GIB
"""Bound on the memory of reading or running a model of up to SMALL_FILE_BYTES."""
SMALL_FILE_BYTES = 64 << 20
MEMORY_PER_BYTE = 40
"""What each byte of a larger file adds to the bound: weights are copied, and held as float64."""
READ_SECONDS = 50.0
"""Bound on the wall time of reading such a checkpoint, finding its network and running that once."""
SECONDS_PER_BYTE = 1e-6
"""What each byte of a larger file adds to that."""
RUN_SECONDS = 900.0
"""Bound on the wall time of any other confined job."""
FLOPS_PER_SECOND = 1e9
"""What the slowest kernels compute on one core of a busy machine."""
SECONDS_PER_EVIDENCE_BYTE = 2e-7
"""What each byte of reference inputs and outputs adds: an artifact's outputs are compared with them."""


@dataclass(frozen=True)
class Confinement:
    """What one process may do. Python, its packages and the system's libraries are always readable."""

    reads: tuple[Path, ...] = ()
    """Files, and folders with everything below, that it may also read."""
    writes: tuple[Path, ...] = ()
    """Folders it may change, the first also for temporary files; without any it can write nothing."""
    forks: bool = False
    """Whether it may start processes, which are confined as it is."""
    programs: bool = False
    """Whether these may run programs: ExecuTorch's lowering starts FlatBuffers' compiler."""
    seconds: float = RUN_SECONDS
    memory_bytes: int = MEMORY_BYTES


def confinement_seconds(file_bytes: int) -> float:
    """The wall time that reading a model file of this size may take."""
    return READ_SECONDS + SECONDS_PER_BYTE * max(0, file_bytes - SMALL_FILE_BYTES)


def confinement_run_seconds(file_bytes: int, evidence_bytes: int, flops: int) -> float:
    """The wall time that it may take to run an artifact on all inputs, and to compare the outputs.

    Args:
        file_bytes: Size of the artifact.
        evidence_bytes: Size of the inputs and of the outputs that are expected.
        flops: What the model computes on all inputs; 0 where it is not known.
    """
    work = evidence_bytes * SECONDS_PER_EVIDENCE_BYTE + flops / FLOPS_PER_SECOND
    return confinement_seconds(file_bytes) + min(work, 2 * RUN_SECONDS)


def confinement_memory(file_bytes: int) -> int:
    """The memory that a model file of this size may take, in bytes."""
    return MEMORY_BYTES + MEMORY_PER_BYTE * max(0, file_bytes - SMALL_FILE_BYTES)
