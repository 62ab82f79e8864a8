"""What simulated devices and measuring on them need, and the command that brings each missing part."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys

from android_harness import runner_build
from android_harness.errors import SetupError
from android_harness.records import Backend, Build
from android_harness.runner_runtimes import EXTRA
from android_harness.simulator.base import PROGRAMS
from android_harness.simulator.device import EMULATOR
from android_harness.simulator.soc import Arch

BACKENDS: tuple[Backend, ...] = ("executorch", "onnxruntime")


def missing_device_parts(arch: Arch) -> tuple[str, ...]:
    """Return a sentence for every part without which no device starts; none where one can start."""
    if sys.platform != "linux":
        return ("Simulated devices need Linux.",)
    parts = []
    if os.geteuid() != 0:
        parts.append("Simulated devices need root (namespaces, overlayfs). Run it with sudo.")
    for package in sorted({package for name, package in PROGRAMS.items() if not shutil.which(name)}):
        names = ", ".join(name for name, owner in PROGRAMS.items() if owner == package)
        parts.append(f"{names} is missing. Debian: apt install {package}")
    if importlib.util.find_spec("adbutils") is None:
        parts.append(f"The client of adb is not installed. Install it: {EXTRA}")
    if arch == "aarch64" and not EMULATOR.exists() and not shutil.which("qemu-aarch64-static"):
        parts.append("qemu-aarch64-static is missing. Debian: apt install qemu-user-static binfmt-support")
    return tuple(parts)


def missing_bench_parts(arch: Arch) -> tuple[str, ...]:
    """Return a sentence for every runner that these devices lack, and for what a build of it lacks."""
    target: Build = "linux-arm64" if arch == "aarch64" else "host"
    runners = []
    for backend in BACKENDS:
        try:
            runner_build.find_runner_build(target, backend)
        except SetupError as error:
            runners.append(f"{error.message} {error.hint}")
    return (*runner_build.missing_runner_build_parts(target), *runners) if runners else ()
