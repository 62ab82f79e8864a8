"""Find the runtimes that a runner is built with, as definitions for CMake."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable
from pathlib import Path

from android_harness import software_vulkan, wheels
from android_harness.errors import SetupError
from android_harness.records import Build

Observer = Callable[[str], None]
EXTRA = "pip install 'export-mobile[android]'"


def runner_runtime_options(
    target: Build,
    onnxruntime: Path | None,
    executorch: Path | None,
    torch: Path | None,
    vulkan: Path | None,
    observer: Observer,
) -> dict[str, str]:
    """Return CMake's definitions for the given runtimes and, where wheels run, for those of the wheels.

    Raises:
        SetupError: There is no runtime, or a folder does not contain one.
    """
    definitions = _given_runner_runtime(onnxruntime, executorch, torch)
    if target == "android-arm64":
        hint = (
            "Give --onnxruntime FOLDER (an unzipped Android AAR or a release archive), "
            "--executorch FOLDER (an install tree built from its source) or --torch FOLDER."
        )
    else:
        machine = machine_of_runner_runtimes(target)
        hint = f"{wheels.fetch_wheels_hint(machine)}  (or give --onnxruntime, --executorch or --torch FOLDER)"
        definitions = wheel_runner_runtimes(machine, observer) | definitions
    if target == "host":
        definitions = _torch_runner_runtime_on_host(observer) | definitions
        definitions |= _vulkan_runtime_on_host(vulkan, observer)
    if not definitions:
        raise SetupError(
            f"There is nothing to build for {target}: no runtime was given.", hint, code="EM-RUNNER-BUILD"
        )
    return definitions | {"NLOHMANN_JSON_ROOT": str(json_headers_beside_runner_runtime())}


def machine_of_runner_runtimes(target: Build) -> str:
    """Return the machine whose wheels a target runs."""
    return platform.machine() if target == "host" else wheels.ARM64


def _given_runner_runtime(
    onnxruntime: Path | None, executorch: Path | None, torch: Path | None
) -> dict[str, str]:
    definitions = {}
    for name, folder in {"EXECUTORCH_ROOT": executorch, "TORCH_ROOT": torch}.items():
        if folder is not None:
            _expect_runner_runtime_folder(folder)
            definitions[name] = str(folder.resolve())
    if onnxruntime is not None:
        _expect_runner_runtime_folder(onnxruntime)
        library = wheels.find_onnxruntime_in_wheel(onnxruntime.resolve())
        if library is None:
            raise SetupError(
                f"{onnxruntime} does not contain libonnxruntime.so.",
                "Give the unzipped onnxruntime-android AAR or a release archive (with lib/).",
                code="EM-RUNNER-BUILD",
            )
        definitions["ONNXRUNTIME_LIBRARY"] = str(library)
    return definitions


def _expect_runner_runtime_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise SetupError(
            f"{folder} is not a folder.", "Give the folder that contains the runtime.", code="EM-RUNNER-BUILD"
        )


def wheel_runner_runtimes(machine: str, observer: Observer = lambda line: None) -> dict[str, str]:
    """Return the definitions for the unpacked wheels, or none; the observer then gets their command."""
    folder = wheels.find_wheels(machine)
    if folder is None:
        observer(
            "The runners of ExecuTorch and ONNX Runtime are not built from wheels: these are missing. "
            + wheels.fetch_wheels_hint(machine)
        )
        return {}
    return {
        "EXECUTORCH_ROOT": str(folder / "executorch"),
        "EXECUTORCH_VERSION": wheels.EXECUTORCH,
        "ONNXRUNTIME_LIBRARY": str(wheels.find_onnxruntime_in_wheel(folder)),
    }


def _torch_runner_runtime_on_host(observer: Observer) -> dict[str, str]:
    """Return the definition for the LibTorch in this Python's torch: no library of its own can be had."""
    if torch := _runner_runtime_package("torch"):
        return {"TORCH_ROOT": str(torch)}
    observer("The TorchScript runner is not built: it is linked with LibTorch. Bring it: pip install torch")
    return {}


def _vulkan_runtime_on_host(vulkan: Path | None, observer: Observer) -> dict[str, str]:
    if vulkan:
        return software_vulkan.software_vulkan_options(vulkan)
    observer(
        "The Vulkan runner is not built: its parts are missing. Bring them: export-mobile doctor --prepare"
    )
    return {}


def json_headers_beside_runner_runtime() -> Path:
    """Return the folder that holds nlohmann/json.hpp.

    Raises:
        SetupError: The package is not installed.
    """
    package = _runner_runtime_package("nlohmann_json")
    folder = package / "include" if package else None
    if folder is None or not (folder / "nlohmann/json.hpp").is_file():
        raise SetupError("The headers of nlohmann-json are not installed.", f"Install them: {EXTRA}")
    return folder


def _runner_runtime_package(name: str) -> Path | None:
    """Return a package's folder without importing it."""
    spec = importlib.util.find_spec(name)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return Path(folders[0]) if folders else None
