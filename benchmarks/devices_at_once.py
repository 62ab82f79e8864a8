"""Seconds for one, two and three simulated devices at once, whose runner only sleeps. Aim: ratio below 1.3.

    python benchmarks/devices_at_once.py [--seconds 2]

Run it from a clone with the package installed, as root: simulated devices take namespaces of their own.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the stand-in runner lies with the tests

from android_harness import adb, all_devices
from android_harness.push import Program
from android_harness.records import BenchConfig
from android_harness.simulator import base
from tests.harness import sessions, simulated


def measure(count: int, seconds: float) -> float:
    """Return the seconds that a bench of `count` devices takes."""
    with simulated.devices(count=count) as simulated_devices, tempfile.TemporaryDirectory() as name:
        os.environ["ANDROID_ADB_SERVER_PORT"] = str(simulated_devices[0].server_port)
        program = Program(sessions.device_stand_in(Path(name)))
        work = sessions.task(Path(name), f"sleep {seconds:g}")
        plan = BenchConfig(launches=2, min_seconds=0.0, max_seconds=30.0, wait_s=60.0)
        devices = [adb.AdbDevice(device.serial) for device in simulated_devices]
        began = time.monotonic()
        outcomes = all_devices.bench_all_devices(
            devices,
            [work],
            plan,
            soc=None,
            observer=lambda serial, message: None,
            programs=lambda device, identity: lambda backend: program,
        )
        took = time.monotonic() - began
    for outcome in outcomes.values():
        if outcome.error:
            raise outcome.error
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=2.0)
    seconds = parser.parse_args().seconds
    if reason := base.missing_for_base():
        print(f"Not run: {reason}")
        return
    print("devices  seconds  ratio")
    baseline = 0.0
    for count in (1, 2, 3):
        took = measure(count, seconds)
        baseline = baseline or took
        print(f"{count:7} {took:8.2f} {took / baseline:6.2f}", flush=True)


if __name__ == "__main__":
    main()
