"""Start, stop and list simulated devices, and make them misbehave."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import android_harness
from android_harness.errors import DeviceError, SetupError
from android_harness.host import host_environment_of_programs
from android_harness.simulator import base
from android_harness.simulator.soc import Arch, Soc, soc_files

RUN = Path("/run/export-mobile-simulator")
"""Contains a folder per running device. The path is short because a socket's path must be."""
START_S = 30.0
EMULATOR = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
HERE = Path(__file__).parent


@dataclass(frozen=True)
class SimulatedDevice:
    """A running simulated device."""

    name: str
    address: str
    """The address that the adb server connects to; also its serial, unless a renaming server is used."""
    keeper: int
    """Process id of its keeper."""
    keeper_started: int
    init: int
    """Process id, on the host, of the device's process 1."""
    arch: Arch
    soc: Soc
    attached: bool
    """Whether it ends with the process that started it."""

    @property
    def root_path(self) -> Path:
        """The device's root, readable and writable from outside."""
        return Path(f"/proc/{self.init}/root")

    @property
    def folder(self) -> Path:
        return RUN / self.name

    @property
    def alive(self) -> bool:
        return _simulated_device_started_at(self.keeper) == self.keeper_started

    def misbehave(self, kind: str, **options: float) -> None:
        """Cause a fault from now on.

        Kinds and their options: `none` (ends all faults), `unauthorized`, `offline` (after_bytes,
        seconds), `slow_link` (bytes_per_second), `disk_full` (free_bytes), `killed_runner` (after_s),
        `hang` (after_s), `reboot` (seconds), `throttling`, `low_battery` (percent), `thermal_overridden`.

        Raises:
            DeviceError: There is no such kind or option, or the device has ended.
        """
        try:
            with socket.socket(socket.AF_UNIX) as control:
                control.settimeout(10.0)
                control.connect(str(self.folder / "control"))
                control.sendall(json.dumps({"kind": kind, "options": options}).encode() + b"\n")
                answer: Mapping[str, Any] = json.loads(control.makefile().readline())
        except OSError as problem:
            raise DeviceError(f"The simulated device {self.address} does not answer: {problem}.") from problem
        if answer["error"]:
            raise DeviceError(f"The simulated device {self.address} cannot do {kind!r}: {answer['error']}.")

    def down(self) -> None:
        """End the device and delete what it left; do nothing if it has already ended."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.keeper, signal.SIGKILL)
        _wait_until_device_gone(self)
        shutil.rmtree(self.folder, ignore_errors=True)


def start_simulated_device(
    arch: Arch = "x86_64",
    soc: Soc = "snapdragon865",
    *,
    attached: bool = True,
    observer: Callable[[str], None] = lambda line: None,
) -> SimulatedDevice:
    """Start a device and wait until its adbd answers, about half a second once the base exists.

    Args:
        arch: The programs that it runs: the host's, or arm64 programs through qemu.
        soc: The SoC that it imitates.
        attached: Whether it ends with the calling process; otherwise only `down` ends it.
        observer: Called with a line for each slow step.

    Raises:
        SetupError: A requirement is missing, or it did not start.
    """
    root = base.base_root(observer)
    observer("Starting a device")
    if arch == "aarch64":
        _emulate_arm64_device()
    name = f"sim-{secrets.token_hex(4)}"
    folder = RUN / name
    (folder / "mnt").mkdir(parents=True)
    _write_simulated_device_files(folder / "fake", arch)
    visible = _python_paths_of_simulated_device() if arch == "x86_64" else []
    keeper = _start_keeper_of_device(
        [str(folder), str(root), "attached" if attached else "detached", *visible], folder
    )
    running = _wait_for_simulated_device(keeper, folder)
    device = SimulatedDevice(
        name,
        f"127.0.0.1:{running['port']}",
        keeper.pid,
        _simulated_device_started_at(keeper.pid),
        running["init"],
        arch,
        soc,
        attached,
    )
    (folder / "device.json.new").write_text(json.dumps(asdict(device)))
    (folder / "device.json.new").rename(folder / "device.json")
    return device


def running_simulated_devices() -> tuple[SimulatedDevice, ...]:
    """Return the running devices of this machine, whoever started them; remove what dead ones left."""
    devices = []
    for folder in RUN.glob("sim-*"):
        try:
            device = SimulatedDevice(**json.loads((folder / "device.json").read_text()))
        except FileNotFoundError:
            continue  # it is starting, or was just removed
        if device.alive:
            devices.append(device)
        else:
            device.down()
    devices.sort(key=lambda device: device.keeper_started)
    return tuple(devices)


def _write_simulated_device_files(folder: Path, arch: Arch) -> None:
    """Write the overlay: files that imitate a phone's."""
    for path, text in soc_files(arch).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    for source, target in ((HERE / "system/init", "sim/init"), (HERE / "system/bin", "system/bin")):
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, folder / target)
        else:
            shutil.copy(source, folder / target)
    for entry in (folder, *folder.rglob("*")):
        # Explicit modes, whatever the umask is: adbd is not root.
        script = entry.parent.name == "bin" or entry.name == "init"
        entry.chmod(0o755 if entry.is_dir() or script else 0o644)


def _python_paths_of_simulated_device() -> list[str]:
    """Return where the host has LibTorch, which its build of the runner is linked with."""
    return sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


def _start_keeper_of_device(arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    environment = host_environment_of_programs() | {
        "PYTHONPATH": str(Path(android_harness.__file__).parent.parent)
    }
    with (folder / "keeper.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "android_harness.simulator.keeper", *arguments],
            stdin=subprocess.PIPE if arguments[2] == "attached" else subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )


def _wait_for_simulated_device(keeper: subprocess.Popen[bytes], folder: Path) -> Mapping[str, int]:
    _keepers.append(keeper)
    deadline = time.monotonic() + START_S
    while not (folder / "running.json").exists():
        if keeper.poll() is not None or time.monotonic() > deadline:
            keeper.kill()
            keeper.wait()
            logs = "".join(
                (folder / log).read_text() for log in ("boot.log", "keeper.log") if (folder / log).exists()
            )
            shutil.rmtree(folder, ignore_errors=True)
            raise SetupError(
                f"The simulated device did not start: {logs.strip()[-600:] or 'its logs are empty'}."
            )
        time.sleep(0.02)
    answer: Mapping[str, int] = json.loads((folder / "running.json").read_text())
    return answer


_keepers: list[subprocess.Popen[bytes]] = []
"""The keepers of this process: their pipes keep attached devices running, and they must be reaped."""


def _simulated_device_started_at(pid: int) -> int:
    """Return when a process started, to distinguish it from a later one with its id; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def _wait_until_device_gone(device: SimulatedDevice) -> None:
    deadline = time.monotonic() + 10.0
    while (device.alive or _is_init_of_device(device)) and time.monotonic() < deadline:
        time.sleep(0.01)
    for keeper in [keeper for keeper in _keepers if keeper.pid == device.keeper]:
        keeper.wait()
        if keeper.stdin:
            keeper.stdin.close()
        _keepers.remove(keeper)


def _is_init_of_device(device: SimulatedDevice) -> bool:
    """Whether the device's process 1 still runs: its namespaces and mounts end with it."""
    try:
        return b"/sim/init" in Path(f"/proc/{device.init}/cmdline").read_bytes()
    except OSError:
        return False


def _emulate_arm64_device() -> None:
    """Make the kernel run arm64 programs through qemu. It opens qemu now, because the device has none."""
    if not EMULATOR.parent.joinpath("register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "none", str(EMULATOR.parent)], check=False)
    if EMULATOR.exists() and "F" in EMULATOR.read_text().split("flags:")[1].split("\n")[0]:
        return
    qemu = shutil.which("qemu-aarch64-static")
    if not qemu:
        raise SetupError(
            "Emulating arm64 needs QEMU and binfmt.", "Debian: apt install qemu-user-static binfmt-support"
        )
    magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    if EMULATOR.exists():
        EMULATOR.write_text("-1")
    EMULATOR.with_name("register").write_text(f":qemu-aarch64:M::{magic}:{mask}:{qemu}:F")
