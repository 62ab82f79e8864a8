"""Make the Debian root on which every simulated device is an overlay. It is made once and then only read."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from android_harness.errors import SetupError

RELEASE = "trixie"
FORMAT = 1
"""Incremented when `_make_base` installs other things."""
PROGRAMS = {
    "debootstrap": "debootstrap",
    "adb": "adb",
    "ip": "iproute2",
    "unshare": "util-linux",
    "setpriv": "util-linux",
}


def missing_for_base() -> str:
    """Return the reason why no simulated device can run here; empty if one can."""
    if sys.platform != "linux":
        return "simulated devices need Linux"
    if os.geteuid() != 0:
        return "simulated devices need root (namespaces, overlayfs)"
    packages = sorted({package for name, package in PROGRAMS.items() if not shutil.which(name)})
    return f"simulated devices need programs; Debian: apt install {' '.join(packages)}" if packages else ""


def base_cache_folder() -> Path:
    """Return EXPORT_MOBILE_SIMULATOR_ROOT, or a folder in the user's cache."""
    chosen = os.environ.get("EXPORT_MOBILE_SIMULATOR_ROOT")
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen) if chosen else user_cache / "export-mobile" / "simulator"


def base_root(observer: Callable[[str], None] = lambda line: None) -> Path:
    """Return the base; if it does not exist, make it in about a minute and a half.

    The observer is called with a line for each step of making it.

    It also contains ONNX Runtime for arm64: headers in usr/include/onnxruntime, the library in
    usr/lib/aarch64-linux-gnu/libonnxruntime.so.

    Raises:
        SetupError: A requirement is missing, or Debian's archive could not be read.
    """
    base = base_cache_folder() / f"{RELEASE}-{FORMAT}"
    if not base.exists():
        if reason := missing_for_base():
            raise SetupError(f"{reason[0].upper()}{reason[1:]}.")
        with _locked_base(base_cache_folder()):
            if not base.exists():
                _make_base(base, observer)
    return base


@contextmanager
def _locked_base(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_base(base: Path, observer: Callable[[str], None]) -> None:
    for leftover in base.parent.glob("making-*"):
        shutil.rmtree(leftover)
    aside = Path(tempfile.mkdtemp(prefix="making-", dir=base.parent))
    try:
        aside.chmod(0o755)
        observer(f"Making the devices' Debian root in {base}, once: 1 to 2 minutes")
        observer(f"Installing Debian {RELEASE} and adbd (debootstrap)")
        _run_for_base("debootstrap", "--variant=minbase", "--include=adbd", RELEASE, str(aside))
        shutil.copy("/etc/resolv.conf", aside / "etc/resolv.conf")
        for command in (
            ("dpkg", "--add-architecture", "arm64"),
            ("apt-get", "update", "-qq"),
            ("apt-get", "install", "-y", "-qq", "--no-install-recommends", "libonnxruntime-dev:arm64"),
            ("apt-get", "clean"),
        ):
            observer(f"In the root: {' '.join(command)}")
            _run_for_base("chroot", str(aside), *command)
        aside.rename(base)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _run_for_base(*argv: str) -> None:
    """Run a command in its own mount namespace, which removes what debootstrap mounts."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    completed = subprocess.run(
        ["unshare", "--mount", *argv], env=environment, capture_output=True, text=True, check=False
    )
    if completed.returncode:
        last = (completed.stdout + completed.stderr).strip().splitlines()[-3:]
        raise SetupError(
            f"The simulated device's base could not be created: {' '.join(argv[:3])} ended with "
            f"{completed.returncode}: {' / '.join(last)}.",
            "It needs Debian's package archive; check the network and try again.",
        )
