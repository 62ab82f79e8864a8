"""The process that keeps one simulated device: it starts the device, relays adb and causes faults.

When this process ends, for whatever reason, the kernel kills the device's process 1.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from android_harness.simulator import faults
from android_harness.simulator.link import ADBD, SimulatedLink
from android_harness.simulator.soc import THERMAL, ZONES

CLONE_NEWNET = 0x40000000
BOOT_S = 20.0


def boot_by_keeper(folder: Path, base: Path, seen: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the device's process 1; the kernel kills it when this process or `unshare` ends."""
    script = Path(__file__).with_name("boot.sh")
    namespaces = ("--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child")
    inside = ("sh", str(script), str(folder), str(base), *seen)
    with (folder / "boot.log").open("wb") as log:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", *namespaces, "--", *inside],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def find_init_for_keeper(unshare: int) -> int | None:
    """Return the only child of `unshare`."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(status.read_text().rpartition(")")[2].split()[1]) == unshare:
                return int(status.parent.name)
    return None


def enter_network_of_keeper(init: int) -> None:
    """Move the calling thread into the device's network; its new connections stay inside the device."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/{init}/ns/net").open("rb") as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


class Keeper:
    """Causes the faults that `Simulated.misbehave` requests."""

    def __init__(self, init: int) -> None:
        self.init = init
        self.root = Path(f"/proc/{init}/root")
        self.link = SimulatedLink()
        self.physics = faults.FaultPhysics(self.root)
        self._signal: signal.Signals | None = None
        self._after_s = 0.0
        self._on: asyncio.TimerHandle | None = None
        self.kinds: dict[str, Callable[..., None]] = {
            "none": self.behave,
            "unauthorized": lambda: self.link.authorize(False),
            "offline": self._offline,
            "slow_link": self._slow_link,
            "disk_full": lambda free_bytes=0: faults.resize_data_by_fault(self.init, free_bytes),
            "killed_runner": lambda after_s=0.0: self._strike(signal.SIGKILL, after_s),
            "hang": lambda after_s=0.0: self._strike(signal.SIGSTOP, after_s),
            "reboot": self._reboot,
            "throttling": self._throttle,
            "low_battery": self._low_battery,
            "thermal_overridden": lambda: faults.write_for_fault(self.root, "sim/thermal/override", "true\n"),
        }

    def behave(self) -> None:
        self.link.heal()
        self._power_on()
        self._signal = None
        self.physics.throttling = False
        faults.resize_data_by_fault(self.init, None)
        faults.kill_by_fault(faults.runners_for_fault(self.init), signal.SIGCONT)
        self._low_battery(percent=84, status=2)
        faults.write_for_fault(self.root, "sim/thermal/override", "false\n")
        faults.write_for_fault(self.root, "sim/thermal/status", "0\n")

    def _offline(self, after_bytes: int = 1 << 20, seconds: float = 3.0) -> None:
        self.link.cut_after, self.link.out_for_s = after_bytes, seconds

    def _slow_link(self, bytes_per_second: int = 1 << 20) -> None:
        self.link.bytes_per_second = bytes_per_second

    def _strike(self, number: signal.Signals, after_s: float) -> None:
        self._signal, self._after_s = number, after_s

    def _throttle(self) -> None:
        self.physics.throttling = True

    def _low_battery(self, percent: int = 9, status: int = 3) -> None:
        faults.write_for_fault(self.root, "sim/battery/level", f"{percent}\n")
        faults.write_for_fault(self.root, "sim/battery/status", f"{status}\n")
        soc = next(index for index, (name, _) in enumerate(ZONES) if name == "soc")
        faults.write_for_fault(self.root, f"{THERMAL}/thermal_zone{soc}/temp", f"{percent}\n")

    def _reboot(self, seconds: float = 2.0) -> None:
        self._power_on()
        (self.root / "sim/off").touch()
        self._on = asyncio.get_running_loop().call_later(seconds, self._power_on)
        self.link.unplug(seconds)
        faults.kill_by_fault(faults.processes_for_fault(self.init), signal.SIGKILL)

    def _power_on(self) -> None:
        if self._on:
            self._on.cancel()
        (self.root / "sim/off").unlink(missing_ok=True)

    async def live(self) -> None:
        """Let time pass inside the device."""
        since: dict[int, float] = {}
        next_tick = time.monotonic()
        while True:
            running = faults.runners_for_fault(self.init)
            since = {pid: since.get(pid, time.monotonic()) for pid in running}
            if time.monotonic() >= next_tick:
                self.physics.tick(busy=bool(running))
                next_tick += faults.TICK_S
            self._strike_due(since)
            # A runner may live for less than a tick, so look more often while one must be struck.
            await asyncio.sleep(0.02 if self._signal else faults.TICK_S)

    def _strike_due(self, since: dict[int, float]) -> None:
        if self._signal is not None:
            now = time.monotonic()
            due = [pid for pid, start in since.items() if now - start >= self._after_s]
            faults.kill_by_fault(due, self._signal)

    async def obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one line with {"kind", "options"} and answer with one line with {"error"}."""
        try:
            order: dict[str, Any] = json.loads(await reader.readline())
            self.kinds[order["kind"]](**order["options"])
            error = ""
        except Exception as problem:  # the caller must get any error
            error = f"{type(problem).__name__}: {problem}"
        writer.write(json.dumps({"error": error}).encode() + b"\n")
        await writer.drain()
        writer.close()


async def keeper_main(folder: Path, base: Path, seen: Sequence[str], attached: bool) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    unshare = boot_by_keeper(folder, base, seen)
    init = await asyncio.wait_for(_keeper_waits_for_adbd(unshare), BOOT_S)
    keeper = Keeper(init)
    control = await asyncio.start_unix_server(keeper.obey, folder / "control")
    _announce_keeper(folder, init, listener.getsockname()[1])
    jobs = [
        keeper.link.serve(listener),
        keeper.live(),
        control.serve_forever(),
        _keeper_waits_for_end(unshare),
    ]
    if attached:
        jobs.append(_keeper_waits_for_parent())
    await asyncio.wait([asyncio.ensure_future(job) for job in jobs], return_when=asyncio.FIRST_COMPLETED)


async def _keeper_waits_for_adbd(unshare: subprocess.Popen[bytes]) -> int:
    while (init := find_init_for_keeper(unshare.pid)) is None:
        await _keeper_is_alive(unshare)
    while Path(f"/proc/{init}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
        await _keeper_is_alive(unshare)
    enter_network_of_keeper(init)
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(*ADBD)
            writer.close()
            return init
        await _keeper_is_alive(unshare)


async def _keeper_is_alive(unshare: subprocess.Popen[bytes]) -> None:
    if unshare.poll() is not None:
        raise RuntimeError(f"the device's process 1 ended with {unshare.returncode}")
    await asyncio.sleep(0.02)


def _announce_keeper(folder: Path, init: int, port: int) -> None:
    aside = folder / "running.json.new"
    aside.write_text(json.dumps({"init": init, "port": port}))
    aside.rename(folder / "running.json")


async def _keeper_waits_for_end(unshare: subprocess.Popen[bytes]) -> None:
    while unshare.poll() is None:
        await asyncio.sleep(0.2)


async def _keeper_waits_for_parent() -> None:
    """Wait until the parent closes its pipe, by ending or by dying."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()


if __name__ == "__main__":
    _, folder_, base_, attached_, *seen_ = sys.argv
    asyncio.run(keeper_main(Path(folder_), Path(base_), seen_, attached_ == "attached"))
    os._exit(0)  # the kernel ends the device, so no cleanup is needed
