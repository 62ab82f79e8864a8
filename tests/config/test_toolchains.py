"""What is installed is compared with the sets of versions that were tested together."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from exporter.config import toolchains
from exporter.config.toolchains import (
    TOOLCHAIN_SETS,
    ToolchainSet,
    compare_toolchain,
    toolchain_warnings,
)

OLD = ToolchainSet("2026.05", {"torch": "2.12.0", "onnx": "1.22.0"})
NEW = ToolchainSet("2026.11", {"torch": "2.13.0", "onnx": "1.23.2"})


@pytest.fixture
def two_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchains, "TOOLCHAIN_SETS", (OLD, NEW))


@pytest.mark.usefixtures("two_sets")
@pytest.mark.parametrize(
    ("installed", "text"),
    [
        ({"torch": "2.13.0+cpu", "onnx": "1.23.2"}, "tested set 2026.11"),
        ({"torch": "2.12.0", "onnx": "1.22.0"}, "tested set 2026.05"),
        (
            {"torch": "2.14.0", "onnx": "1.23.2"},
            "no tested set; nearest 2026.11, but torch 2.14.0 (tested: 2.13.0)",
        ),
        ({"torch": "2.12.0"}, "no tested set; nearest 2026.05, but onnx none (tested: 1.22.0)"),
    ],
)
def test_the_nearest_set_is_named(installed: dict[str, str], text: str) -> None:
    """The set with the fewest differences is named, with what differs from it."""
    assert compare_toolchain(installed).text == text


def test_an_untested_set_is_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """The warning names the package, its version and the tested one; a tested set has none."""
    versions = dict(TOOLCHAIN_SETS[0].versions)
    monkeypatch.setattr(toolchains, "_installed_version", versions.__getitem__)
    assert toolchain_warnings() == ()
    versions["torch"] = "9.9.9"
    (warning,) = toolchain_warnings()
    assert "torch 9.9.9 (tested: 2.13.0)" in warning


def test_the_pinned_requirements_are_a_tested_set() -> None:
    """What `pip install export-mobile` brings was tested together."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    pins = dict(line.split("==") for line in project["dependencies"] if "==" in line)
    assert pins in [dict(tested.versions) for tested in TOOLCHAIN_SETS]
