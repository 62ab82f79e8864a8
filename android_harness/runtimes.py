"""Find the runtimes that a runner is built with, as definitions for CMake."""

from __future__ import annotations

import importlib.util
import os
import sysconfig
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from android_harness.errors import SetupError
from android_harness.records import Build

Observer = Callable[[str], None]
HEADER = "onnxruntime_c_api.h"
DEBIAN_HEADERS = Path("/usr/include/onnxruntime")


def runtime_options(
    target: Build, onnxruntime: Path | None, executorch: Path | None, torch: Path | None, observer: Observer
) -> dict[str, str]:
    """Return CMake's definitions for the given runtimes and, on the host, for those of this Python.

    Raises:
        SetupError: There is no runtime, or a folder does not contain one.
    """
    definitions = _given_runtime(onnxruntime, executorch, torch)
    if target == "host":
        definitions = _host_runtimes(observer) | definitions
    if not any(name.endswith(("_ROOT", "_LIBRARY")) for name in definitions):
        raise SetupError(
            f"There is nothing to build for {target}: no runtime was given.",
            "Give --onnxruntime FOLDER (an unzipped Android AAR or a release archive), "
            "--executorch FOLDER (an install tree built from its source) or --torch FOLDER.",
            code="EM-RUNNER-BUILD",
        )
    return definitions


def _given_runtime(onnxruntime: Path | None, executorch: Path | None, torch: Path | None) -> dict[str, str]:
    roots = {"ONNXRUNTIME_ROOT": onnxruntime, "EXECUTORCH_ROOT": executorch, "TORCH_ROOT": torch}
    definitions = {}
    for name, folder in roots.items():
        if folder is not None:
            _expect_runtime_folder(folder)
            definitions[name] = str(folder.resolve())
    if onnxruntime is not None and not any(onnxruntime.rglob(HEADER)):
        raise SetupError(
            f"{onnxruntime} does not contain {HEADER}.",
            "Give the unzipped onnxruntime-android AAR or a release archive (include/ and lib/).",
            code="EM-RUNNER-BUILD",
        )
    return definitions


def _expect_runtime_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise SetupError(
            f"{folder} is not a folder.", "Give the folder that contains the runtime.", code="EM-RUNNER-BUILD"
        )


def _host_runtimes(observer: Observer) -> dict[str, str]:
    """Return the definitions for the runtimes in this Python's packages."""
    definitions = {}
    if torch := _runtime_package("torch"):
        definitions["TORCH_ROOT"] = str(torch)
    python = _runtime_python_library()
    if torch and (executorch := _runtime_package("executorch")) and python:
        version = metadata.version("executorch")
        definitions |= {"EXECUTORCH_ROOT": str(executorch), "EXECUTORCH_VERSION": version}
        definitions["PYTHON_LIBRARY"] = str(python)
    elif torch:
        observer("The ExecuTorch runner is skipped: it needs the executorch package and libpython.so.")
    return definitions | _host_onnxruntime_runtime(observer)


def _host_onnxruntime_runtime(observer: Observer) -> dict[str, str]:
    package = _runtime_package("onnxruntime")
    built = sorted((package / "capi").glob("libonnxruntime.so.*")) if package else []
    headers = Path(os.environ.get("ONNXRUNTIME_INCLUDE", DEBIAN_HEADERS))
    if built and (headers / HEADER).is_file():
        return {"ONNXRUNTIME_INCLUDE": str(headers), "ONNXRUNTIME_LIBRARY": str(built[-1])}
    observer(
        f"The ONNX Runtime runner is skipped: there is no {HEADER} in {headers}. Install "
        "libonnxruntime-dev (Debian 13) or set ONNXRUNTIME_INCLUDE to a release archive's include folder."
    )
    return {}


def _runtime_package(name: str) -> Path | None:
    """Return a package's folder without importing it."""
    spec = importlib.util.find_spec(name)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return Path(folders[0]) if folders else None


def _runtime_python_library() -> Path | None:
    folder, name = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME")
    path = Path(str(folder)) / str(name)
    return path if path.is_file() and ".so" in path.name else None
