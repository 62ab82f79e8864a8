"""Runs a command, and watches the memory of its whole process tree."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

import psutil


@dataclass(frozen=True)
class ProcessTreeRun:
    """One run of a command: wall seconds, and the most that its whole process tree held at once."""

    seconds: float
    peak_bytes: int
    code: int


def run_and_watch_memory(command: Sequence[str], log: IO[bytes]) -> ProcessTreeRun:
    """Run a command to its end and sample its process tree's memory five times a second."""
    started, peak = time.monotonic(), 0
    process = subprocess.Popen(command, stdout=log, stderr=log)
    while process.poll() is None:
        peak = max(peak, process_tree_bytes(process.pid))
        time.sleep(0.2)
    return ProcessTreeRun(time.monotonic() - started, peak, process.returncode)


def process_tree_bytes(root: int) -> int:
    """Return the proportional set size of a process and its descendants, without those that just ended."""
    try:
        process = psutil.Process(root)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    return sum(map(_process_bytes, family))


def _process_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0
