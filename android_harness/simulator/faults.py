"""Change the processes, files and readings of a device from outside."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from android_harness.simulator.soc import CPUFREQ, POLICIES, THERMAL, ZONES, SocPolicy, soc_time_in_state

TICK_S = 0.25
"""Interval at which a device's readings change."""
HOTTEST = 95000
"""In thousandths of a degree."""
DATA_BYTES = 4 << 30


def processes_for_fault(init: int) -> list[int]:
    """Return the ids, on the host, of all processes in the device except its process 1."""
    namespace = str(Path(f"/proc/{init}/ns/pid").readlink())
    pids = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - several times a second; Path would double its cost
        if entry.isdecimal() and int(entry) != init:
            try:
                if os.readlink(f"/proc/{entry}/ns/pid") == namespace:  # noqa: PTH115 - as above
                    pids.append(int(entry))
            except OSError:
                continue  # it has ended
    return pids


def runners_for_fault(init: int) -> list[int]:
    """Return the ids of runners, whose file is named runner-…, also under an emulator."""
    return [
        pid
        for pid in processes_for_fault(init)
        if any(name.startswith("runner") for name in _process_names_for_fault(pid))
    ]


def _process_names_for_fault(pid: int) -> list[str]:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
    first = [Path(os.fsdecode(argument)).name for argument in arguments[:3]]
    # A shell that starts a runner is not a runner.
    return [] if first[0] in {"sh", "bash", "dash"} else first


def kill_by_fault(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def write_for_fault(root: Path, path: str, text: str) -> None:
    """Replace a file of the device atomically."""
    target = root / path
    aside = target.with_name(f".{target.name}")
    aside.write_text(text)
    shutil.copystat(target, aside)
    status = target.stat()
    os.chown(aside, status.st_uid, status.st_gid)
    aside.rename(target)


def resize_data_by_fault(init: int, free_bytes: int | None) -> None:
    """Leave this much free space on /data, or plenty for None; its files stay."""
    usage = os.statvfs(f"/proc/{init}/root/data")
    used = (usage.f_blocks - usage.f_bfree) * usage.f_frsize
    size = DATA_BYTES if free_bytes is None else used + max(free_bytes, usage.f_frsize)
    enter = ["nsenter", f"--target={init}", "--mount", f"--root=/proc/{init}/root"]
    subprocess.run([*enter, "mount", "-o", f"remount,size={size}", "/data"], check=True, capture_output=True)


class FaultPhysics:
    """Clocks and temperatures that follow the device's load; constant ones would test nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.throttling = False
        self._heat = 0
        self._ticks = {policy: dict.fromkeys(policy.khz, 1000) for policy in POLICIES}

    def tick(self, busy: bool) -> None:
        """Advance by `TICK_S`, with or without a running runner."""
        heat = min(HOTTEST, self._heat + 8000) if busy and self.throttling else max(0, self._heat - 4000)
        if heat != self._heat:
            self._show_heat(heat)
        for policy in POLICIES:
            self._show_clock(policy, busy)

    def _cap(self, policy: SocPolicy) -> int:
        """Return a cluster's clock limit: the prime core's falls a step for every 12 degrees."""
        steps = self._heat // 12000 if policy.name == "policy7" else 0
        return policy.khz[max(0, len(policy.khz) - 1 - steps)]

    def _show_heat(self, heat: int) -> None:
        self._heat = heat
        for number, (name, idle) in enumerate(ZONES):
            if name.startswith(("cpu-", "cpuss-")) and name.endswith("-usr"):
                write_for_fault(
                    self.root, f"{THERMAL}/thermal_zone{number}/temp", f"{min(HOTTEST, idle + heat)}\n"
                )
        write_for_fault(self.root, "sim/thermal/status", "3\n" if heat >= 24000 else "0\n")

    def _show_clock(self, policy: SocPolicy, busy: bool) -> None:
        cap = self._cap(policy)
        current = cap if busy else policy.khz[0]
        self._ticks[policy][current] += int(TICK_S * 100)
        folder = f"{CPUFREQ}/{policy.name}"
        write_for_fault(self.root, f"{folder}/scaling_max_freq", f"{cap}\n")
        write_for_fault(self.root, f"{folder}/scaling_cur_freq", f"{current}\n")
        write_for_fault(self.root, f"{folder}/stats/time_in_state", soc_time_in_state(self._ticks[policy]))
