"""Examine what `devices`, `bench` and `runner build` need. Exports need none of it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path
from typing import get_args

from exporter.cli.doctor.findings import Finding

EXTRA = "pip install 'export-mobile[android]'"
PACKAGES = ("adbutils",)
TOOLCHAIN = "build/cmake/android.toolchain.cmake"
LEAST_NDK = 26
NDK_FIX = (
    f"Unzip r{LEAST_NDK} or newer from https://developer.android.com/ndk/downloads, export ANDROID_NDK_HOME=…"
)


def examine_phone() -> tuple[Finding, ...]:
    """Examine adb, its package, the tools that build the runner, and the built runners."""
    return (
        _examine_phone_adb(),
        *map(_examine_phone_package, PACKAGES),
        _examine_phone_cmake(),
        _examine_phone_ndk(),
        _examine_phone_runner("android-arm64"),
        _examine_phone_runner("host"),
    )


def _examine_phone_adb() -> Finding:
    path = shutil.which("adb")
    if path:
        return Finding("adb", "ok", path)
    if importlib.util.find_spec("adbutils"):
        return Finding("adb", "ok", "the one that adbutils brings")
    return Finding("adb", "limited", "not on PATH; only needed to measure on a phone", "apt-get install adb")


def _examine_phone_package(name: str) -> Finding:
    if importlib.util.find_spec(name):
        return Finding(name, "ok", "installed")
    return Finding(name, "limited", "not installed; only needed to measure on a phone", EXTRA)


def _examine_phone_cmake() -> Finding:
    # Where `runner build` looks: this environment's own programs come first.
    path = shutil.which("cmake", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if path:
        return Finding("cmake", "ok", path)
    return Finding("cmake", "limited", "not found; only needed to build the runner", EXTRA)


def _examine_phone_ndk() -> Finding:
    given = os.environ.get("ANDROID_NDK_HOME", "")
    if not given:
        return Finding("Android NDK", "limited", "ANDROID_NDK_HOME is not set", NDK_FIX)
    if not (Path(given) / TOOLCHAIN).is_file():
        return Finding(
            "Android NDK", "limited", f"ANDROID_NDK_HOME is {given}: no {TOOLCHAIN} there", NDK_FIX
        )
    version = _phone_ndk_version(Path(given))
    if version and int(version.split(".")[0]) < LEAST_NDK:
        return Finding("Android NDK", "limited", f"{version} in {given}; needs r{LEAST_NDK}", NDK_FIX)
    return Finding("Android NDK", "ok", f"{version or 'unknown version'} in {given}")


def _phone_ndk_version(folder: Path) -> str:
    try:
        text = (folder / "source.properties").read_text()
    except (OSError, UnicodeDecodeError):
        return ""
    match = re.search(r"^Pkg\.Revision\s*=\s*(\d[\d.]*)", text, re.MULTILINE)
    return match[1] if match else ""


def _examine_phone_runner(platform: str) -> Finding:
    from android_harness import runner_build
    from android_harness.errors import SetupError
    from android_harness.records import Backend, Build

    (target,) = (known for known in get_args(Build) if known == platform)
    built, missing = [], []
    for backend in get_args(Backend):
        try:
            runner_build.find_runner_build(target, backend)
        except SetupError as error:
            missing.append((backend, error.hint.removeprefix("Build it: ")))
        else:
            built.append(backend)
    title = f"Runner, {platform}"
    if not missing:
        return Finding(title, "ok", f"built for {', '.join(built)}")
    without = ", ".join(backend for backend, _ in missing)
    detail = f"built for {', '.join(built)}, not for {without}" if built else "not built"
    return Finding(title, "limited", detail, missing[0][1])
