"""What goes wrong inside a device: its processes, files and readings, seen and changed from outside."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from android_harness.simulator.soc import CPUFREQ, POLICIES, THERMAL, ZONES, Policy, time_in_state

TICK_S = 0.25
"""How often a device's readings move."""
HOTTEST = 95000
"""Thousandths of a degree."""
DATA_BYTES = 4 << 30


def processes(init: int) -> list[int]:
    """The host's process ids of everything in the device but its process 1."""
    namespace = str(Path(f"/proc/{init}/ns/pid").readlink())
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - several times a second; Path would double its cost
        if entry.isdecimal() and int(entry) != init:
            try:
                if os.readlink(f"/proc/{entry}/ns/pid") == namespace:  # noqa: PTH115 - as above
                    found.append(int(entry))
            except OSError:
                continue  # ended meanwhile
    return found


def runners(init: int) -> list[int]:
    """Those that are a runner: its file is named runner-<build>-<hash>, also under an emulator."""
    return [pid for pid in processes(init) if any(name.startswith("runner") for name in _names(pid))]


def _names(pid: int) -> list[str]:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
    first = [Path(os.fsdecode(argument)).name for argument in arguments[:3]]
    # A shell that was told to start one is none.
    return [] if first[0] in {"sh", "bash", "dash"} else first


def kill(pids: list[int], what: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, what)
        except ProcessLookupError:
            continue


def write(root: Path, path: str, text: str) -> None:
    """Replace a file of the device so that no reader sees half of it."""
    target = root / path
    aside = target.with_name(f".{target.name}")
    aside.write_text(text)
    shutil.copystat(target, aside)
    status = target.stat()
    os.chown(aside, status.st_uid, status.st_gid)
    aside.rename(target)


def resize_data(init: int, free_bytes: int | None) -> None:
    """Leave so much space on /data; None for plenty. What lies there stays."""
    usage = os.statvfs(f"/proc/{init}/root/data")
    used = (usage.f_blocks - usage.f_bfree) * usage.f_frsize
    size = DATA_BYTES if free_bytes is None else used + max(free_bytes, usage.f_frsize)
    enter = ["nsenter", f"--target={init}", "--mount", f"--root=/proc/{init}/root"]
    subprocess.run([*enter, "mount", "-o", f"remount,size={size}", "/data"], check=True, capture_output=True)


class Physics:
    """Clocks and temperatures that follow what the device does: constant ones would prove nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.throttling = False
        self._heat = 0
        self._ticks = {policy: dict.fromkeys(policy.khz, 1000) for policy in POLICIES}

    def tick(self, busy: bool) -> None:
        """`TICK_S` go by, with a runner at work or without."""
        heat = min(HOTTEST, self._heat + 8000) if busy and self.throttling else max(0, self._heat - 4000)
        if heat != self._heat:
            self._show_heat(heat)
        for policy in POLICIES:
            self._show_clock(policy, busy)

    def _cap(self, policy: Policy) -> int:
        """The prime core's cap falls a step with every 12 degrees; the others keep theirs."""
        steps = self._heat // 12000 if policy.name == "policy7" else 0
        return policy.khz[max(0, len(policy.khz) - 1 - steps)]

    def _show_heat(self, heat: int) -> None:
        self._heat = heat
        for number, (name, idle) in enumerate(ZONES):
            if name.startswith(("cpu-", "cpuss-")) and name.endswith("-usr"):
                write(self.root, f"{THERMAL}/thermal_zone{number}/temp", f"{min(HOTTEST, idle + heat)}\n")
        write(self.root, "sim/thermal/status", "3\n" if heat >= 24000 else "0\n")

    def _show_clock(self, policy: Policy, busy: bool) -> None:
        cap = self._cap(policy)
        current = cap if busy else policy.khz[0]
        self._ticks[policy][current] += int(TICK_S * 100)
        folder = f"{CPUFREQ}/{policy.name}"
        write(self.root, f"{folder}/scaling_max_freq", f"{cap}\n")
        write(self.root, f"{folder}/scaling_cur_freq", f"{current}\n")
        write(self.root, f"{folder}/stats/time_in_state", time_in_state(self._ticks[policy]))
