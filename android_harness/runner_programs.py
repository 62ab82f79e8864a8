"""Choose the runner that fits a device, with the libraries beside it."""

from __future__ import annotations

from pathlib import Path

from android_harness import (
    runner_build,
)
from android_harness.one_device import Programs
from android_harness.push import Program
from android_harness.records import (
    Build,
    Device,
    Identity,
)


def runner_programs_for_device(device: Device, identity: Identity) -> Programs:
    """Return the runners that `runner build` made for the device's kind of system.

    Raises:
        SetupError: They are not built.
        DeviceError: The device does not answer.
    """
    target = _runner_program_target(device, identity)
    return lambda backend: _runner_program(runner_build.find_runner_build(target, backend))


def _runner_program(binary: Path) -> Program:
    """Return a runner with the libraries next to it: even on the host it is copied to another folder."""
    beside = (path for pattern in ("*.so*", "*.json") for path in binary.parent.glob(pattern))
    return Program(binary, tuple(sorted(path for path in beside if path.is_file())))


def _runner_program_target(device: Device, identity: Identity) -> Build:
    if identity.machine != "aarch64":
        return "host"
    android = device.run("test", "-e", "/system/bin/linker64").exit_code == 0
    return "android-arm64" if android else "linux-arm64"
