"""The wheel holds what users run, and none of the developers' tools."""

from __future__ import annotations

from pathlib import Path

import pytest
from setuptools import Distribution
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.parent


@pytest.fixture
def wheel_files(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The paths in the wheel, as setuptools derives them from pyproject.toml; nothing is built."""
    monkeypatch.chdir(ROOT)
    distribution = Distribution({"script_name": "setup.py"})
    distribution.parse_config_files()
    distribution.set_defaults()
    command = build_py(distribution)
    command.ensure_finalized()
    return {Path(path).relative_to(command.build_lib).as_posix() for path in command.get_outputs()}


def test_the_wheel_holds_both_packages_with_their_data(wheel_files: set[str]) -> None:
    """Code alone is not enough: the runner is built from sources, networks are known from an index."""
    assert {
        "android_harness/adb.py",
        "android_harness/runner/main.cc",
        "android_harness/history/migrations/versions/0001_first.py",
        "exporter/__main__.py",
        "exporter/architectures/packages.json.gz",
        "exporter/architectures/torchvision.json.gz",
        "exporter/py.typed",
    } <= wheel_files


def test_the_wheel_holds_no_developer_tool(wheel_files: set[str]) -> None:
    """The device simulator, the survey of torchvision and the tests stay in the checkout."""
    tools = {path for path in wheel_files if "simulator" in path or "survey" in path}
    assert not tools
    assert {path.partition("/")[0] for path in wheel_files} == {"android_harness", "exporter"}
