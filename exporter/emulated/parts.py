"""What emulation needs: QEMU, the Arm C library, and small programs with the runtimes' Arm libraries.

The programs are compiled once, with the libraries of the aarch64 wheels of ExecuTorch and ONNX Runtime, into
a folder of the cache. No torch and no Python is in it.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import android_harness
from exporter.config.targets import Target
from exporter.emulated import cores
from exporter.errors import MissingDependencyError

HERE = Path(__file__).parent
RUNNER = Path(android_harness.__file__).parent / "runner"
FORMAT = 1
"""Incremented whenever `_make_emulated_parts` writes other files."""
EXECUTORCH = "1.5.1"
"""The first version whose wheels have the runtime as libraries of its own; it reads the programs of 1.4."""
QEMU = ("qemu-aarch64-static", "qemu-aarch64")
COMPILER = "aarch64-linux-gnu-g++"
SYSTEM = Path("/usr/aarch64-linux-gnu/lib")
"""Where Debian's cross compiler keeps the Arm C library."""
SYSTEM_LIBRARIES = (
    "ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1",
    "libstdc++.so.6", "libgcc_s.so.1",
)  # fmt: skip
PACKAGES = "apt install qemu-user-static g++-aarch64-linux-gnu"
PREPARE = "export-mobile verify OUT --on arm64"
"""The command that prepares the programs."""
EXECUTORCH_LIBRARIES = ("", "_threadpool", "_kernels_optimized", "_kernels_quantized", "_backend_xnnpack")
COMMON = ("backend.h", "failure.cc", "failure.h", "tensor.cc", "tensor.h")
BACKENDS = ("executorch", "onnxruntime")
COMPILE_S = 600.0
DOWNLOAD_S = 900.0


@dataclass(frozen=True)
class EmulatedParts:
    """QEMU and the prepared programs."""

    qemu: Path
    folder: Path
    """bin/ has the programs, lib/ the runtimes, root/ the C library and nothing else."""


def missing_emulated_parts() -> str:
    """Return what keeps the programs from being prepared here, as a command; empty where nothing does."""
    if not _emulated_parts_qemu() or not shutil.which(COMPILER) or not (SYSTEM / "libc.so.6").exists():
        return PACKAGES
    return ""


def ready_emulated_parts(cache: Path) -> EmulatedParts | None:
    """Return the parts if the programs are prepared; downloads and compiles nothing."""
    qemu, folder = _emulated_parts_qemu(), _emulated_parts_folder(cache)
    return EmulatedParts(qemu, folder) if qemu and (folder / "complete").is_file() else None


def prepare_emulated_parts(cache: Path) -> EmulatedParts:
    """Return the parts; the first time, download two wheels from the package index and compile.

    Args:
        cache: The folder of the build cache.

    Raises:
        MissingDependencyError: A program of the system is missing, or a step failed.
    """
    if parts := ready_emulated_parts(cache):
        return parts
    if command := missing_emulated_parts():
        raise MissingDependencyError(
            "Emulating an Arm phone needs QEMU and an Arm cross compiler.",
            f"Debian: {command}.",
            code="EM-ARM64",
        )
    folder = _emulated_parts_folder(cache)
    with _locked_emulated_parts(folder):
        if not (folder / "complete").is_file():
            _make_emulated_parts(folder)
    parts = ready_emulated_parts(cache)
    assert parts
    return parts


def root_of_emulated_parts(target: Target, parts: EmulatedParts) -> Path:
    """Return the root that emulated programs see, made once: the C library, and the target's processor."""
    root = parts.folder / "roots" / target.name
    with _locked_emulated_parts(root):
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


def _emulated_parts_qemu() -> Path | None:
    paths = (shutil.which(name) for name in QEMU)
    return next((Path(path) for path in paths if path), None)


def _emulated_parts_folder(cache: Path) -> Path:
    return cache / "arm64" / _emulated_parts_key()


def _emulated_parts_key() -> str:
    """Return a digest of the versions and the sources, which identifies a preparation."""
    digest = hashlib.sha256(f"{FORMAT} {EXECUTORCH} {_onnxruntime_version_of_parts()}".encode())
    sources = [HERE / name for name in ("main.cc", "onnxruntime_c_api.h", "threadpool.h")]
    sources += [RUNNER / name for name in (*COMMON, *(f"backend_{name}.cc" for name in BACKENDS))]
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


def _onnxruntime_version_of_parts() -> str:
    return importlib.metadata.version("onnxruntime")


@contextmanager
def _locked_emulated_parts(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_emulated_parts(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("bin", "lib", "root/lib", "include/executorch/extension/threadpool"):
        (folder / name).mkdir(parents=True)
    shutil.copy(HERE / "threadpool.h", folder / "include/executorch/extension/threadpool")
    with tempfile.TemporaryDirectory(dir=folder) as name:
        wheels = Path(name)
        _download_emulated_part(f"executorch=={EXECUTORCH}", wheels)
        _download_emulated_part(f"onnxruntime=={_onnxruntime_version_of_parts()}", wheels)
        _take_emulated_parts(wheels, "executorch-*.whl", "executorch/include/", folder / "include")
        for part in EXECUTORCH_LIBRARIES:
            _take_emulated_parts(
                wheels, "executorch-*.whl", f"executorch/lib/libexecutorch{part}.so", folder / "lib"
            )
        _take_emulated_parts(
            wheels, "onnxruntime-*.whl", "onnxruntime/capi/libonnxruntime.so.", folder / "lib"
        )
    (library,) = (folder / "lib").glob("libonnxruntime.so.*")
    library.rename(library.with_name("libonnxruntime.so.1"))  # the name that programs ask for
    for name in SYSTEM_LIBRARIES:
        shutil.copy(SYSTEM / name, folder / "root" / "lib" / name)
    _compile_emulated_part(folder)
    (folder / "complete").touch()


def _download_emulated_part(requirement: str, into: Path) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    platform = [f"--platform={name}" for name in ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64")]
    options = ["-q", "--no-deps", "--only-binary=:all:", f"--python-version={version}", *platform]
    _run_for_emulated_parts(
        [sys.executable, "-m", "pip", "download", *options, "-d", str(into), requirement], DOWNLOAD_S
    )


def _take_emulated_parts(wheels: Path, pattern: str, prefix: str, into: Path) -> None:
    """Copy the files below a prefix out of a wheel; those of a folder keep their places in it."""
    (wheel,) = wheels.glob(pattern)
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.startswith(prefix) or name.endswith("/"):
                continue
            target = into / (name.removeprefix(prefix) if prefix.endswith("/") else Path(name).name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(name))


def _compile_emulated_part(folder: Path) -> None:
    include = folder / "include"
    executorch = [
        "-DC10_USING_CUSTOM_GENERATED_MACROS",
        f'-DEXECUTORCH_VERSION="{EXECUTORCH}"',
        f"-isystem{include}",
        f"-isystem{include}/executorch/runtime/core/portable_type/c10",
        "-Wl,--no-as-needed",  # libraries register their kernels when they are loaded; nothing calls them
        *(str(folder / "lib" / f"libexecutorch{part}.so") for part in EXECUTORCH_LIBRARIES),
    ]
    _link_emulated_parts(folder, "executorch", executorch)
    _link_emulated_parts(folder, "onnxruntime", [str(folder / "lib" / "libonnxruntime.so.1")])


def _link_emulated_parts(folder: Path, backend: str, options: Sequence[str]) -> None:
    sources = [
        HERE / "main.cc",
        *(RUNNER / n for n in COMMON if n.endswith(".cc")),
        RUNNER / f"backend_{backend}.cc",
    ]
    _run_for_emulated_parts(
        [
            COMPILER, "-std=c++20", "-O1", f"-I{HERE}", f"-I{RUNNER}",
            *map(str, sources), *options, "-Wl,-rpath,$ORIGIN/../lib", "-Wl,--allow-shlib-undefined",
            "-o", str(folder / "bin" / f"runner-{backend}"),
        ],
        COMPILE_S,
    )  # fmt: skip


def _run_for_emulated_parts(command: list[str], seconds: float) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise _failed_emulated_parts(command, f"took longer than {seconds:.0f} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "rror" in line] or done.stderr.splitlines()
        raise _failed_emulated_parts(command, " ".join(lines[:2])[:400] or f"ended with {done.returncode}")


def _failed_emulated_parts(command: list[str], reason: str) -> MissingDependencyError:
    step = "downloading the Arm wheels" if "pip" in command else "compiling the Arm programs"
    return MissingDependencyError(
        f"Preparing the emulation failed while {step}: {reason}",
        "It needs the package index once; check the network and try again.",
        code="EM-ARM64",
    )
