"""Examine what is installed, which runtimes execute here, and which command fixes what is missing.

`framework_checks` probes every framework in a process of its own with a deadline: one that crashes or hangs
at import says so and takes nothing else down.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

from exporter import sandbox
from exporter.cli.doctor import extras, phone
from exporter.cli.doctor.findings import Finding
from exporter.cli.doctor.framework_checks import IMPORTS, FrameworkCheck, run_framework_check
from exporter.config import packaged, toolchains
from exporter.data import demo
from exporter.emulated import arm_tools
from exporter.emulated.vulkan import vulkan_tools
from exporter.errors import MissingDependencyError
from exporter.estimate import qemu_plugin
from exporter.pipeline import cache, count_stage, memory

LEAST_MEMORY_BYTES = 4 * 2**30
"""Memory below which the doctor warns. Exporting MobileNetV2 in two workers needs about half of it."""
LEAST_DISK_BYTES = 2**30


def examine_machine() -> tuple[Finding, ...]:
    """Look at everything an export or a phone needs; imports no framework into this process."""
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        probes = dict(zip(IMPORTS, pool.map(run_framework_check, IMPORTS), strict=True))
    requirements = _requirements_to_examine()
    return (
        _examine_python(),
        *(_examine_package(name, requirements.get(name, ""), probes[name]) for name in IMPORTS),
        _examine_toolchain(),
        *_examine_runtimes(probes),
        _examine_arm64(),
        _examine_counting(),
        *_examine_processor(),
        *_examine_samples(),
        *phone.examine_phone(),
        *extras.examine_extras(),
    )


def _examine_python() -> Finding:
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("Python", "ok", detail)


def _requirements_to_examine() -> dict[str, str]:
    """Return distribution -> version specifier, from installed metadata or a checkout's pyproject.toml."""
    try:
        written = metadata.requires("export-mobile") or []
    except metadata.PackageNotFoundError:
        project = Path(__file__).parents[3] / "pyproject.toml"
        written = tomllib.loads(project.read_text())["project"]["dependencies"] if project.is_file() else []
    parts = [re.match(r"([A-Za-z0-9._-]+)\s*([^;\s]*)", line) for line in written]
    return {part[1].lower(): part[2] for part in parts if part}


def _examine_package(name: str, wanted: str, probe: FrameworkCheck) -> Finding:
    install = f"pip install '{name}{wanted}'"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, "missing", f"not installed; needs {wanted or 'any version'}", install)
    if probe.failure:
        return Finding(name, "missing", f"{version} {probe.failure}", f"{install} --force-reinstall")
    if not _satisfies_requirement(version, wanted):
        return Finding(name, "limited", f"{version}; export-mobile needs {wanted}", install)
    return Finding(name, "ok", version)


def _satisfies_requirement(version: str, wanted: str) -> bool:
    """Tell whether a version is in a requirement's range; 2.13.0+cpu is 2.13.0 built for the CPU."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        return Version(version).public in SpecifierSet(wanted, prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return False


def _examine_toolchain() -> Finding:
    """Tell whether the installed frameworks were tested together."""
    toolchain = toolchains.installed_toolchain()
    pins = " ".join(f"{n}=={toolchain.nearest.versions[n]}" for n in toolchain.different)
    if not toolchain.different:
        return Finding("Toolchain", "ok", toolchain.text)
    return Finding("Toolchain", "limited", toolchain.text, f"pip install {pins}")


def _examine_runtimes(probes: dict[str, FrameworkCheck]) -> tuple[Finding, ...]:
    """Find which artifacts this machine can execute and not only build."""
    return (
        _examine_xnnpack(probes["executorch"]),
        _examine_vulkan(probes["executorch"]),
        _examine_onnxruntime(probes["onnxruntime"]),
        _examine_lite(probes["torch"]),
        _examine_optimizer(probes["torch"]),
        _examine_coreml(probes["coremltools"]),
        _examine_operators(probes["torchvision"]),
    )


def _examine_untried_runtime(title: str, package: str, probe: FrameworkCheck) -> Finding:
    return Finding(title, "missing", f"{package} {probe.failure}", f"Fix {package} first.")


def _examine_xnnpack(probe: FrameworkCheck) -> Finding:
    title = "ExecuTorch XNNPACK runtime"
    if probe.failure:
        return _examine_untried_runtime(title, "executorch", probe)
    backends = probe.answer["backends"]
    if "XnnpackBackend" in backends:
        return Finding(title, "ok", f"executes here; registered backends: {', '.join(backends)}")
    return Finding(
        title,
        "missing",
        f"not among the registered backends: {', '.join(backends) or 'none'}",
        f"pip install executorch{_requirements_to_examine().get('executorch', '')} --force-reinstall",
    )


def _examine_vulkan(probe: FrameworkCheck) -> Finding:
    title = "ExecuTorch Vulkan runtime"
    if "VulkanBackend" in probe.answer.get("backends", ()):
        return Finding(title, "ok", "registered; needs a Vulkan 1.1 driver to execute")
    if command := vulkan_tools.missing_vulkan_tools():
        detail = "not in this ExecuTorch build, and no software runtime: Vulkan artifacts are not_run"
        return Finding(title, "limited", detail, command)
    if not vulkan_tools.ready_vulkan_tools(cache.default_cache_root()):
        detail = (
            "Mesa's software driver is here, ExecuTorch for it is not prepared: Vulkan artifacts are not_run"
        )
        return Finding(title, "limited", detail, vulkan_tools.PREPARE)
    return Finding(title, "ok", f"executes on Mesa's software driver: {vulkan_tools.PACKAGE}")


def _examine_onnxruntime(probe: FrameworkCheck) -> Finding:
    title = "ONNX Runtime"
    if probe.failure:
        return _examine_untried_runtime(title, "onnxruntime", probe)
    return Finding(title, "ok", f"executes here; providers: {', '.join(probe.answer['providers'])}")


def _examine_lite(probe: FrameworkCheck) -> Finding:
    title = "TorchScript lite interpreter"
    if probe.failure:
        return _examine_untried_runtime(title, "torch", probe)
    if probe.answer["lite"] is True:
        return Finding(title, "ok", "saved, loaded and ran a module here")
    return Finding(title, "limited", f"cannot run a module here: {probe.answer['lite']}")


def _examine_optimizer(probe: FrameworkCheck) -> Finding:
    title = "TorchScript mobile optimizer"
    if probe.answer.get("optimizer") is True:
        return Finding(title, "ok", "optimize_for_mobile works")
    reason = probe.answer.get("optimizer", probe.failure)
    detail = f"not in this torch build ({reason}): modules are frozen and folded instead"
    return Finding(title, "limited", detail, "Use a torch built with USE_XNNPACK=1, or do nothing.")


def _examine_coreml(probe: FrameworkCheck) -> Finding:
    title = "Core ML runtime"
    if probe.failure:
        return _examine_untried_runtime(title, "coremltools", probe)
    if platform.system() == "Darwin":
        return Finding(title, "ok", f"executes here (macOS {platform.mac_ver()[0]})")
    detail = f"needs macOS, this is {platform.system()}: the reference interpreter verifies packages instead"
    return Finding(title, "limited", detail, "Run `export-mobile verify OUT` on a Mac.")


def _examine_operators(probe: FrameworkCheck) -> Finding:
    title = "torchvision operator library"
    if probe.failure:
        return _examine_untried_runtime(title, "torchvision", probe)
    if probe.answer["operators"]:
        return Finding(title, "ok", "loads")
    detail = "does not load with this torch; stand-ins are declared (classification, segmentation unaffected)"
    fix = "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"
    return Finding(title, "limited", detail, fix)


def _examine_arm64() -> Finding:
    title = "Arm kernels, emulated"
    if command := arm_tools.missing_arm_tools():
        detail = "artifacts run on this machine's kernels only: no QEMU, or no Arm cross compiler"
        return Finding(title, "limited", detail, command)
    if not arm_tools.ready_arm_tools(cache.default_cache_root()):
        detail = "QEMU and the Arm compiler are here; the programs are not prepared"
        return Finding(title, "limited", detail, arm_tools.PREPARE)
    return Finding(title, "ok", f"ready: exports run on them, too; {arm_tools.RUNTIME}")


def _examine_counting() -> Finding:
    title = "Instruction counts"
    command = count_stage.missing_for_count_stage(cache.default_cache_root())
    if not command:
        return Finding(title, "ok", "QEMU takes the plugin: estimates follow from counted instructions")
    if command == arm_tools.PREPARE:
        detail = "estimates of exports follow from the graph until the programs are prepared"
    elif qemu_plugin.missing_for_qemu_plugin():
        detail = "estimates follow from the graph: no dynamically linked QEMU, or no C compiler"
    else:
        detail = "estimates follow from the graph: no Arm cross compiler"
    return Finding(title, "limited", detail, command)


def _examine_processor() -> tuple[Finding, ...]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return (
        Finding("Cores", "ok", f"{cores}"),
        _examine_sandbox(),
        _examine_memory(),
        _examine_disk("Free disk, cache", cache.default_cache_root()),
        _examine_disk("Free disk, here", Path.cwd()),
    )


def _examine_sandbox() -> Finding:
    """What confines the processes that run models of unknown origin."""
    available = sandbox.sandbox_support()
    if available.landlock and available.seccomp:
        return Finding("Sandbox", "ok", f"{available}: models run without files, network or programs")
    if available.confines:
        closed = "files and TCP" if available.landlock else "writing, the network and programs, not reading"
        return Finding("Sandbox", "limited", f"{available}: closes {closed}", "Linux 5.13 or later has both.")
    detail = f"{available} only: a TorchScript archive needs --trust here"
    return Finding("Sandbox", "limited", detail, "Use Linux 5.13 or later.")


def _examine_memory() -> Finding:
    free = memory.free_memory_bytes()
    if free is None:
        return Finding("Free memory", "ok", "unknown on this system")
    detail = f"{free / 2**30:.1f} GiB"
    if free >= LEAST_MEMORY_BYTES:
        return Finding("Free memory", "ok", detail)
    fix = "Close other programs, or use --jobs 1."
    return Finding("Free memory", "limited", f"{detail}; {LEAST_MEMORY_BYTES >> 30} GiB is comfortable", fix)


def _examine_disk(title: str, folder: Path) -> Finding:
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    detail = f"{free / 2**30:.1f} GiB in {folder}"
    if not os.access(existing, os.W_OK):
        return Finding(title, "limited", f"{folder} is not writable", "Choose another folder.")
    if free >= LEAST_DISK_BYTES:
        return Finding(title, "ok", detail)
    return Finding(title, "limited", detail, "Free some space, or choose another folder.")


def _examine_samples() -> tuple[Finding, ...]:
    """Find the sample checkpoint and photos, which the demo needs and exports do not."""
    return (
        _examine_sample(
            "Sample checkpoint", lambda: (packaged.find_packaged(demo.CHECKPOINT),), demo.CHECKPOINT_COMMAND
        ),
        _examine_sample("Sample photos", demo.demo_photos, demo.PHOTOS_ADVICE),
    )


def _examine_sample(title: str, find: Callable[[], tuple[Path, ...]], fix: str) -> Finding:
    try:
        paths = find()
    except MissingDependencyError as error:
        return Finding(title, "limited", error.message, fix)
    return Finding(title, "ok", f"{len(paths)} file(s) in {paths[0].parent}")
