"""What is installed is compared with the sets of versions that were tested together."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from exporter.config import toolchains
from exporter.config.toolchains import (
    TOOLCHAIN_SETS,
    ToolchainSet,
    compare_toolchain,
    toolchain_warnings,
)

ROOT = Path(__file__).parents[2]
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
    monkeypatch.setattr(toolchains, "_installed_toolchain_version", versions.__getitem__)
    assert toolchain_warnings() == ()
    versions["torch"] = "9.9.9"
    (warning,) = toolchain_warnings()
    assert "torch 9.9.9 (tested: 2.13.0)" in warning


def test_a_checkout_installs_the_first_tested_set() -> None:
    """`scripts/setup` and so CI have exactly the versions that the whole suite is said to run on."""
    lines = (ROOT / "scripts/constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pins == dict(TOOLCHAIN_SETS[0].versions)
    assert "--constraint scripts/constraints.txt" in (ROOT / "scripts/setup").read_text()


@pytest.mark.parametrize("tested", TOOLCHAIN_SETS, ids=lambda tested: tested.name)
def test_requirements_admit_every_tested_set(tested: ToolchainSet) -> None:
    """No requirement is a pin, so that a torch of the user's own can stay."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    ranges = {(item := Requirement(line)).name: item.specifier for line in listed}
    for name, version in tested.versions.items():
        assert version in ranges[name], name
        assert not any(item.operator in {"==", "==="} for item in ranges[name]), name


def test_the_installation_page_lists_the_tested_sets() -> None:
    """The page has a row for each set, with each version."""
    page = (ROOT / "docs/installation.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if "|" in line]
    header = next(row for row in rows if row[:2] == ["set", "torch"])
    for tested in TOOLCHAIN_SETS:
        assert [tested.name, *(tested.versions[name] for name in header[1:])] in rows
