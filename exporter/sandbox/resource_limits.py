"""Resource limits: a bound on memory and time wherever Python runs on a Unix."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from pathlib import Path

from exporter.sandbox.confinement import GIB, Confinement

LOG_BYTES = 64 << 20
OUTPUT_BYTES = 64 * GIB
OPEN_FILES = 4096


_time_is_bounded = False
"""Whether this process's time is bounded here: another timer is none of ours."""


def enter_resource_limits(confinement: Confinement) -> None:
    """Bound memory, time and files of this process.

    RLIMIT_NPROC is left alone: it counts all processes of a user, not those of this one.
    """
    global _time_is_bounded
    _time_is_bounded = True
    _lower_resource_limit(resource.RLIMIT_CORE, 0)
    _lower_resource_limit(resource.RLIMIT_DATA, confinement.memory_bytes)
    _lower_resource_limit(resource.RLIMIT_AS, _limit_address_space_resource() + confinement.memory_bytes)
    _lower_resource_limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    _lower_resource_limit(resource.RLIMIT_FSIZE, OUTPUT_BYTES if confinement.writes else LOG_BYTES)
    _lower_resource_limit(resource.RLIMIT_CPU, int(confinement.seconds * (os.cpu_count() or 1)) + 60)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, confinement.seconds)


def resource_limit_of_seconds_anew(seconds: float) -> None:
    """Begin the bound on a confined process's wall time anew, for its next piece of work."""
    if _time_is_bounded:
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _lower_resource_limit(kind: int, limit: int) -> None:
    _, hard = resource.getrlimit(kind)
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    with contextlib.suppress(OSError, ValueError):  # macOS refuses some
        resource.setrlimit(kind, (limit, limit))


def _limit_address_space_resource() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 16 * GIB
    return pages * resource.getpagesize()
