"""Tests of what starts a night by itself: the script, systemd's units, and the workflow."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from exporter.nightly.records import EXIT_CODES, State

ROOT = Path(__file__).parents[2]
UNITS = ("export-mobile-nightly.service", "export-mobile-nightly.timer")
WORKFLOW = (ROOT / ".github" / "workflows" / "nightly.yml").read_text()


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_the_units(unit: str, tmp_path: Path) -> None:
    """Given the checkout at their path, systemd finds no misspelt key or time."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze on this machine")
    (tmp_path / "export-mobile").symlink_to(ROOT)
    text = (ROOT / "scripts" / unit).read_text().replace("%h", str(tmp_path))
    for other in UNITS:
        (tmp_path / other).write_text((ROOT / "scripts" / other).read_text())
    (tmp_path / unit).write_text(text)
    done = subprocess.run(
        [analyze, "verify", "--user", "--man=no", str(tmp_path / unit)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_night_that_found_something_is_no_failed_service() -> None:
    """The service fails only if something failed or no phone was connected."""
    match = re.search(r"^SuccessExitStatus=(.+)$", (ROOT / "scripts" / UNITS[0]).read_text(), re.MULTILINE)
    assert match
    codes = {int(code) for code in match[1].split()}
    states: tuple[State, ...] = ("regression", "over_budget", "inconclusive", "not_measured")
    assert codes == {EXIT_CODES[state] for state in states}


def test_the_workflow_starts_what_there_is() -> None:
    """The workflow is valid YAML for a runner with phones, with read access only."""
    yaml = pytest.importorskip("yaml")
    workflow = yaml.safe_load(WORKFLOW)
    (job,) = workflow["jobs"].values()
    assert job["runs-on"] == ["self-hosted", "phones"]
    assert workflow["permissions"] == {"contents": "read"}
    for script in re.findall(r"scripts/[\w.-]+", WORKFLOW):
        assert (ROOT / script).is_file(), script
    assert os.access(ROOT / "scripts" / "nightly", os.X_OK)


def test_nothing_from_outside_gets_into_the_workflows_shell() -> None:
    """An input in `run:` would be a command; in `env:` it is a word."""
    runs = re.findall(r"run: (.+)", WORKFLOW)
    assert runs
    assert not any("${{" in line for line in runs)
