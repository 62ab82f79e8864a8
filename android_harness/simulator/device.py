"""A simulated device as its user holds it: start it, let it misbehave, stop it, find those that run."""

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
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import android_harness
from android_harness.errors import DeviceError, SetupError
from android_harness.simulator import base
from android_harness.simulator.soc import Arch, Soc, device_files

RUN = Path("/run/export-mobile-simulator")
"""A folder per running device: short, as a control socket's path must be, and gone with the processes."""
START_S = 30.0
EMULATOR = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Simulated:
    """A running simulated device."""

    name: str
    address: str
    """What adb's server connects to; its serial, unless a renaming server calls it otherwise."""
    keeper: int
    """Process id of the one process that holds it."""
    keeper_started: int
    init: int
    """The device's process 1, as the host numbers it."""
    arch: Arch
    soc: Soc
    attached: bool
    """It ends with the process that started it."""

    @property
    def root_path(self) -> Path:
        """The device's root, seen and writable from outside."""
        return Path(f"/proc/{self.init}/root")

    @property
    def folder(self) -> Path:
        return RUN / self.name

    @property
    def alive(self) -> bool:
        return _started(self.keeper) == self.keeper_started

    def misbehave(self, kind: str, **options: float) -> None:
        """Let something go wrong, from now on.

        Kinds and their options: `none` (all is well again), `unauthorized`, `offline` (after_bytes,
        seconds), `slow_link` (bytes_per_second), `disk_full` (free_bytes), `killed_runner` (after_s),
        `hang` (after_s), `reboot` (seconds), `throttling`, `low_battery` (percent), `thermal_overridden`.

        Raises:
            DeviceError: No such kind or option, or the device is gone.
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
        """End it and everything it left; does nothing when it has ended already."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.keeper, signal.SIGKILL)
        _wait_until_gone(self)
        shutil.rmtree(self.folder, ignore_errors=True)


def start(arch: Arch = "x86_64", soc: Soc = "snapdragon865", *, attached: bool = True) -> Simulated:
    """Start one device, and wait until its adbd answers (about half a second once the base exists).

    Args:
        arch: Whose programs it runs: the host's, or arm64 ones through qemu.
        soc: What it looks like.
        attached: It ends with the calling process. Otherwise only `down` ends it.

    Raises:
        SetupError: Something it takes is missing, or it did not start.
    """
    root = base.base_root()
    if arch == "aarch64":
        _emulate_arm64()
    name = f"sim-{secrets.token_hex(4)}"
    folder = RUN / name
    (folder / "mnt").mkdir(parents=True)
    _write_fake(folder / "fake", arch)
    seen = _python_paths() if arch == "x86_64" else []
    keeper = _start_keeper([str(folder), str(root), "attached" if attached else "detached", *seen], folder)
    running = _wait_for_start(keeper, folder)
    device = Simulated(
        name,
        f"127.0.0.1:{running['port']}",
        keeper.pid,
        _started(keeper.pid),
        running["init"],
        arch,
        soc,
        attached,
    )
    (folder / "device.json.new").write_text(json.dumps(asdict(device)))
    (folder / "device.json.new").rename(folder / "device.json")
    return device


def running() -> tuple[Simulated, ...]:
    """The devices of this machine that are up, whoever started them; removes what dead ones left."""
    devices = []
    for folder in RUN.glob("sim-*"):
        try:
            device = Simulated(**json.loads((folder / "device.json").read_text()))
        except FileNotFoundError:
            continue  # starting, or just removed by somebody else
        if device.alive:
            devices.append(device)
        else:
            device.down()
    devices.sort(key=lambda device: device.keeper_started)
    return tuple(devices)


def _write_fake(folder: Path, arch: Arch) -> None:
    """What lies over the base: files that only look like a phone's."""
    for path, text in device_files(arch).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    for source, target in ((HERE / "system/init", "sim/init"), (HERE / "system/bin", "system/bin")):
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, folder / target)
        else:
            shutil.copy(source, folder / target)
    for entry in (folder, *folder.rglob("*")):
        # Not the umask's: adbd is not root. A wheel does not keep the scripts' own bits either.
        script = entry.parent.name == "bin" or entry.name == "init"
        entry.chmod(0o755 if entry.is_dir() or script else 0o644)


def _python_paths() -> list[str]:
    """Where the host keeps the runtimes that its own build of the runner is linked with."""
    packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    library = Path(sysconfig.get_config_var("LIBDIR") or "/") / (
        sysconfig.get_config_var("INSTSONAME") or "-"
    )
    # The file alone: the folder may be /usr/lib, and the device has a C library of its own there.
    return sorted(packages) + ([str(library)] if library.is_file() and ".so" in library.name else [])


def _start_keeper(arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(Path(android_harness.__file__).parent.parent)}
    with (folder / "keeper.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "android_harness.simulator.keeper", *arguments],
            stdin=subprocess.PIPE if arguments[2] == "attached" else subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )


def _wait_for_start(keeper: subprocess.Popen[bytes], folder: Path) -> Mapping[str, int]:
    _keepers.append(keeper)
    deadline = time.monotonic() + START_S
    while not (folder / "running.json").exists():
        if keeper.poll() is not None or time.monotonic() > deadline:
            keeper.kill()
            keeper.wait()
            said = "".join(
                (folder / log).read_text() for log in ("boot.log", "keeper.log") if (folder / log).exists()
            )
            shutil.rmtree(folder, ignore_errors=True)
            raise SetupError(
                f"The simulated device did not start: {said.strip()[-600:] or 'it said nothing'}."
            )
        time.sleep(0.02)
    answer: Mapping[str, int] = json.loads((folder / "running.json").read_text())
    return answer


_keepers: list[subprocess.Popen[bytes]] = []
"""Those of this process: the pipe each holds keeps an attached device up, and they must be reaped."""


def _started(pid: int) -> int:
    """When the kernel says it started, telling it from a later process of that number; 0 if gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def _wait_until_gone(device: Simulated) -> None:
    deadline = time.monotonic() + 10.0
    while (device.alive or _is_init(device)) and time.monotonic() < deadline:
        time.sleep(0.01)
    for keeper in [keeper for keeper in _keepers if keeper.pid == device.keeper]:
        keeper.wait()
        if keeper.stdin:
            keeper.stdin.close()
        _keepers.remove(keeper)


def _is_init(device: Simulated) -> bool:
    """The device's process 1 is still there: its namespaces and mounts end with it."""
    try:
        return b"/sim/init" in Path(f"/proc/{device.init}/cmdline").read_bytes()
    except OSError:
        return False


def _emulate_arm64() -> None:
    """Have the kernel run arm64 programs through qemu, which it must open now: the device has none."""
    if not EMULATOR.parent.joinpath("register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "none", str(EMULATOR.parent)], check=False)
    if EMULATOR.exists() and "F" in EMULATOR.read_text().split("flags:")[1].split("\n")[0]:
        return
    qemu = shutil.which("qemu-aarch64-static")
    if not qemu:
        raise SetupError("Emulating arm64 needs the Debian packages qemu-user-static and binfmt-support.")
    magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    if EMULATOR.exists():
        EMULATOR.write_text("-1")
    EMULATOR.with_name("register").write_text(f":qemu-aarch64:M::{magic}:{mask}:{qemu}:F")
