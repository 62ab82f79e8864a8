"""Build the on-device runner with CMake, and find built runners.

The cache folder holds one build for each target, sources and options, so that the same call builds only once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

from android_harness import runner_runtimes, wheels
from android_harness.errors import SetupError
from android_harness.records import Backend, Build
from android_harness.runner_runtimes import Observer

SOURCES = Path(__file__).parent / "runner"

BUILD_S = 1800.0
CROSS_COMPILER = "aarch64-linux-gnu-g++"
NO_CMAKE = f"cmake is not installed. Install it: {runner_runtimes.EXTRA}"
HOW_TO_BUILD_VULKAN: Mapping[Build, str] = {
    "android-arm64": "Build ExecuTorch with -DEXECUTORCH_BUILD_VULKAN=ON, then: "
    "export-mobile runner build --for android-arm64 --executorch FOLDER",
    "host": "Build it, with a software driver for a GPU: export-mobile doctor --prepare && "
    "export-mobile runner build --for host",
    "linux-arm64": "There is none: Vulkan is executed on Android, and on this machine by a software driver.",
}
NO_CROSS_COMPILER = f"{CROSS_COMPILER} is not installed. Debian: apt install g++-aarch64-linux-gnu"


def runner_build_root() -> Path:
    """Return the folder of built runners in the cache."""
    return wheels.wheels_cache_root() / "runner"


def build_runners(
    target: Build,
    *,
    onnxruntime: Path | None = None,
    executorch: Path | None = None,
    torch: Path | None = None,
    vulkan: Path | None = None,
    ndk: Path | None = None,
    observer: Observer = lambda line: None,
) -> tuple[Path, ...]:
    """Build a runner for each given runtime and, on Linux, for each runtime of the unpacked wheels.

    Nothing is downloaded.

    Args:
        target: The system that the runner is for.
        onnxruntime: A release archive's folder, an unzipped Android AAR, or a Debian root's `usr`.
        executorch: An install tree of ExecuTorch, built from source for the target.
        torch: LibTorch for the target; on the host, that of this Python's torch if None.
        vulkan: For the host: the parts that stand in for a GPU and for Android; None without them.
        ndk: The Android NDK; `$ANDROID_NDK_HOME` if None.
        observer: Called with a line for each step.

    Returns:
        The paths of the runners.

    Raises:
        SetupError: The build needs something that is missing, or the compiler failed.
    """
    options = runner_runtimes.runner_runtime_options(target, onnxruntime, executorch, torch, vulkan, observer)
    folder = runner_build_with_options(target, options, ndk, observer)
    _remember_runner_build(target, folder.name)
    return _runners_of_build(folder)


def runner_build_with_options(
    target: Build, options: Mapping[str, str], ndk: Path | None = None, observer: Observer = lambda line: None
) -> Path:
    """Build the runners for CMake's definitions unless they are built, and return the folder of the build."""
    environment = _runner_build_environment(target, ndk)
    key = _runner_build_key(target, options, environment.get("ANDROID_NDK_HOME", ""))
    folder = runner_build_root() / target / key
    with _locked_runner_build(folder):
        if not (folder / "complete").is_file():
            _compile_runner_build(
                target, folder, {**options, "RUNNER_BUILD": key[:12]}, environment, observer
            )
    return folder


@contextlib.contextmanager
def _locked_runner_build(folder: Path) -> Iterator[None]:
    """Let one process build while others wait; the kernel releases the lock of a killed process."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def find_runner_build(target: Build, backend: Backend) -> Path:
    """Return the runner that was built last for a target.

    Raises:
        SetupError: It is not built, or the sources have changed since; the hint is the build command.
    """
    runner = _runner_in_build(_last_runner_build_folder(target), backend)
    if not runner.is_file():
        raise SetupError(
            f"The {backend} runner for {target} is not built.",
            _how_to_build_runner(target, backend),
            code="EM-RUNNER",
        )
    return runner


def _runner_in_build(folder: Path, backend: Backend) -> Path:
    """Return where a build has a runner; Vulkan's is apart, with the libraries of its driver."""
    return folder / ("bin/vulkan" if backend == "vulkan" else "bin") / f"runner-{backend}"


def _how_to_build_runner(target: Build, backend: Backend) -> str:
    if backend == "vulkan":
        return HOW_TO_BUILD_VULKAN[target]
    from_wheels = target == "host" or (target == "linux-arm64" and backend != "torchscript")
    option = "" if from_wheels else f" --{backend.replace('torchscript', 'torch')} FOLDER"
    return f"Build it: export-mobile runner build --for {target}{option}"


def _runners_of_build(folder: Path) -> tuple[Path, ...]:
    paths = (_runner_in_build(folder, backend) for backend in get_args(Backend))
    return tuple(path for path in paths if path.is_file())


def _last_runner_build_folder(target: Build) -> Path:
    """Return the folder of the last requested build of the current sources."""
    try:
        return runner_build_root() / target / _last_runner_build_file(target).read_text()
    except OSError:
        return runner_build_root() / target / "none"


def _remember_runner_build(target: Build, key: str) -> None:
    path = _last_runner_build_file(target)
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_text(key)
    aside.replace(path)


def _last_runner_build_file(target: Build) -> Path:
    """Return the file that names the last build; each state of the sources has its own."""
    return runner_build_root() / target / f"current-{digest_of_runner_build_sources()[:12]}"


def digest_of_runner_build_sources() -> str:
    """Return a digest of the runner's sources."""
    digest = hashlib.sha256()
    for path in sorted(p for p in SOURCES.rglob("*") if p.is_file()):
        digest.update(str(path.relative_to(SOURCES)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _runner_build_key(target: Build, options: Mapping[str, str], ndk: str) -> str:
    text = json.dumps([target, sorted(options.items()), ndk, digest_of_runner_build_sources()])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _runner_build_environment(target: Build, ndk: Path | None) -> dict[str, str]:
    environment = dict(os.environ)
    environment["PATH"] = _runner_build_path()
    if target != "android-arm64":
        environment.pop("ANDROID_NDK_HOME", None)
        return environment
    folder = str(ndk.resolve()) if ndk else environment.get("ANDROID_NDK_HOME", "")
    if not folder or not (Path(folder) / "build/cmake/android.toolchain.cmake").is_file():
        raise SetupError(
            f"There is no Android NDK in {folder!r}."
            if folder
            else "The Android NDK is missing: ANDROID_NDK_HOME is not set.",
            "Get r28 (or r26 and newer) from https://developer.android.com/ndk/downloads, unzip it, and set "
            "ANDROID_NDK_HOME to its folder.",
            code="EM-NDK",
        )
    environment["ANDROID_NDK_HOME"] = folder
    return environment


def missing_runner_build_parts(target: Build) -> tuple[str, ...]:
    """Return a sentence with its command for every part that a build from wheels for a target lacks."""
    path = _runner_build_path()
    parts = []
    if shutil.which("cmake", path=path) is None:
        parts.append(NO_CMAKE)
    if target == "linux-arm64" and shutil.which(CROSS_COMPILER, path=path) is None:
        parts.append(NO_CROSS_COMPILER)
    if target == "host" and not any(shutil.which(name, path=path) for name in ("c++", "g++", "clang++")):
        parts.append("A C++ compiler is not installed. Debian: apt install g++")
    machine = runner_runtimes.machine_of_runner_runtimes(target)
    if wheels.find_wheels(machine) is None:
        parts.append(f"The runtimes' wheels are missing. {wheels.fetch_wheels_hint(machine)}")
    try:
        runner_runtimes.json_headers_beside_runner_runtime()
    except SetupError as error:
        parts.append(f"{error.message} {error.hint}")
    return tuple(parts)


def _runner_build_path() -> str:
    """Return the search path of a build: this Python's own programs come first."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def _compile_runner_build(
    target: Build,
    folder: Path,
    options: Mapping[str, str],
    environment: Mapping[str, str],
    observer: Observer,
) -> None:
    cmake = shutil.which("cmake", path=environment["PATH"])
    if cmake is None:
        raise SetupError(NO_CMAKE)
    if target == "linux-arm64" and shutil.which(CROSS_COMPILER, path=environment["PATH"]) is None:
        raise SetupError(NO_CROSS_COMPILER)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    defines = [f"-D{name}={value}" for name, value in sorted(options.items())]
    observer(f"Configuring the runner for {target}")
    _run_runner_build(
        [cmake, "--preset", target, "-B", str(folder), *defines], environment, folder / "configure.log"
    )
    observer(f"Compiling the runner for {target}")
    _run_runner_build([cmake, "--build", str(folder)], environment, folder / "build.log")
    (folder / "complete").touch()


def _run_runner_build(command: list[str], environment: Mapping[str, str], log: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=SOURCES,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=BUILD_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SetupError(
            f"{command[0]} took longer than {BUILD_S:.0f} s.", f"See {log}.", code="EM-RUNNER-BUILD"
        ) from error
    log.write_text(done.stdout)
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if "rror" in line] or done.stdout.splitlines()
        raise SetupError(
            "The runner did not build: " + " ".join(lines[:3]).strip(),
            f"The complete output is in {log}.",
            code="EM-RUNNER-BUILD",
        )
