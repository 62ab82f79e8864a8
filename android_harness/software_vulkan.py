"""Find what a Vulkan runner needs on a machine without a GPU: Mesa's software driver and its libraries."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from android_harness.errors import SetupError

DRIVER = "libvulkan_lvp.so"
LOADER = "libvulkan.so.1"
VERSION_FILE = "version"
"""In the prepared folder: what its library is, for the results."""
OF_EVERY_LINUX = re.compile(r"(ld-linux.*|lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s))\.so\b.*")
"""Libraries that a simulated device has itself."""
LDD_S = 30.0


def software_vulkan_options(root: Path) -> dict[str, str]:
    """Return CMake's definitions for a Vulkan runner of this machine.

    Args:
        root: What `export-mobile doctor --prepare` made: ExecuTorch's library for Android, its headers and a
            stand-in for Android's C library.

    Raises:
        SetupError: Mesa's software driver or Vulkan's loader is not installed.
    """
    driver, loader = _system_library(DRIVER), _system_library(LOADER)
    if not driver or not loader:
        raise SetupError(
            "Mesa's software driver for Vulkan is not installed.",
            "Debian: apt install mesa-vulkan-drivers libvulkan1",
        )
    files = sorted({driver, loader, *_libraries_needed(driver), *_libraries_needed(loader)})
    return {
        "VULKAN_ROOT": str(root),
        "VULKAN_DRIVER": ";".join(map(str, files)),
        "VULKAN_VERSION": (root / VERSION_FILE).read_text().strip(),
    }


def _system_library(name: str) -> Path | None:
    places = (*Path("/usr/lib").glob("*-linux-gnu"), Path("/usr/lib64"), Path("/usr/lib"))
    return next((path / name for path in places if (path / name).is_file()), None)


def _libraries_needed(library: Path) -> tuple[Path, ...]:
    """Return the paths of what a library loads, but for what every Linux has."""
    done = subprocess.run(["ldd", str(library)], capture_output=True, text=True, timeout=LDD_S, check=False)
    pairs = re.findall(r"^\s*(\S+) => (/\S+)", done.stdout, re.MULTILINE)
    return tuple(Path(path) for name, path in pairs if not OF_EVERY_LINUX.fullmatch(name))
