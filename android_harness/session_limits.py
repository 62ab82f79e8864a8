"""Judge a session by its limits of memory, load time and first call."""

from __future__ import annotations

import re
from collections.abc import Iterator

from android_harness.latencies import Figures
from android_harness.records import BenchConfig, Session

SMAPS = "/proc/self/smaps_rollup"
"""The runner reads it between chunks of calls; kernels before 4.14 lack it."""


def exceeded_session_limits(config: BenchConfig, figures: Figures) -> tuple[str, ...]:
    """Return a sentence for every limit that was exceeded, or that could not be checked."""
    return tuple(_exceeded_session_limit(config, figures))


def _exceeded_session_limit(config: BenchConfig, figures: Figures) -> Iterator[str]:
    memory = config.memory_budget_bytes
    if memory is not None and figures.peak_bytes is None:
        yield f"Its peak memory is unknown, so that the limit of {memory / 1e6:.1f} MB could not be checked."
    elif memory is not None and figures.peak_bytes is not None and figures.peak_bytes > memory:
        peak, limit_mb = figures.peak_bytes / 1e6, memory / 1e6
        yield f"It took {peak:.1f} MB of memory at its peak; the limit is {limit_mb:.1f} MB."
    for noun, value, limit in (
        ("Loading it", figures.load_ms, config.load_budget_ms),
        ("Its first call", figures.first_ms, config.first_budget_ms),
    ):
        if limit is not None and value > limit:
            yield f"{noun} took {value:.3g} ms; the limit is {limit:.3g} ms."


def peak_pss_bytes_for_session_limit(session: Session) -> int | None:
    """Return the highest PSS that the runner read between chunks of timed calls; None if it read none."""
    texts = (clock.texts.get(SMAPS, "") for launch in session.launches for clock in launch.clocks)
    found = (re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE) for text in texts)
    return max((int(match[1]) * 1024 for match in found if match), default=None)
