"""What emulation needs: QEMU, the Arm C library, and the runners of `runner build --for linux-arm64`.

The runners are compiled once, with the libraries of the aarch64 wheels of ExecuTorch and ONNX Runtime, and
copied to a folder of the cache. No torch and no Python is in it.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from android_harness import runner_build, runner_runtimes, wheels
from android_harness.errors import SetupError
from exporter.config.targets import Target
from exporter.emulated import cores, prepared_folder
from exporter.errors import MissingDependencyError

RUNTIME = f"ExecuTorch {wheels.EXECUTORCH}"
FORMAT = 2
"""Incremented whenever `_make_arm_tools` writes other files."""
QEMU = ("qemu-aarch64-static", "qemu-aarch64")
COMPILER = "aarch64-linux-gnu-g++"
SYSTEM = Path("/usr/aarch64-linux-gnu/lib")
"""Where Debian's cross compiler keeps the Arm C library."""
SYSTEM_LIBRARIES = (
    "ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1",
    "libstdc++.so.6", "libgcc_s.so.1",
)  # fmt: skip
PACKAGES = "apt install qemu-user-static g++-aarch64-linux-gnu"
PREPARE = "export-mobile doctor --prepare"
"""The command that prepares the programs."""


@dataclass(frozen=True)
class ArmTools:
    """QEMU and the prepared programs."""

    qemu: Path
    folder: Path
    """bin/ has the programs with their runtimes, root/ the C library and nothing else."""


def missing_arm_tools() -> str:
    """Return what keeps the programs from being prepared here, as a command; empty where nothing does."""
    if not _qemu_of_arm_tools() or not shutil.which(COMPILER) or not (SYSTEM / "libc.so.6").exists():
        return PACKAGES
    return ""


def ready_arm_tools(cache: Path) -> ArmTools | None:
    """Return the parts if the programs are prepared, and only this user can change them; makes nothing."""
    qemu, folder = _qemu_of_arm_tools(), _arm_tools_folder(cache)
    return ArmTools(qemu, folder) if qemu and prepared_folder.is_folder_prepared(folder) else None


def prepare_arm_tools(cache: Path) -> ArmTools:
    """Return the parts; the first time, download two wheels from the package index and compile.

    Args:
        cache: The folder of the build cache.

    Raises:
        MissingDependencyError: A program of the system is missing, or a step failed.
    """
    if parts := ready_arm_tools(cache):
        return parts
    if command := missing_arm_tools():
        raise MissingDependencyError(
            "Emulating an Arm phone needs QEMU and an Arm cross compiler.",
            f"Debian: {command}.",
            code="EM-ARM64",
        )
    folder = _arm_tools_folder(cache)
    prepared_folder.prepare_folder_once(folder, _make_arm_tools)
    parts = ready_arm_tools(cache)
    assert parts
    return parts


def root_of_arm_tools(target: Target, parts: ArmTools) -> Path:
    """Return the root that emulated programs see, made once: the C library, and the target's processor."""
    root = parts.folder / "roots" / target.name
    with prepared_folder.lock_prepared_folder(root):
        if not root.exists():
            aside = root.with_name(f".{root.name}.making")
            shutil.rmtree(aside, ignore_errors=True)
            shutil.copytree(parts.folder / "root", aside)
            for name, text in cores.emulated_core_files(target).items():
                path = aside / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            aside.rename(root)
    return root


def _qemu_of_arm_tools() -> Path | None:
    paths = (shutil.which(name) for name in QEMU)
    return next((Path(path) for path in paths if path), None)


def _arm_tools_folder(cache: Path) -> Path:
    return cache / "arm64" / _arm_tools_key()


def _arm_tools_key() -> str:
    """Return a digest of the versions and the sources, which identifies a preparation."""
    onnxruntime = wheels.onnxruntime_version_of_wheel()
    text = f"{FORMAT} {wheels.EXECUTORCH} {onnxruntime} {runner_build.digest_of_runner_build_sources()}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _make_arm_tools(folder: Path) -> None:
    (folder / "root" / "lib").mkdir(parents=True)
    for name in SYSTEM_LIBRARIES:
        shutil.copy(SYSTEM / name, folder / "root" / "lib" / name)
    try:
        options = {
            **_arm_tools_wheel_options(),
            "NLOHMANN_JSON_ROOT": str(runner_runtimes.json_headers_beside_runner_runtime()),
        }
        shutil.copytree(
            runner_build.runner_build_with_options("linux-arm64", options) / "bin", folder / "bin"
        )
    except SetupError as error:
        raise MissingDependencyError(
            f"Preparing the emulation failed: {error.message}", error.hint, code="EM-ARM64"
        ) from error


def _arm_tools_wheel_options() -> dict[str, str]:
    wheels.fetch_wheels(wheels.ARM64)
    return runner_runtimes.wheel_runner_runtimes(wheels.ARM64)
