"""Where the runtimes lie that a runner is built with, as definitions for CMake."""

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


def options(
    target: Build, onnxruntime: Path | None, executorch: Path | None, torch: Path | None, observer: Observer
) -> dict[str, str]:
    """CMake's definitions for the runtimes that are given, and on the host for those of this Python.

    Raises:
        SetupError: There is none, or a folder does not hold what it should.
    """
    found = _given(onnxruntime, executorch, torch)
    if target == "host":
        found = _host(observer) | found
    if not any(name.endswith(("_ROOT", "_LIBRARY")) for name in found):
        raise SetupError(
            f"There is nothing to build for {target}: no runtime is given.",
            "Give --onnxruntime FOLDER (an unzipped Android AAR or a release archive), "
            "--executorch FOLDER (an install tree built from its source) or --torch FOLDER.",
            code="EM-RUNNER-BUILD",
        )
    return found


def _given(onnxruntime: Path | None, executorch: Path | None, torch: Path | None) -> dict[str, str]:
    roots = {"ONNXRUNTIME_ROOT": onnxruntime, "EXECUTORCH_ROOT": executorch, "TORCH_ROOT": torch}
    found = {}
    for name, folder in roots.items():
        if folder is not None:
            _expect_folder(folder)
            found[name] = str(folder.resolve())
    if onnxruntime is not None and not any(onnxruntime.rglob(HEADER)):
        raise SetupError(
            f"{onnxruntime} holds no {HEADER}.",
            "Give the unzipped onnxruntime-android AAR or a release archive (include/ and lib/).",
            code="EM-RUNNER-BUILD",
        )
    return found


def _expect_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise SetupError(
            f"{folder} is no folder.", "Give the folder that holds the runtime.", code="EM-RUNNER-BUILD"
        )


def _host(observer: Observer) -> dict[str, str]:
    """The runtimes of this Python's packages."""
    found = {}
    if torch := _package("torch"):
        found["TORCH_ROOT"] = str(torch)
    python = _python_library()
    if torch and (executorch := _package("executorch")) and python:
        version = metadata.version("executorch")
        found |= {"EXECUTORCH_ROOT": str(executorch), "EXECUTORCH_VERSION": version}
        found["PYTHON_LIBRARY"] = str(python)
    elif torch:
        observer("The ExecuTorch runner is left out: it takes the executorch package and libpython.so.")
    return found | _host_onnxruntime(observer)


def _host_onnxruntime(observer: Observer) -> dict[str, str]:
    package = _package("onnxruntime")
    built = sorted((package / "capi").glob("libonnxruntime.so.*")) if package else []
    headers = Path(os.environ.get("ONNXRUNTIME_INCLUDE", DEBIAN_HEADERS))
    if built and (headers / HEADER).is_file():
        return {"ONNXRUNTIME_INCLUDE": str(headers), "ONNXRUNTIME_LIBRARY": str(built[-1])}
    observer(
        f"The ONNX Runtime runner is left out: there is no {HEADER} in {headers}. Install "
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
