"""Progress names every stage that a run can be in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import exporter
from exporter.cli.console import progress
from exporter.pipeline.context import Event

SOURCES = "\n".join(path.read_text() for path in sorted(Path(str(exporter.__file__)).parent.rglob("*.py")))
ANNOUNCED = set(re.findall(r"\b(?:clock|Event)\(\s*\"(\w+)\"", SOURCES))
"""The stages that the code announces to an observer."""


def test_every_stage_has_a_name_and_every_name_a_stage() -> None:
    """A stage renamed in one place only would end the run."""
    assert set(progress.STAGES) == ANNOUNCED


@pytest.mark.parametrize("stage", sorted(ANNOUNCED))
def test_a_stage_is_printed_by_its_name(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Not on a terminal, progress is a plain line per step."""
    with progress.progress_watcher(quiet=False) as observer:
        observer(Event(stage, "", 0, 0))
    assert progress.STAGES[stage] in capsys.readouterr().err
