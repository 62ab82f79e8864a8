"""Tests of the processor that is emulated, and of what emulation needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from android_harness import wheels
from exporter.config.targets import TARGETS, get_target
from exporter.emulated import arm_tools, cores
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
    """The 865's files list four small and four large cores, with their clocks."""
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
        monkeypatch.setattr(arm_tools, "QEMU", ("no-such-program",))
    else:
        monkeypatch.setattr(arm_tools, "COMPILER", "no-such-program")
    assert arm_tools.missing_arm_tools() == arm_tools.PACKAGES
    assert arm_tools.ready_arm_tools(tmp_path) is None
    with pytest.raises(MissingDependencyError, match="QEMU and an Arm cross compiler") as raised:
        arm_tools.prepare_arm_tools(tmp_path)
    assert "apt install" in raised.value.hint


def test_a_failed_download_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a preparation is none."""
    monkeypatch.setattr(arm_tools, "missing_arm_tools", lambda: "")
    monkeypatch.setattr(arm_tools, "SYSTEM_LIBRARIES", ())
    monkeypatch.setattr(wheels, "EXECUTORCH", "0.0.0.none")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("EXPORT_MOBILE_CACHE", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="wheels could not be downloaded"):
        arm_tools.prepare_arm_tools(tmp_path)
    assert arm_tools.ready_arm_tools(tmp_path) is None
