"""Tests of the doctor: probes are real, and no broken framework stops it."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import re
import shutil
import sys
import time
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from typer.testing import CliRunner

from android_harness import runner_build
from android_harness.errors import SetupError
from exporter.cli import inspect_and_verify, prepare
from exporter.cli.app import app
from exporter.cli.doctor import examine, extras, framework_checks, phone
from exporter.cli.doctor.findings import Finding
from exporter.cli.doctor.framework_checks import FrameworkCheck
from exporter.config import packaged
from exporter.data import demo
from exporter.emulated.vulkan import vulkan_tools
from exporter.errors import MissingDependencyError
from exporter.pipeline import memory
from exporter.sandbox import SandboxSupport

HEALTHY = {
    "torch": FrameworkCheck({"lite": True, "optimizer": True}),
    "torchvision": FrameworkCheck({"operators": True}),
    "executorch": FrameworkCheck({"backends": ["XnnpackBackend"]}),
    "onnxruntime": FrameworkCheck({"providers": ["CPUExecutionProvider"]}),
}


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> dict[str, FrameworkCheck]:
    """Return the answers of a machine where everything works."""
    answers = {name: HEALTHY.get(name, FrameworkCheck({})) for name in framework_checks.IMPORTS}
    monkeypatch.setattr(examine, "run_framework_check", answers.__getitem__)
    return answers


def findings() -> dict[str, Finding]:
    return {finding.what: finding for finding in examine.examine_machine()}


def fake_framework(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """Make a module that stands for a framework and misbehaves on import."""
    (folder / "fake_framework.py").write_text(source)
    monkeypatch.setitem(framework_checks.IMPORTS, "fake", "fake_framework")
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.parametrize(
    ("source", "failure"),
    [
        (
            "raise RuntimeError('operator torchvision::nms does not exist')",
            "RuntimeError: operator torchvision",
        ),
        ("import no_such_dependency", "No module named 'no_such_dependency'"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "crashes when imported (SIGILL)"),
        ("import sys; sys.exit(3)", "exit code 3"),
        ("import os; os._exit(0)", "exit code 0"),
    ],
    ids=["raises", "dependency", "crashes", "exits", "exits-quietly"],
)
def test_a_broken_framework_is_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, failure: str
) -> None:
    """However a framework fails at import, the probe says how, in one line."""
    fake_framework(tmp_path, monkeypatch, source)
    probe = framework_checks.run_framework_check("fake")
    assert failure in probe.failure
    assert "\n" not in probe.failure


def test_a_framework_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hanging framework is killed at the deadline."""
    fake_framework(tmp_path, monkeypatch, "import time; time.sleep(60)")
    start = time.monotonic()
    assert "does not finish importing" in framework_checks.run_framework_check("fake", timeout_s=1).failure
    assert time.monotonic() - start < 20


def test_a_framework_that_prints_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chatter before and after the answer does not hide it."""
    source = "import atexit; print('hello'); atexit.register(print, 'goodbye')"
    fake_framework(tmp_path, monkeypatch, source)
    assert framework_checks.run_framework_check("fake") == FrameworkCheck({})


def test_a_folder_named_like_a_framework_is_no_framework(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's current folder shadows nothing."""
    (tmp_path / "onnx.py").write_text("raise RuntimeError('not me')")
    monkeypatch.chdir(tmp_path)
    assert framework_checks.run_framework_check("onnx").failure == ""


@pytest.mark.slow
def test_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run from another folder, the command finds all frameworks, and XNNPACK executes."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    seen = {row["what"]: Finding(**row) for row in json.loads(done.stdout)}
    assert [f.what for f in seen.values() if f.state == "missing"] == []
    assert done.exit_code == 0
    for name in framework_checks.IMPORTS:
        assert metadata.version(name) in seen[name].detail
    assert "XnnpackBackend" in seen["ExecuTorch XNNPACK runtime"].detail
    assert "CPUExecutionProvider" in seen["ONNX Runtime"].detail
    assert seen["TorchScript lite interpreter"].state == "ok"
    assert seen["Core ML runtime"].state == ("ok" if sys.platform == "darwin" else "limited")


def test_examining_imports_no_framework(
    healthy: dict[str, FrameworkCheck], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor's own process stays light, so no framework can take it down."""
    for name in framework_checks.IMPORTS:
        monkeypatch.setitem(sys.modules, name, None)  # importing it would raise
    importlib.reload(examine)
    monkeypatch.setattr(examine, "run_framework_check", healthy.__getitem__)
    assert findings()["torch"].state == "ok"


def test_a_healthy_machine_misses_nothing(healthy: dict[str, FrameworkCheck]) -> None:
    """Only optional findings need a fix when all probes are good."""
    assert {f.state for f in findings().values()} <= {"ok", "limited"}


@pytest.mark.parametrize("name", ["torch", "torchvision", "executorch", "onnxruntime", "coremltools"])
def test_one_broken_framework_leaves_the_others(healthy: dict[str, FrameworkCheck], name: str) -> None:
    """Only the broken framework is missing, with a command that reinstalls it."""
    healthy[name] = FrameworkCheck({}, "crashes when imported (SIGILL)")
    seen = findings()
    assert seen[name].state == "missing"
    assert "SIGILL" in seen[name].detail
    assert re.match(rf"pip install '{name}[<>]", seen[name].fix)
    assert {seen[other].state for other in framework_checks.IMPORTS if other != name} == {"ok"}


@pytest.mark.parametrize(
    ("name", "answer", "title", "state", "detail"),
    [
        ("executorch", {"backends": ["QnnBackend"]}, "ExecuTorch XNNPACK runtime", "missing", "QnnBackend"),
        ("executorch", {"backends": ["VulkanBackend"]}, "ExecuTorch Vulkan runtime", "ok", "registered"),
        ("executorch", {"backends": ["XnnpackBackend"]}, "ExecuTorch Vulkan runtime", "limited", "not_run"),
        (
            "torch",
            {"lite": "no lite", "optimizer": True},
            "TorchScript lite interpreter",
            "limited",
            "no lite",
        ),
        (
            "torch",
            {"lite": True, "optimizer": "no XNNPACK"},
            "TorchScript mobile optimizer",
            "limited",
            "XNNPACK",
        ),
        ("torchvision", {"operators": False}, "torchvision operator library", "limited", "stand-ins"),
    ],
)
def test_what_a_probe_says_is_reported(
    healthy: dict[str, FrameworkCheck],
    name: str,
    answer: dict[str, object],
    title: str,
    state: str,
    detail: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Each answer leads to its state, with the reason, where nothing is prepared."""
    monkeypatch.setenv("EXPORT_MOBILE_CACHE", str(tmp_path))
    healthy[name] = FrameworkCheck(answer)
    finding = findings()[title]
    assert finding.state == state
    assert detail in finding.detail


def test_an_uninstalled_package_names_its_command(
    healthy: dict[str, FrameworkCheck], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finding has the versions that are needed and the command that installs one of them."""
    version = metadata.version

    def without_onnx(name: str) -> str:
        if name == "onnx":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", without_onnx)
    finding = findings()["onnx"]
    assert finding.state == "missing"
    assert re.match(r"pip install 'onnx[<>]", finding.fix)


@pytest.mark.parametrize(
    ("installed", "state"),
    [
        ("2.13.0", "ok"),
        ("2.13.0+cpu", "ok"),
        ("2.14.0a0+git1", "ok"),
        ("2.12.1", "limited"),
        ("2.15.0", "limited"),
        ("2.9.0", "limited"),
        ("own build", "limited"),
    ],
)
def test_versions_are_held_to_the_range(monkeypatch: pytest.MonkeyPatch, installed: str, state: str) -> None:
    """A version outside of the range is a limitation; a CPU build or a preview within it is not."""
    monkeypatch.setattr(metadata, "version", lambda _name: installed)
    assert examine._examine_package("torch", ">=2.13,<2.15", FrameworkCheck({})).state == state


def test_ranges_are_read_from_the_project() -> None:
    """Versions come from the package's own metadata (or pyproject.toml in a checkout), not from a copy."""
    wanted = examine._requirements_to_examine()
    assert set(framework_checks.IMPORTS) <= set(wanted)
    assert SpecifierSet(wanted["torch"]).contains("2.13.0")
    assert "==" not in wanted["torch"]


@pytest.mark.parametrize(("gigabytes", "state"), [(64, "ok"), (1, "limited")])
def test_little_memory_is_said(monkeypatch: pytest.MonkeyPatch, gigabytes: int, state: str) -> None:
    """Memory that is too small for two workers is a limitation."""
    monkeypatch.setattr(memory, "free_memory_bytes", lambda: gigabytes * 2**30)
    assert examine._examine_memory().state == state


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Free space is looked up where the folder will be, even before it exists."""
    asked: list[Path] = []

    def usage(path: Path) -> object:
        asked.append(path)
        return shutil._ntuple_diskusage(10, 9, 1)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert examine._examine_disk("Free disk", tmp_path / "not" / "yet").state == "limited"
    assert asked == [tmp_path]


def test_missing_samples_are_optional(
    healthy: dict[str, FrameworkCheck], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exports work without the demo's checkpoint; the finding names the command that installs it."""
    nowhere = packaged.PackagedFile("no_such_package_here", "w.pth", demo.CHECKPOINT_COMMAND)
    monkeypatch.setattr(demo, "CHECKPOINT", nowhere)
    finding = findings()["Sample checkpoint"]
    assert (finding.state, finding.fix) == ("limited", demo.CHECKPOINT_COMMAND)


def phone_findings() -> dict[str, Finding]:
    return {finding.what: finding for finding in phone.examine_phone()}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Simulate a machine that was not set up for phones."""
    monkeypatch.setattr(shutil, "which", lambda _name, path=None: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.delenv("ANDROID_NDK_HOME", raising=False)
    monkeypatch.setenv("EXPORT_MOBILE_CACHE", str(tmp_path))


@pytest.mark.usefixtures("bare")
def test_what_a_phone_takes_is_optional_and_has_a_fix() -> None:
    """No missing tool for phones means that an export cannot run."""
    by_title = phone_findings()
    assert {finding.state for finding in by_title.values()} == {"limited"}
    assert {title: finding.fix.split(",")[0] for title, finding in by_title.items()} == {
        "adb": "apt-get install adb",
        "adbutils": "pip install 'export-mobile[android]'",
        "cmake": "pip install 'export-mobile[android]'",
        "Android NDK": "Unzip r26 or newer from https://developer.android.com/ndk/downloads",
        "Runner, android-arm64": ("export-mobile runner build --for android-arm64 --executorch FOLDER"),
        "Runner, host": "export-mobile runner build --for host",
    }


def test_the_doctor_looks_at_the_phones_side_too(healthy: dict[str, FrameworkCheck]) -> None:
    """One command examines exports and phones."""
    assert set(phone_findings()) <= set(findings())


@pytest.mark.parametrize("name", extras.EXTRAS)
def test_a_missing_extra_is_optional_and_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The finding names the missing package, its use and its command; other extras are unaffected."""
    package = extras.EXTRAS[name].packages[-1]
    installed = {package_name for extra in extras.EXTRAS.values() for package_name in extra.packages} - {
        package
    }

    def version(wanted: str) -> str:
        if wanted not in installed:
            raise metadata.PackageNotFoundError(wanted)
        return "1.2"

    monkeypatch.setattr(metadata, "version", version)
    by_title = {finding.what: finding for finding in extras.examine_extras()}
    mine = by_title.pop(f"Extra {name}")
    assert (mine.state, mine.fix) == ("limited", f"pip install 'export-mobile[{name}]'")
    assert mine.detail == f"not installed: {package}; only needed {extras.EXTRAS[name].purpose}"
    assert {finding.state for finding in by_title.values() if package not in finding.detail} == {"ok"}
    assert all("1.2" in finding.detail for finding in by_title.values() if finding.state == "ok")


def test_extras_are_those_of_the_project(healthy: dict[str, FrameworkCheck]) -> None:
    """The doctor tells of every extra that a command needs, and of all its packages."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    declared = project["optional-dependencies"]
    assert extras.EXTRAS.keys() == declared.keys() - {"samples", "android", "benchmarks", "docs", "dev"}
    for name, extra in extras.EXTRAS.items():
        wanted = {re.split(r"[\[<>=]", line)[0] for line in declared[name]}
        assert wanted <= set(extra.packages) <= wanted | {"jsonschema"}  # of cyclonedx[json-validation]
    assert {f"Extra {name}" for name in extras.EXTRAS} <= findings().keys()


@pytest.mark.parametrize(
    ("revision", "state", "words"),
    [
        ("27.2.12479018", "ok", "27.2.12479018 in"),
        ("25.1.8937393", "limited", "needs r26"),
        (None, "limited", "no build/cmake"),
    ],
)
def test_the_ndk(
    revision: str | None, state: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder must hold a toolchain whose version supports C++20."""
    if revision:
        (tmp_path / "build/cmake").mkdir(parents=True)
        (tmp_path / "build/cmake/android.toolchain.cmake").touch()
        (tmp_path / "source.properties").write_text(f"Pkg.Desc = NDK\nPkg.Revision = {revision}\n")
    monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path))
    finding = phone_findings()["Android NDK"]
    assert finding.state == state
    assert words in finding.detail


def test_a_runner_for_some_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The finding lists built and missing runners, and the command for the rest."""

    def find(target: str, backend: str) -> Path:
        if backend == "torchscript":
            raise SetupError("It is not built.", f"Build it: build --for {target}")
        return Path("runner")

    monkeypatch.setattr(runner_build, "find_runner_build", find)
    finding = phone_findings()["Runner, android-arm64"]
    assert finding.detail == "built for executorch, onnxruntime, vulkan, not for torchscript"
    assert finding.fix == "build --for android-arm64"
    monkeypatch.setattr(runner_build, "find_runner_build", lambda target, backend: Path("runner"))
    assert phone_findings()["Runner, host"].state == "ok"


@pytest.mark.parametrize(
    ("support", "state", "words"),
    [
        (SandboxSupport(7, seccomp=True), "ok", "Landlock 7, seccomp"),
        (SandboxSupport(1, seccomp=False), "limited", "closes files and TCP"),
        (SandboxSupport(0, seccomp=True), "limited", "not reading"),
        (SandboxSupport(0, seccomp=False), "limited", "needs --trust"),
    ],
)
def test_the_sandbox_is_named(
    monkeypatch: pytest.MonkeyPatch, support: SandboxSupport, state: str, words: str
) -> None:
    """The doctor says which mechanisms confine models here, and what that leaves open."""
    monkeypatch.setattr("exporter.sandbox.sandbox_support", lambda: support)
    finding = examine._examine_sandbox()
    assert (finding.what, finding.state) == ("Sandbox", state)
    assert words in finding.detail


@pytest.mark.parametrize(
    ("missing", "ready", "state", "words"),
    [
        ("apt install npm", None, "limited", "apt install npm"),
        ("", None, "limited", "export-mobile doctor --prepare"),
        ("", Path("folder"), "ok", "react-native-executorch"),
    ],
)
def test_what_vulkan_needs_to_be_executed(
    missing: str, ready: Path | None, state: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finding says which command comes next, and by what artifacts are executed in the end."""
    monkeypatch.setattr(vulkan_tools, "missing_vulkan_tools", lambda: missing)
    monkeypatch.setattr(vulkan_tools, "ready_vulkan_tools", lambda cache: ready)
    finding = examine._examine_vulkan(FrameworkCheck({"backends": ["XnnpackBackend"]}))
    assert finding.state == state
    assert words in f"{finding.detail} {finding.fix}"


@pytest.mark.parametrize("missing", [(), ("prepare_arm_programs",), ("prepare_software_vulkan",)])
def test_prepare_does_what_this_machine_can(
    missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A step that cannot be done keeps nothing else from being prepared, and its command is told."""
    done = []

    def step(name: str) -> None:
        if name in missing:
            raise MissingDependencyError("There is no QEMU.", "Debian: apt install it.")
        done.append(name)

    names = ["prepare_arm_programs", "prepare_software_vulkan"]
    for name in names:
        monkeypatch.setattr(prepare, name, functools.partial(step, name))
    prepare.prepare_all_programs()
    assert done == [name for name in names if name not in missing]
    assert ("apt install it" in capsys.readouterr().err) == bool(missing)


def test_the_doctor_prepares_only_when_asked(
    healthy: dict[str, FrameworkCheck], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is downloaded without --prepare; with it, preparing comes before the findings."""
    order: list[str] = []

    def examined() -> tuple[Finding, ...]:
        order.append("examine")
        return ()

    monkeypatch.setattr(inspect_and_verify, "prepare_all_programs", lambda: order.append("prepare"))
    monkeypatch.setattr(examine, "examine_machine", examined)
    CliRunner().invoke(app, ["doctor"])
    assert order == ["examine"]
    CliRunner().invoke(app, ["doctor", "--prepare"])
    assert order == ["examine", "prepare", "examine"]
