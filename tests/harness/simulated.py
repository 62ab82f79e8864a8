"""Simulated devices for tests: the real adbd, reached through a private adb server.

    from tests.harness import simulated

    with simulated.devices(count=1, arch="x86_64") as (device,):
        device.serial, device.server_port          # for adb: ANDROID_ADB_SERVER_PORT, AdbClient(port=...)
        device.misbehave("offline", after_bytes=1 << 20, seconds=3.0)   # kinds: Simulated.misbehave
        device.misbehave("none")                   # ends all faults
        device.reconnect()                         # adb disconnect + connect
        device.root_path / "data/local/tmp"        # the device's files, from outside
        device.adb("shell", "id")                  # the adb client: CompletedProcess[str]

    with simulated.devices(count=2, serials=("lab phone 1", "lab phone 2")) as (one, two): ...

Skips the test, with the reason, where no simulated device can run. About 0.6 s per device.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from android_harness.simulator import base, server
from android_harness.simulator.device import SimulatedDevice, start_simulated_device
from android_harness.simulator.soc import Arch
from tests.harness.renaming_server import renaming_server

COMMAND = (
    sys.executable,
    "-c",
    "import sys; from android_harness import parse; from exporter.cli import main; "
    "parse.parse_load1 = lambda text: 0.5; main(sys.argv[1:])",
)
"""Runs export-mobile without the load check, because simulated devices show the load of this machine."""


@dataclass(frozen=True)
class TestDevice:
    """A simulated device that is connected to an adb server."""

    __test__ = False
    simulated: SimulatedDevice
    serial: str
    server_port: int
    real_port: int

    @property
    def root_path(self) -> Path:
        return self.simulated.root_path

    def misbehave(self, kind: str, **options: float) -> None:
        self.simulated.misbehave(kind, **options)

    def reconnect(self) -> None:
        server.connect_to_server(self.simulated.address, self.real_port)

    def adb(self, *argv: str, timeout_s: float = 20.0) -> subprocess.CompletedProcess[str]:
        """Run the adb client on this device."""
        return adb(self.server_port, "-s", self.serial, *argv, timeout_s=timeout_s)


def cmdline(pid: int) -> bytes:
    """Return the command line of a process of this machine; empty if it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def adb(port: int, *argv: str, timeout_s: float = 20.0) -> subprocess.CompletedProcess[str]:
    """Run the adb client against the server at `port`."""
    import adbutils

    environment = os.environ | {"ANDROID_ADB_SERVER_PORT": str(port)}
    return subprocess.run(
        [adbutils.adb_path(), *argv],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def skip_where_impossible() -> None:
    pytest.importorskip("adbutils")
    if reason := base.missing_for_base():
        pytest.skip(reason)


@contextmanager
def devices(
    count: int = 1, arch: Arch = "x86_64", serials: tuple[str, ...] = ()
) -> Iterator[tuple[TestDevice, ...]]:
    """Start devices behind a private adb server; the devices and the server end with the block."""
    skip_where_impossible()
    with ExitStack() as stack:
        real_port = stack.enter_context(server.private_adb_server())
        started = []
        for _ in range(count):
            started.append(start_simulated_device(arch))
            stack.callback(started[-1].down)
            server.connect_to_server(started[-1].address, real_port)
        shown = serials or tuple(device.address for device in started)
        pairs = {device.address: name for device, name in zip(started, shown, strict=True)}
        port = stack.enter_context(renaming_server(real_port, pairs)) if serials else real_port
        yield tuple(
            TestDevice(device, name, port, real_port) for device, name in zip(started, shown, strict=True)
        )
