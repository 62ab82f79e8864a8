"""`runner build`: what it requires, reports and passes to CMake."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from android_harness import build
from android_harness.errors import SetupError
from android_harness.records import Build
from tests.harness import runners

RECORD = """
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
if(ANDROID_ABI)  # CMake's own trial compilations also read this file, without the preset
  file(WRITE "{out}" "${ANDROID_ABI} ${ANDROID_PLATFORM} ${ANDROID_STL}")
endif()
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build into a separate cache in each test."""
    monkeypatch.setenv("EXPORT_MOBILE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ANDROID_NDK_HOME", raising=False)


def _aar(folder: Path) -> Path:
    (folder / "headers").mkdir(parents=True)
    (folder / "headers/onnxruntime_c_api.h").touch()
    return folder


def test_missing_ndk(tmp_path: Path) -> None:
    """The error for a missing NDK names the variable and the download page."""
    with pytest.raises(SetupError, match=r"ANDROID_NDK_HOME is not set.*developer\.android\.com/ndk"):
        build.build_runners("android-arm64", onnxruntime=_aar(tmp_path / "aar"))


def test_wrong_ndk(tmp_path: Path) -> None:
    """A folder that is not an NDK is named."""
    with pytest.raises(SetupError, match=r"There is no Android NDK in .*nothing"):
        build.build_runners("android-arm64", onnxruntime=_aar(tmp_path / "aar"), ndk=tmp_path / "nothing")


def test_no_headers(tmp_path: Path) -> None:
    """A folder without ONNX Runtime's headers is refused before anything is compiled."""
    with pytest.raises(SetupError, match=r"does not contain onnxruntime_c_api\.h"):
        build.build_runners("linux-arm64", onnxruntime=tmp_path)


@pytest.mark.parametrize("target", ["android-arm64", "linux-arm64"])
def test_nothing_to_build(target: Build) -> None:
    """A device's runner needs at least one runtime."""
    with pytest.raises(SetupError, match="nothing to build"):
        build.build_runners(target)


def test_no_such_folder(tmp_path: Path) -> None:
    """A root that is not a folder is named."""
    with pytest.raises(SetupError, match="absent is not a folder"):
        build.build_runners("linux-arm64", executorch=tmp_path / "absent")


def test_not_built() -> None:
    """The error for a missing runner contains the command that builds it."""
    with pytest.raises(
        SetupError, match="export-mobile runner build --for android-arm64 --onnxruntime FOLDER"
    ):
        build.find_built_runner("android-arm64", "onnxruntime")


def test_the_android_preset_reaches_the_ndk(tmp_path: Path) -> None:
    """The preset's ABI, platform and C++ library reach the NDK's toolchain file."""
    toolchain = tmp_path / "ndk/build/cmake/android.toolchain.cmake"
    toolchain.parent.mkdir(parents=True)
    out = tmp_path / "seen"
    toolchain.write_text(RECORD.replace("{out}", str(out)))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    cmake = shutil.which("cmake", path=path)
    assert cmake is not None
    environment = os.environ | {"ANDROID_NDK_HOME": str(tmp_path / "ndk"), "PATH": path}
    command = [cmake, "--preset", "android-arm64", "-B", str(tmp_path / "b")]
    done = subprocess.run(
        command, cwd=build.SOURCES, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert out.read_text() == "arm64-v8a android-28 c++_static"
    assert "runner-onnxruntime: not built, its root is not given" in done.stdout


@pytest.mark.slow
def test_the_second_build_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeating a build compiles nothing, and the runner is found afterwards."""
    monkeypatch.undo()
    built = runners.host_build()
    lines: list[str] = []
    assert build.build_runners("host", observer=lines.append) == built
    assert not [line for line in lines if "ompil" in line]
    assert build.find_built_runner("host", "torchscript") in built
    assert build.built_libraries("host") == ()


@pytest.mark.slow
def test_what_the_compiler_said(tmp_path: Path) -> None:
    """The error of a failed build names the log with the compiler's output."""
    aar = _aar(tmp_path / "aar")
    (aar / "lib").mkdir()
    (aar / "lib/libonnxruntime.so").write_text("no library")
    with pytest.raises(SetupError, match=r"did not build: .* The complete output is in .*configure\.log"):
        build.build_runners("linux-arm64", onnxruntime=aar)


def test_android_programs_fit_pages_of_16_kb() -> None:
    """Both the preset and the linker say so, because NDKs before r28 align to 4 KB."""
    presets = json.loads((build.SOURCES / "CMakePresets.json").read_text())["configurePresets"]
    (android,) = (preset for preset in presets if preset["name"] == "android-arm64")
    assert android["cacheVariables"]["ANDROID_SUPPORT_FLEXIBLE_PAGE_SIZES"] == "ON"
    assert "max-page-size=16384" in (build.SOURCES / "CMakeLists.txt").read_text()
