"""`runner build`: what it requires, reports and passes to CMake."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from android_harness import runner_build, runner_runtimes, wheels
from android_harness.errors import SetupError
from android_harness.records import Build
from android_harness.simulator import base
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
    (folder / "jni/arm64-v8a").mkdir(parents=True)
    (folder / "jni/arm64-v8a/libonnxruntime.so").write_text("no library")
    return folder


def test_missing_ndk(tmp_path: Path) -> None:
    """The error for a missing NDK names the variable and the download page."""
    with pytest.raises(SetupError, match=r"ANDROID_NDK_HOME is not set.*developer\.android\.com/ndk"):
        runner_build.build_runners("android-arm64", onnxruntime=_aar(tmp_path / "aar"))


def test_wrong_ndk(tmp_path: Path) -> None:
    """A folder that is not an NDK is named."""
    with pytest.raises(SetupError, match=r"There is no Android NDK in .*nothing"):
        runner_build.build_runners(
            "android-arm64", onnxruntime=_aar(tmp_path / "aar"), ndk=tmp_path / "nothing"
        )


def test_no_library(tmp_path: Path) -> None:
    """A folder without ONNX Runtime's library is refused before anything is compiled."""
    with pytest.raises(SetupError, match=r"does not contain libonnxruntime\.so"):
        runner_build.build_runners("linux-arm64", onnxruntime=tmp_path)


@pytest.mark.parametrize(
    ("target", "hint"), [("android-arm64", "--onnxruntime FOLDER"), ("linux-arm64", "pip install .*aarch64")]
)
def test_nothing_to_build(target: Build, hint: str) -> None:
    """A device's runner needs at least one runtime; the message has the command that brings one."""
    with pytest.raises(SetupError, match=f"nothing to build.*\n*.*{hint}"):
        runner_build.build_runners(target)


class TestMissingParts:
    """What a build lacks is named with the command that brings it, and nothing is downloaded."""

    @pytest.fixture(autouse=True)
    def without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Fail at every download, and pretend that no package is installed."""
        monkeypatch.setattr(runner_runtimes, "_runner_runtime_package", lambda name: None)
        monkeypatch.setattr(wheels, "_run_pip_for_wheels", lambda command: pytest.fail("downloads"))

    def test_no_package_at_all(self) -> None:
        """The host without torch, wheels and Vulkan's parts gets a line for each, with its command."""
        lines: list[str] = []
        with pytest.raises(SetupError, match=r"pip install .*executorch==1\.5\.1"):
            runner_build.build_runners("host", observer=lines.append)
        assert [
            bool(re.search(r"(Bring|Install) (them|it): (pip install|export-mobile doctor)", line))
            for line in lines
        ] == [True, True, True]

    def test_no_json_headers(self, tmp_path: Path) -> None:
        """The headers of nlohmann-json come with the extra."""
        with pytest.raises(SetupError, match=r"nlohmann-json.*pip install 'export-mobile\[android\]'"):
            runner_build.build_runners("linux-arm64", onnxruntime=_aar(tmp_path / "aar"))

    def test_the_command_brings_what_is_looked_for(self) -> None:
        """The command tells pip to unpack into the folder where the build looks."""
        command = wheels.fetch_wheels_command("aarch64")
        assert f"--target={wheels.wheels_folder('aarch64')}" in command
        assert wheels.find_wheels("aarch64") is None
        folder = wheels.wheels_folder("aarch64")
        for name in (
            "executorch/lib/libexecutorch.so",
            f"executorch-{wheels.EXECUTORCH}.dist-info/RECORD",
            "onnxruntime/capi/libonnxruntime.so.1.32.0",
        ):
            assert wheels.find_wheels("aarch64") is None, "an interrupted pip leaves nothing that counts"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        assert wheels.find_wheels("aarch64") == folder


def test_a_failed_download_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has pip's own words, and nothing half-unpacked stays."""
    monkeypatch.setattr(wheels, "EXECUTORCH", "0.0.0.none")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SetupError, match=r"could not be downloaded: .*executorch"):
        wheels.fetch_wheels("aarch64")
    left = [path.suffix for path in wheels.wheels_folder("aarch64").parent.iterdir()]
    assert left == [".lock"]


def test_no_such_folder(tmp_path: Path) -> None:
    """A root that is not a folder is named."""
    with pytest.raises(SetupError, match="absent is not a folder"):
        runner_build.build_runners("linux-arm64", executorch=tmp_path / "absent")


def test_not_built() -> None:
    """The error for a missing runner contains the command that builds it."""
    with pytest.raises(
        SetupError, match="export-mobile runner build --for android-arm64 --onnxruntime FOLDER"
    ):
        runner_build.find_runner_build("android-arm64", "onnxruntime")


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
        command, cwd=runner_build.SOURCES, env=environment, capture_output=True, text=True, check=False
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
    assert runner_build.build_runners("host", observer=lines.append) == built
    assert not [line for line in lines if "ompil" in line]
    assert runner_build.find_runner_build("host", "torchscript") in built


@pytest.mark.slow
def test_what_the_compiler_said(tmp_path: Path) -> None:
    """The error of a failed build names the log with the compiler's output."""
    aar = _aar(tmp_path / "aar")
    with pytest.raises(SetupError, match=r"did not build: .* The complete output is in .*configure\.log"):
        runner_build.build_runners("linux-arm64", onnxruntime=aar)


def test_android_programs_fit_pages_of_16_kb() -> None:
    """Both the preset and the linker say so, because NDKs before r28 align to 4 KB."""
    presets = json.loads((runner_build.SOURCES / "CMakePresets.json").read_text())["configurePresets"]
    (android,) = (preset for preset in presets if preset["name"] == "android-arm64")
    assert android["cacheVariables"]["ANDROID_SUPPORT_FLEXIBLE_PAGE_SIZES"] == "ON"
    assert "max-page-size=16384" in (runner_build.SOURCES / "CMakeLists.txt").read_text()


EXECUTORCH_TREE = """
foreach(name executorch portable_ops_lib {backends})
  add_library(${{name}} INTERFACE IMPORTED)
endforeach()
"""
LINKED = """
cmake_minimum_required(VERSION 3.20)
project(runtimes NONE)
set(EXECUTORCH_ROOT {root})
include({sources}/runtimes.cmake)
foreach(runtime executorch vulkan)
  set(libraries "")
  if(TARGET ${{runtime}}_runtime)
    get_target_property(libraries ${{runtime}}_runtime INTERFACE_LINK_LIBRARIES)
  endif()
  file(WRITE {root}/linked-${{runtime}} "${{libraries}}")
endforeach()
"""


@pytest.mark.skipif(not shutil.which("cmake"), reason="no CMake")
@pytest.mark.parametrize("backends", [("xnnpack_backend",), ("xnnpack_backend", "vulkan_backend")])
def test_vulkan_has_a_runner_of_its_own_where_executorch_has_it(
    backends: tuple[str, ...], tmp_path: Path
) -> None:
    """An install tree with Vulkan gives a second runner; no GPU's driver is where CPUs are measured."""
    (tmp_path / "executorch-config.cmake").write_text(EXECUTORCH_TREE.format(backends=" ".join(backends)))
    (tmp_path / "CMakeLists.txt").write_text(LINKED.format(root=tmp_path, sources=runner_build.SOURCES))
    made = tmp_path / "made"
    subprocess.run(["cmake", "-S", str(tmp_path), "-B", str(made)], check=True, capture_output=True)
    linked = {name: (tmp_path / f"linked-{name}").read_text().split(";") for name in ("executorch", "vulkan")}
    assert "xnnpack_backend" in linked["executorch"]
    assert "vulkan_backend" not in linked["executorch"]
    assert ("vulkan_backend" in linked["vulkan"]) is ("vulkan_backend" in backends)


OWN_HEADERS = runner_build.SOURCES / "onnxruntime"


def test_every_function_that_the_runner_calls_is_declared() -> None:
    """A function that the device runner begins to call needs its place in our header."""
    called = set(re.findall(r"api_->(\w+)", (runner_build.SOURCES / "backend_onnxruntime.cc").read_text()))
    header = (OWN_HEADERS / "onnxruntime_c_api.h").read_text()
    assert called <= set(re.findall(r"\(\*(\w+)\)", header))


HEADERS = base.base_cache_folder() / f"{base.RELEASE}-{base.FORMAT}" / "usr/include/onnxruntime"


@pytest.mark.skipif(not HEADERS.exists(), reason="the simulator's root, which has the headers, is not made")
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_the_places_of_onnx_runtimes_functions_are_its_own(tmp_path: Path) -> None:
    """Every function that our header declares is where ONNX Runtime's own header has it."""
    header = (OWN_HEADERS / "onnxruntime_c_api.h").read_text()
    table = header[header.index("typedef struct OrtApi {") : header.index("} OrtApi;")]
    names = re.findall(r"\(\*(\w+)\)", table)
    assert len(names) > 20
    lines = "".join(f'std::printf("%zu ", offsetof(OrtApi, {name}));' for name in names)
    source = tmp_path / "places.cc"
    source.write_text(
        f'#include <cstddef>\n#include <cstdio>\n#include "onnxruntime_c_api.h"\nint main() {{ {lines} }}\n'
    )
    places = []
    for folder in (OWN_HEADERS, HEADERS):
        built = tmp_path / folder.name
        command = ["g++", "-Wno-invalid-offsetof", f"-I{folder}", str(source), "-o", str(built)]
        subprocess.run(command, check=True)
        places.append(subprocess.run([str(built)], check=True, capture_output=True, text=True).stdout)
    assert places[0] == places[1]
