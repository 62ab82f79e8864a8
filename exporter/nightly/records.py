"""What a night finds out. Frozen; each record follows from the ones before it.

Config -> Night -> Exported -> `measuring.Found`, which is filled as devices end -> Row -> Result
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from exporter.records import Report

State = Literal[
    "fine", "regression", "over_budget", "failed", "no_phone", "inconclusive", "not_measured", "skipped"
]
WORST_FIRST: tuple[State, ...] = (
    "regression",
    "over_budget",
    "failed",
    "no_phone",
    "inconclusive",
    "not_measured",
    "fine",
    "skipped",
)
EXIT_CODES: Mapping[State, int] = {
    "fine": 0,
    "regression": 40,
    "over_budget": 41,
    "failed": 42,
    "no_phone": 43,
    "inconclusive": 44,
    "not_measured": 45,
    "skipped": 0,
}
"""Of `export-mobile nightly`, by the worst row; 46 is `NightRunningError`."""
WORDS: Mapping[State, str] = {
    "fine": "fine",
    "regression": "regression",
    "over_budget": "over budget",
    "failed": "failed",
    "no_phone": "no phone",
    "inconclusive": "inconclusive",
    "not_measured": "not measured on a phone",
    "skipped": "skipped",
}


@dataclass(frozen=True)
class Night:
    """One run over everything, which may take several starts."""

    id: str
    """When it began: "2026-01-31T02-00-00Z"."""
    folder: Path
    resumed: bool
    """It was cut off before, and goes on."""
    abandoned: tuple[str, ...] = ()
    """Earlier nights that were cut off and will not be gone on with."""


@dataclass(frozen=True, eq=False)
class Exported:
    """What came of one model for one target."""

    model: str
    target: str
    folder: Path | None
    report: Report | None
    problem: str = ""
    """Why there is nothing; empty when there is."""
    require: tuple[str, ...] = ()


Cell: TypeAlias = "tuple[str, str, str, str]"
"""(model, target, artifact, serial): one thing to measure."""


@dataclass(frozen=True)
class Row:
    """One line of the night: a cell, and what is to be said about it.

    `artifact` is empty for a whole export, `serial` for what is said without a device.
    """

    model: str
    target: str
    artifact: str
    serial: str
    state: State
    words: str
    """One or two sentences: what was seen, and why it has its state."""
    key: str = ""
    """Of the session in the history; empty where there is none."""

    @property
    def cell(self) -> Cell:
        return self.model, self.target, self.artifact, self.serial


@dataclass(frozen=True)
class Change:
    """Something that is not as it was the night before, as a sentence."""

    model: str
    target: str
    artifact: str
    words: str
    worse: bool


@dataclass(frozen=True)
class Result:
    """All of a night: what the page, JUnit, the summary and `--json` show."""

    night: str
    host: str
    started_at: str
    ended_at: str
    before: str
    """The night that it is compared with; empty for the first."""
    rows: tuple[Row, ...]
    changes: tuple[Change, ...]
    tools: Mapping[str, str]
    config: str
    """Path of `nightly.toml`."""
    notes: tuple[str, ...] = ()

    @property
    def state(self) -> State:
        """The worst of all rows; a night with nothing to say at all measured nothing."""
        states = {row.state for row in self.rows} - {"skipped"}
        return next((state for state in WORST_FIRST if state in states), "not_measured")

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.state]

    def count(self, state: State) -> int:
        return sum(row.state == state for row in self.rows)


def as_json(result: Result) -> dict[str, Any]:
    """For `night.json` and `--json`."""
    from dataclasses import asdict

    return {
        "schema_version": 1,
        **asdict(result),
        "tools": dict(result.tools),
        "state": result.state,
        "exit_code": result.exit_code,
    }
