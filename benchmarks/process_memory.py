"""Runs a command, and watches the memory and the processor time of its whole process tree."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

import psutil


@dataclass(frozen=True)
class ProcessTreeRun:
    """One run of a command: its time, and the most that its whole process tree held at once."""

    seconds: float
    """Wall seconds."""
    cpu_seconds: float
    """Seconds of processors, of all processes together: what a busy machine changes little."""
    peak_bytes: int
    code: int


def run_and_watch_memory(command: Sequence[str], log: IO[bytes]) -> ProcessTreeRun:
    """Run a command to its end and sample its process tree five times a second."""
    started, peak = time.monotonic(), 0
    cpu_seconds: dict[int, float] = {}
    process = subprocess.Popen(command, stdout=log, stderr=log)
    while process.poll() is None:
        family = _process_family(process.pid)
        peak = max(peak, sum(map(_process_bytes, family)))
        for member in family:  # one that has just ended keeps what was read before
            cpu_seconds[member.pid] = max(cpu_seconds.get(member.pid, 0.0), _process_cpu_seconds(member))
        time.sleep(0.2)
    seconds = time.monotonic() - started
    return ProcessTreeRun(seconds, sum(cpu_seconds.values()), peak, process.returncode)


def _process_family(root: int) -> list[psutil.Process]:
    """Return a process and its descendants; nothing where it has ended."""
    try:
        process = psutil.Process(root)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _process_cpu_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _process_bytes(process: psutil.Process) -> int:
    """Return the proportional set size of a process: shared pages are split between those that map them."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0
