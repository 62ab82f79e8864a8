"""The runtimes' own libraries, which their wheels carry: pip unpacks these into a folder of the cache.

The environment's own `executorch` is older: it lowers models, and its wheel has no library without Python and
torch. Nothing imports what is unpacked here; only the runner is linked with it.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from android_harness.errors import SetupError

EXECUTORCH = "1.5.1"
"""The first version whose wheels have the runtime as libraries of its own; it reads the programs of 1.4."""
ARM64 = "aarch64"
FETCH_S = 900.0


def wheels_cache_root() -> Path:
    """Return `$EXPORT_MOBILE_CACHE`, or the project's folder in the user's cache."""
    if chosen := os.environ.get("EXPORT_MOBILE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "export-mobile"


def wheels_folder(machine: str) -> Path:
    """Return the folder of the unpacked wheels for a machine ("aarch64", "x86_64")."""
    name = f"{machine}-executorch-{EXECUTORCH}-onnxruntime-{onnxruntime_version_of_wheel()}"
    return wheels_cache_root() / "wheels" / name


def onnxruntime_version_of_wheel() -> str:
    return importlib.metadata.version("onnxruntime")


def find_wheels(machine: str) -> Path | None:
    """Return the folder of the unpacked wheels for a machine; None if they are not all there."""
    folder = wheels_folder(machine)
    library = folder / "executorch/lib/libexecutorch.so"
    # pip moves whole packages into place, ExecuTorch's licence folder last.
    whole = any(folder.glob(f"executorch-{EXECUTORCH}.dist-info/RECORD"))
    return folder if whole and library.is_file() and find_onnxruntime_in_wheel(folder) else None


def find_onnxruntime_in_wheel(folder: Path) -> Path | None:
    """Return ONNX Runtime's library in unpacked wheels or another install folder; None without one."""
    debian = (f"lib/{machine}-linux-gnu" for machine in (ARM64, platform.machine()))
    places = ("onnxruntime/capi", "capi", "lib", "lib64", "jni/arm64-v8a", *debian)
    paths = (path for place in places for path in sorted((folder / place).glob("libonnxruntime.so*")))
    return next((path for path in paths if path.is_file()), None)


def fetch_wheels_command(machine: str, folder: Path | None = None) -> list[str]:
    """Return pip's command that brings the wheels for a machine.

    Args:
        machine: "aarch64" or "x86_64".
        folder: Where they are unpacked; `wheels_folder` if None.
    """
    tags = [f"--platform=manylinux_2_{glibc}_{machine}" for glibc in (28, 27)]
    options = [
        "--no-deps",
        "--no-compile",
        "--only-binary=:all:",
        f"--python-version={_python_version_of_wheels()}",
        *tags,
    ]
    target = f"--target={folder or wheels_folder(machine)}"
    wanted = [f"executorch=={EXECUTORCH}", f"onnxruntime=={onnxruntime_version_of_wheel()}"]
    return ["pip", "install", *options, target, *wanted]


def fetch_wheels_hint(machine: str) -> str:
    """Return the command that brings the wheels, as a user types it."""
    return f"Bring them: {shlex.join(fetch_wheels_command(machine))}"


def fetch_wheels(machine: str) -> Path:
    """Return the folder of the unpacked wheels; download them if they are not there.

    Raises:
        SetupError: pip failed.
    """
    folder = wheels_folder(machine)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not find_wheels(machine):
            _unpack_wheels(machine, folder)
    return folder


def _unpack_wheels(machine: str, folder: Path) -> None:
    """Unpack the wheels aside, so that what is in their folder is whole."""
    aside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        _run_pip_for_wheels(fetch_wheels_command(machine, aside))
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _python_version_of_wheels() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _run_pip_for_wheels(command: list[str]) -> None:
    reason = f"pip took longer than {FETCH_S:.0f} s"
    try:
        done = subprocess.run(
            [sys.executable, "-m", *command, "--quiet"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=FETCH_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pass
    else:
        if not done.returncode:
            return
        lines = [line for line in done.stderr.splitlines() if "rror" in line] or done.stderr.splitlines()
        reason = " ".join(lines[:2])[:400] or f"pip ended with {done.returncode}"
    raise SetupError(
        f"The runtimes' wheels could not be downloaded: {reason}",
        "It needs the package index once; check the network and try again.",
        code="EM-RUNNER-BUILD",
    )
