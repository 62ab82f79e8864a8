"""The files that GitHub and pre-commit read are well-formed and call programs that exist."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
YAML = [*sorted((ROOT / ".github").rglob("*.yml")), ROOT / ".pre-commit-config.yaml"]

TOP_LEVEL = {
    "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md", "STYLE.md", "android_harness",
    "benchmarks", "docs", "exporter", "mkdocs.yml", "models", "pyproject.toml", "scripts", "tests",
}  # fmt: skip


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def steps(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in read(workflow)["jobs"].values() for step in job["steps"]]


def test_nothing_else_lies_at_the_top() -> None:
    """The layout is fixed; what a program wrote there is not committed by mistake."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_every_file_is_yaml(path: Path) -> None:
    """A file that is not would be ignored without a word."""
    assert isinstance(read(path), dict)


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda p: p.name)
def test_every_script_that_a_workflow_runs_exists(path: Path) -> None:
    """A renamed script fails here, not on GitHub."""
    commands = " ".join(str(step.get("run", "")) for step in steps(path))
    scripts = re.findall(r"(?:scripts/|\.ci/)[\w-]+", commands)
    assert scripts
    assert not [name for name in scripts if not (ROOT / name).is_file()]


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda p: p.name)
def test_a_workflow_may_only_read(path: Path) -> None:
    """A workflow that a pull request changes gets no right to write."""
    assert read(path)["permissions"] == {"contents": "read"}
    checkouts = [step for step in steps(path) if str(step.get("uses", "")).startswith("actions/checkout")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_the_test_workflow_runs_what_ci_runs_and_builds_the_site() -> None:
    """CI on GitHub and elsewhere is one script."""
    commands = "\n".join(
        str(step.get("run", "")) for step in steps(ROOT / ".github" / "workflows" / "test.yml")
    )
    assert ".ci/run" in commands
    assert "mkdocs build --strict" in commands


def test_dependabot_leaves_the_pinned_frameworks_alone() -> None:
    """The suite runs on exactly the versions of the tested set."""
    lines = (ROOT / "scripts" / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    (pip,) = [
        u for u in read(ROOT / ".github" / "dependabot.yml")["updates"] if u["package-ecosystem"] == "pip"
    ]
    assert {entry["dependency-name"] for entry in pip["ignore"]} == pinned


def test_the_hooks_are_the_projects_own_programs() -> None:
    """Everyone who commits has the versions of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installed = {re.split(r"[^\w-]", line)[0] for line in project["optional-dependencies"]["dev"]}
    for repository in read(ROOT / ".pre-commit-config.yaml")["repos"]:
        for hook in repository["hooks"]:
            program = re.match(r"\.venv/bin/(\w+)", hook["entry"])
            assert program
            assert program[1] in installed


def test_the_changelog_has_three_kinds_of_entries() -> None:
    """A section is Added, Changed or Fixed, in this order; every bullet is in one."""
    text = (ROOT / "CHANGELOG.md").read_text()
    for section in text.split("\n## ")[1:]:
        before, *kinds = section.split("\n### ")
        assert "\n- " not in before
        assert [kind.partition("\n")[0] for kind in kinds] in (
            ["Added", "Changed", "Fixed"],
            ["Added", "Fixed"],
            ["Changed", "Fixed"],
            ["Added"],
            ["Changed"],
            ["Fixed"],
        )
