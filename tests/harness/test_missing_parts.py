"""Tests of what `scripts/simulated-device` says of missing parts and of its steps; no device starts."""

from __future__ import annotations

import itertools
import shutil
import sys
from pathlib import Path

import pytest

from android_harness import runner_build, runner_runtimes, wheels
from android_harness.errors import SetupError
from android_harness.records import Backend
from android_harness.simulator import __main__ as command
from android_harness.simulator import base, device, missing_parts, server
from android_harness.simulator.soc import Arch

BARE: tuple[Arch, ...] = ("x86_64", "aarch64")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that this machine is Linux without root, programs, packages, wheels and built runners."""
    monkeypatch.setenv("EXPORT_MOBILE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda name, **_: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(runner_runtimes, "_runner_runtime_package", lambda name: None)
    monkeypatch.setattr(missing_parts, "EMULATOR", tmp_path / "no-binfmt")
    monkeypatch.setattr(device, "running_simulated_devices", tuple)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("arch", BARE)
def test_every_missing_part_is_named_at_once(arch: Arch, capsys: pytest.CaptureFixture[str]) -> None:
    """One start names all that it needs, each with the command that brings it, and nothing is begun."""
    assert command.simulator_main(["up", "--arch", arch]) == SetupError.exit_code
    said = capsys.readouterr().err
    commands = {"sudo", "pip install 'export-mobile[android]'"}
    commands |= {f"apt install {package}" for package in base.PROGRAMS.values()}
    assert {name for name in base.PROGRAMS if name not in said} == set()
    if arch == "aarch64":
        commands.add("apt install qemu-user-static")
    assert {wanted for wanted in commands if wanted not in said} == set()
    assert ("qemu-aarch64-static" in said) is (arch == "aarch64")


def test_another_system_is_told_that_it_needs_linux(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No command helps there, so none is printed."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert command.simulator_main(["up"]) == SetupError.exit_code
    said = capsys.readouterr().err
    assert "need Linux" in said
    assert "install" not in said


@pytest.mark.parametrize("arch", BARE)
def test_devices_without_runners_say_what_bench_lacks(
    arch: Arch, bare: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The devices start, and each step of starting and each part of a build is told with its command."""
    monkeypatch.setattr(missing_parts, "missing_device_parts", lambda arch: ())
    monkeypatch.setattr(server, "connect_to_server", lambda address, port: None)

    def start(*arguments: object, observer: object = None, **_: object) -> device.SimulatedDevice:
        assert callable(observer)
        observer("Starting a device")
        return device.SimulatedDevice("sim", "127.0.0.1:1", 1, 0, 1, arch, "snapdragon865", False)

    monkeypatch.setattr(device, "start_simulated_device", start)
    assert command.simulator_main(["up", "--arch", arch]) == 0
    shown = capsys.readouterr()
    assert shown.out == "127.0.0.1:1\n"
    target = "linux-arm64" if arch == "aarch64" else "host"
    compiler = "g++-aarch64-linux-gnu" if arch == "aarch64" else "apt install g++"
    wanted = (
        "Starting a device",
        "cmake is not installed. Install it: pip install",
        compiler,
        f"executorch=={wheels.EXECUTORCH}",
        "nlohmann-json",
        f"The executorch runner for {target} is not built",
        f"The onnxruntime runner for {target} is not built",
        f"export-mobile runner build --for {target}",
    )
    assert [words for words in wanted if words not in shown.err] == []


def test_what_is_built_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with built runners is told nothing, whatever a further build would need."""

    def built(target: str, backend: Backend) -> Path:
        return Path(f"runner-{backend}")

    monkeypatch.setattr(runner_build, "find_runner_build", built)
    monkeypatch.setattr(shutil, "which", lambda name, **_: None)
    assert missing_parts.missing_bench_parts("x86_64") == ()


def test_making_the_root_tells_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute and a half pass without silence: every program that runs is announced before it runs."""
    steps: list[str] = []
    monkeypatch.setenv("EXPORT_MOBILE_SIMULATOR_ROOT", str(tmp_path))
    monkeypatch.setattr(base, "missing_for_base", lambda: "")
    monkeypatch.setattr(shutil, "copy", lambda source, target: None)
    monkeypatch.setattr(base, "_run_for_base", lambda *argv: steps.append(f"ran {argv[0]}"))
    assert base.base_root(steps.append).is_dir()
    assert steps[0].startswith("Making the devices' Debian root in")
    for before, after in itertools.pairwise(steps):
        if after.startswith("ran "):
            assert not before.startswith("ran "), f"{after} was not announced"
    assert sum(step.startswith("ran ") for step in steps) >= 5
    done = len(steps)
    base.base_root(steps.append)
    assert len(steps) == done
