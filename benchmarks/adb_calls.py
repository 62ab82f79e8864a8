"""What one call to a device costs: through adbutils' sockets, and by a process of the adb program.

    python -m benchmarks.adb_calls [--calls 50]

Starts a simulated device, which needs Linux and root, and prints the median and the slowest time of a shell
command and of a copied file, in milliseconds, with the processor time of each call.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from android_harness import adb
from tests.harness import simulated

FILE_BYTES = 4 << 20


def processor_s() -> float:
    """Return the processor time of this process and its ended children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def report(calls: dict[str, Callable[[], object]], repeats: int) -> None:
    """Print the median, the slowest and the processor time of each call; the calls take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    processor = dict.fromkeys(calls, 0.0)
    for _ in range(repeats + 1):
        for name, call in calls.items():
            start, used = time.perf_counter(), processor_s()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
            processor[name] += 1e3 * (processor_s() - used)
    print(f"{'ms':28} {'median':>8} {'slowest':>8} {'processor':>10}")
    for name, taken in times.items():
        middle, slowest, used = statistics.median(taken[1:]), max(taken[1:]), processor[name] / len(taken)
        print(f"{name:28} {middle:8.1f} {slowest:8.1f} {used:10.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=50)
    calls = parser.parse_args().calls
    with simulated.devices() as (device,), tempfile.TemporaryDirectory() as folder:
        os.environ["ANDROID_ADB_SERVER_PORT"] = str(device.server_port)
        phone = adb.connect_adb(device.serial)
        source = Path(folder) / "file"
        source.write_bytes(os.urandom(FILE_BYTES))
        target = f"{phone.root}/file"

        def program(*argv: str) -> None:
            command = ["adb", "-s", device.serial, *argv]
            subprocess.run(command, check=True, capture_output=True, timeout=20)

        calls_by_name: dict[str, Callable[[], object]] = {
            "shell, sockets": lambda: phone.run("true"),
            "shell, adb program": lambda: program("shell", "true"),
            "push 4 MB, sockets": lambda: phone.push(source, target),
            "push 4 MB, adb program": lambda: program("push", str(source), target),
        }
        report(calls_by_name, calls)


if __name__ == "__main__":
    main()
