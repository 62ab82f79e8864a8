"""Tests of the processor that is emulated, and of what emulation needs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from android_harness.simulator import base
from exporter.config.targets import TARGETS, get_target
from exporter.emulated import cores, parts
from exporter.errors import MissingDependencyError


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_every_target_has_a_core_with_its_instructions(target: object) -> None:
    """Dot products and i8mm are emulated where, and only where, the phone has them."""
    from exporter.config.targets import Target

    assert isinstance(target, Target)
    expected = cores.OLDEST_CORE
    if "dotprod" in target.instruction_sets:
        expected = cores.ARMV86_CORE if "i8mm" in target.instruction_sets else cores.ARMV82_CORE
    assert cores.emulated_core(target) == expected
    features = cores.emulated_core_files(target)["proc/cpuinfo"]
    assert ("asimddp" in features) == ("dotprod" in target.instruction_sets)
    assert ("i8mm" in features) == ("i8mm" in target.instruction_sets)


def test_the_865_is_recognised_by_its_cores() -> None:
    """Its files list four small and four large cores, with their clocks."""
    texts = cores.emulated_core_files(get_target("865"))
    assert re.findall(r"CPU part\t: (\w+)", texts["proc/cpuinfo"]) == ["0xd05"] * 4 + ["0xd0d"] * 4
    assert texts["sys/devices/system/cpu/possible"] == "0-7\n"
    assert texts["sys/devices/system/cpu/cpu7/cpufreq/cpuinfo_max_freq"] == "2842000\n"


@pytest.mark.parametrize("program", ["qemu", "compiler"])
def test_a_missing_program_is_named_with_the_command(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is downloaded without QEMU or the compiler, and the message says what to install."""
    if program == "qemu":
        monkeypatch.setattr(parts, "QEMU", ("no-such-program",))
    else:
        monkeypatch.setattr(parts, "COMPILER", "no-such-program")
    assert parts.missing_emulated_parts() == parts.PACKAGES
    assert parts.ready_emulated_parts(tmp_path) is None
    with pytest.raises(MissingDependencyError, match="QEMU and an Arm cross compiler") as raised:
        parts.prepare_emulated_parts(tmp_path)
    assert "apt install" in raised.value.hint


def test_a_failed_download_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a preparation is none."""
    monkeypatch.setattr(parts, "missing_emulated_parts", lambda: "")
    monkeypatch.setattr(parts, "SYSTEM_LIBRARIES", ())
    monkeypatch.setattr(parts, "EXECUTORCH", "0.0.0.none")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(MissingDependencyError, match="while downloading the Arm wheels"):
        parts.prepare_emulated_parts(tmp_path)
    assert parts.ready_emulated_parts(tmp_path) is None


def test_every_function_that_the_runner_calls_is_declared() -> None:
    """A function that the device runner begins to call needs its place in our header."""
    called = set(re.findall(r"api_->(\w+)", (parts.RUNNER / "backend_onnxruntime.cc").read_text()))
    header = (parts.HERE / "onnxruntime_c_api.h").read_text()
    assert called <= set(re.findall(r"\(\*(\w+)\)", header))


HEADERS = base.base_cache_folder() / f"{base.RELEASE}-{base.FORMAT}" / "usr/include/onnxruntime"


@pytest.mark.skipif(not HEADERS.exists(), reason="the simulator's root, which has the headers, is not made")
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_the_places_of_onnx_runtimes_functions_are_its_own(tmp_path: Path) -> None:
    """Every function that our header declares is where ONNX Runtime's own header has it."""
    header = (parts.HERE / "onnxruntime_c_api.h").read_text()
    table = header[header.index("typedef struct OrtApi {") : header.index("} OrtApi;")]
    names = re.findall(r"\(\*(\w+)\)", table)
    assert len(names) > 20
    lines = "".join(f'std::printf("%zu ", offsetof(OrtApi, {name}));' for name in names)
    source = tmp_path / "places.cc"
    source.write_text(
        f'#include <cstddef>\n#include <cstdio>\n#include "onnxruntime_c_api.h"\nint main() {{ {lines} }}\n'
    )
    places = []
    for folder in (parts.HERE, HEADERS):
        built = tmp_path / folder.name
        command = ["g++", "-Wno-invalid-offsetof", f"-I{folder}", str(source), "-o", str(built)]
        subprocess.run(command, check=True)
        places.append(subprocess.run([str(built)], check=True, capture_output=True, text=True).stdout)
    assert places[0] == places[1]
