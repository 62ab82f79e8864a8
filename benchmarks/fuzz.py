"""Makes fresh hostile files by seed, gives them to export-mobile, and counts what became of them.

    python -m benchmarks.fuzz --count 1000 --seed 1

Each file is read as `inspect`, `export` and `verify` read it, in a process of its own. Of the five figures
all but the first must be zero: a file that was read or refused with one message is handled. One that ends in
an unexpected error, makes a canary file, or takes more than its time or memory is not.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks import hostile
from exporter.errors import ExportError

MEMORY_BYTES = 4 << 30
TEXT = 1_500
"""A message with its hint fits a screen."""


@dataclass(frozen=True)
class Outcome:
    """What became of one file: one of the five figures, and a line for people."""

    figure: str
    detail: str = ""


FIGURES = ("handled", "tracebacks", "code run", "over time", "over memory")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--count", type=int, default=1_000, help="files to make")
    options.add_argument("--seed", type=int, default=0, help="another seed makes other files")
    options.add_argument("--seconds", type=float, default=60.0, help="what one file may take")
    options.add_argument("--keep", type=Path, help="where files that were not handled are kept")
    given = options.parse_args()
    from exporter.pipeline.workers import preload  # noqa: F401 - imported once, for every process

    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    slowest = largest = 0.0
    with tempfile.TemporaryDirectory(prefix="export-mobile-fuzz-") as folder:
        for index in range(given.count):
            maker = random.Random(f"{given.seed}/{index}")
            kind = list(hostile.KINDS)[index % len(hostile.KINDS)]
            place = Path(folder) / str(index)
            place.mkdir()
            outcome, seconds, peak = try_one(kind, maker, place, given.seconds)
            counts[outcome.figure] += 1
            kinds[kind] += 1
            slowest, largest = max(slowest, seconds), max(largest, peak)
            if outcome.figure != "handled":
                print(f"seed {given.seed}, file {index}, {kind}: {outcome.figure}: {outcome.detail}")
                _keep(place, given.keep, f"{given.seed}-{index}-{kind}")
            shutil.rmtree(place, ignore_errors=True)
    print(f"\n{given.count} files, seed {given.seed}: " + ", ".join(f"{n} {k}" for k, n in kinds.items()))
    for figure in FIGURES:
        print(f"{figure:<12} {counts[figure]:>6}")
    print(f"slowest {slowest:.1f} s, largest {largest / 2**30:.2f} GiB")
    sys.exit(counts["handled"] != given.count)


def try_one(kind: str, maker: random.Random, place: Path, seconds: float) -> tuple[Outcome, float, float]:
    """Make one file and read it in a process of its own.

    Returns:
        What became of it, the seconds it took, and the process's peak memory in bytes.
    """
    canary = place / "canary"
    canary.mkdir()
    attempt = hostile.KINDS[kind](maker, place, canary)
    began = time.monotonic()
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = os.fork()
    if process == 0:
        receiver.close()
        _read(attempt, place, sender)
    sender.close()
    outcome = Outcome("tracebacks", "its process died")
    if not receiver.poll(seconds):
        os.killpg(process, signal.SIGKILL)
        outcome = Outcome("over time", f"more than {seconds:.0f} s")
    else:
        with contextlib.suppress(EOFError):
            outcome = receiver.recv()
    _, status, usage = os.wait4(process, 0)
    taken, peak = time.monotonic() - began, usage.ru_maxrss * 1024.0
    if os.WIFSIGNALED(status) and outcome.detail == "its process died":
        outcome = Outcome("tracebacks", f"its process died of signal {os.WTERMSIG(status)}")
    if left := [path.name for path in canary.iterdir()]:
        outcome = Outcome("code run", f"it made {left}")
    elif peak > MEMORY_BYTES:
        outcome = Outcome("over memory", f"{peak / 2**30:.1f} GiB")
    return outcome, taken, peak


def _read(attempt: Callable[[], object], place: Path, sender: Connection) -> None:
    """Read the file as a command would, in the folder of the canary, and report how it ended."""
    try:
        os.setsid()
        os.chdir(place / "canary")
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        sender.send(_attempt(attempt))
    finally:
        os._exit(0)


def _attempt(attempt: Callable[[], object]) -> Outcome:
    # Twice the bound: what goes over it must be seen, and not take the machine with it.
    resource.setrlimit(resource.RLIMIT_DATA, (2 * MEMORY_BYTES, 2 * MEMORY_BYTES))
    try:
        attempt()
    except ExportError as error:
        clean = all(c.isprintable() or c == "\n" for c in str(error))
        if len(str(error)) > TEXT or not clean:
            return Outcome("tracebacks", f"a message of {len(str(error))} characters: {str(error)[:200]!a}")
        return Outcome("handled", str(error)[:200])
    except MemoryError:
        return Outcome("over memory", "MemoryError")
    except BaseException:
        return Outcome("tracebacks", "".join(traceback.format_exc()[-1500:]))
    return Outcome("handled", "read")


def _keep(place: Path, folder: Path | None, name: str) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        place.rename(folder / name)
        place.mkdir()


if __name__ == "__main__":
    main()
