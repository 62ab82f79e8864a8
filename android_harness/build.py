"""Build the on-device runner with CMake, and find it again.

Builds are kept in the cache folder, one per target, sources and options: the same call twice builds once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import get_args

from android_harness.errors import SetupError
from android_harness.records import Backend, Build

SOURCES = Path(__file__).parent / "runner"
Observer = Callable[[str], None]

_HEADER = "onnxruntime_c_api.h"
_DEBIAN_HEADERS = Path("/usr/include/onnxruntime")
_BUILD_S = 1800.0


def cache_root() -> Path:
    """`$EXPORT_MOBILE_CACHE`, else `export-mobile` in the user's cache folder; the runners' part of it."""
    if chosen := os.environ.get("EXPORT_MOBILE_CACHE"):
        return Path(chosen) / "runner"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "export-mobile" / "runner"


def build(
    target: Build,
    *,
    onnxruntime: Path | None = None,
    executorch: Path | None = None,
    torch: Path | None = None,
    ndk: Path | None = None,
    observer: Observer = lambda line: None,
) -> tuple[Path, ...]:
    """Build a runner for each runtime that is given (on the host: also for those that are installed).

    Args:
        target: What the runner is for.
        onnxruntime: A release archive's folder, an unzipped Android AAR, or a Debian root's `usr`.
        executorch: An install tree of ExecuTorch built from its source for the target.
        torch: LibTorch for the target.
        ndk: The Android NDK; `$ANDROID_NDK_HOME` where it is not given.
        observer: Gets a line for each step.

    Returns:
        The runners.

    Raises:
        SetupError: Something that the build takes is missing, or the compiler refused.
    """
    options = _options(target, onnxruntime, executorch, torch, observer)
    environment = _environment(target, ndk)
    key = _key(target, options, environment.get("ANDROID_NDK_HOME", ""))
    folder = cache_root() / target / key
    with _locked(folder):
        if not (folder / "complete").is_file():
            _compile(target, folder, {**options, "RUNNER_BUILD": key[:12]}, environment, observer)
    _remember(target, key)
    return _runners(folder)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process builds, the others wait for it; the kernel frees the lock of one that was killed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def find_runner(target: Build, backend: Backend) -> Path:
    """The runner that was built last for a target.

    Raises:
        SetupError: It was not built, or the sources changed since; the hint is the command that builds it.
    """
    runner = _last_folder(target) / "bin" / f"runner-{backend}"
    if not runner.is_file():
        raise SetupError(f"The {backend} runner for {target} is not built.", _how_to_build(target, backend))
    return runner


def libraries(target: Build) -> tuple[Path, ...]:
    """The shared libraries that must lie beside a target's runners on the device; none on the host."""
    if target == "host":
        return ()
    return tuple(sorted(p for p in (_last_folder(target) / "bin").glob("*.so*") if p.is_file()))


def _how_to_build(target: Build, backend: Backend) -> str:
    option = "" if target == "host" else f" --{backend.replace('torchscript', 'torch')} FOLDER"
    return f"Build it: export-mobile runner build --for {target}{option}"


def _runners(folder: Path) -> tuple[Path, ...]:
    found = (folder / "bin" / f"runner-{backend}" for backend in get_args(Backend))
    return tuple(path for path in found if path.is_file())


def _last_folder(target: Build) -> Path:
    """Of the build that was asked for last, of these sources."""
    try:
        return cache_root() / target / _last(target).read_text()
    except OSError:
        return cache_root() / target / "none"


def _remember(target: Build, key: str) -> None:
    path = _last(target)
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_text(key)
    aside.replace(path)


def _last(target: Build) -> Path:
    """Names the build asked for last; a file for each state of the sources: checkouts share the cache."""
    return cache_root() / target / f"current-{_sources_digest()[:12]}"


def _sources_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in SOURCES.iterdir() if p.is_file()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _key(target: Build, options: Mapping[str, str], ndk: str) -> str:
    text = json.dumps([target, sorted(options.items()), ndk, _sources_digest()])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


# --- What CMake is told


def _options(
    target: Build, onnxruntime: Path | None, executorch: Path | None, torch: Path | None, observer: Observer
) -> dict[str, str]:
    options = _given(onnxruntime, executorch, torch)
    if target == "host":
        options = _host_options(observer) | options
    if not any(name.endswith(("_ROOT", "_LIBRARY")) for name in options):
        raise SetupError(
            f"There is nothing to build for {target}: no runtime is given.",
            "Give --onnxruntime FOLDER (an unzipped Android AAR or a release archive), "
            "--executorch FOLDER (an install tree built from its source) or --torch FOLDER.",
        )
    return options


def _given(onnxruntime: Path | None, executorch: Path | None, torch: Path | None) -> dict[str, str]:
    roots = {"ONNXRUNTIME_ROOT": onnxruntime, "EXECUTORCH_ROOT": executorch, "TORCH_ROOT": torch}
    options = {}
    for name, folder in roots.items():
        if folder is not None:
            _expect_folder(folder)
            options[name] = str(folder.resolve())
    if onnxruntime is not None and not any(onnxruntime.rglob(_HEADER)):
        raise SetupError(
            f"{onnxruntime} holds no {_HEADER}.",
            "Give the unzipped onnxruntime-android AAR or a release archive (include/ and lib/).",
        )
    return options


def _expect_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise SetupError(f"{folder} is no folder.", "Give the folder that holds the runtime.")


def _host_options(observer: Observer) -> dict[str, str]:
    """The runtimes of this Python's packages."""
    options = {}
    if torch := _package("torch"):
        options["TORCH_ROOT"] = str(torch)
    python = _python_library()
    if torch and (executorch := _package("executorch")) and python:
        version = metadata.version("executorch")
        options |= {"EXECUTORCH_ROOT": str(executorch), "EXECUTORCH_VERSION": version}
        options["PYTHON_LIBRARY"] = str(python)
    elif torch:
        observer("The ExecuTorch runner is left out: it takes the executorch package and libpython.so.")
    return options | _host_onnxruntime(observer)


def _host_onnxruntime(observer: Observer) -> dict[str, str]:
    package = _package("onnxruntime")
    found = sorted((package / "capi").glob("libonnxruntime.so.*")) if package else []
    headers = Path(os.environ.get("ONNXRUNTIME_INCLUDE", _DEBIAN_HEADERS))
    if found and (headers / _HEADER).is_file():
        return {"ONNXRUNTIME_INCLUDE": str(headers), "ONNXRUNTIME_LIBRARY": str(found[-1])}
    observer(
        f"The ONNX Runtime runner is left out: there is no {_HEADER} in {headers}. Install "
        "libonnxruntime-dev (Debian 13) or set ONNXRUNTIME_INCLUDE to a release archive's include folder."
    )
    return {}


def _package(name: str) -> Path | None:
    """A package's folder, without importing it."""
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


def _python_library() -> Path | None:
    folder, name = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME")
    path = Path(str(folder)) / str(name)
    return path if path.is_file() and ".so" in path.name else None


# --- Running CMake


def _environment(target: Build, ndk: Path | None) -> dict[str, str]:
    environment = dict(os.environ)
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    if target != "android-arm64":
        environment.pop("ANDROID_NDK_HOME", None)
        return environment
    given = str(ndk.resolve()) if ndk else environment.get("ANDROID_NDK_HOME", "")
    if not given or not (Path(given) / "build/cmake/android.toolchain.cmake").is_file():
        raise SetupError(
            f"No Android NDK in {given!r}."
            if given
            else "The Android NDK is missing: ANDROID_NDK_HOME is not set.",
            "Get r26 or newer from https://developer.android.com/ndk/downloads, unzip it, and set "
            "ANDROID_NDK_HOME to its folder.",
        )
    environment["ANDROID_NDK_HOME"] = given
    return environment


def _compile(
    target: Build,
    folder: Path,
    options: Mapping[str, str],
    environment: Mapping[str, str],
    observer: Observer,
) -> None:
    cmake = shutil.which("cmake", path=environment["PATH"])
    if cmake is None:
        raise SetupError("There is no cmake.", "Install it: pip install 'export-mobile[android]'")
    if target == "linux-arm64" and shutil.which("aarch64-linux-gnu-g++", path=environment["PATH"]) is None:
        raise SetupError("There is no aarch64-linux-gnu-g++.", "Debian: apt install g++-aarch64-linux-gnu")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    defines = [f"-D{name}={value}" for name, value in sorted(options.items())]
    observer(f"Configuring the runner for {target}")
    _run([cmake, "--preset", target, "-B", str(folder), *defines], environment, folder / "configure.log")
    observer(f"Compiling the runner for {target}")
    _run([cmake, "--build", str(folder)], environment, folder / "build.log")
    (folder / "complete").touch()


def _run(command: list[str], environment: Mapping[str, str], log: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=SOURCES,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_BUILD_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{command[0]} took longer than {_BUILD_S:.0f} s.", f"See {log}.") from error
    log.write_text(done.stdout)
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if "rror" in line] or done.stdout.splitlines()
        raise SetupError(
            "The runner did not build: " + " ".join(lines[:3]).strip(), f"All of it is in {log}."
        )
