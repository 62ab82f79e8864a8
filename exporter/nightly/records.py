"""The records of a night. They are frozen; each follows from the ones before it.

Config -> Night -> Exported -> `measuring.Measurements`, which is filled as devices end -> Row -> Result
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
"""Exit code of `export-mobile nightly` by the state of the worst row; 46 is `NightRunningError`."""
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
    """One run over everything; it may take several starts."""

    id: str
    """The time of its start: "2026-01-31T02-00-00Z"."""
    folder: Path
    resumed: bool
    """Whether it was interrupted and this start continues it."""
    abandoned: tuple[str, ...] = ()
    """Earlier nights that were interrupted and will not be resumed."""
    host: str = ""
    """The name of the machine when the night began: its keys stay the same under another name."""


@dataclass(frozen=True, eq=False)
class Exported:
    """The export of one model for one target, or why there is none."""

    model: str
    target: str
    folder: Path | None
    report: Report | None
    problem: str = ""
    """Why there is no export; empty when there is one."""
    require: tuple[str, ...] = ()


Cell: TypeAlias = "tuple[str, str, str, str]"
"""(model, target, artifact, serial): one artifact to measure on one device."""


@dataclass(frozen=True)
class NightRow:
    """One line of the night's report: a cell, its state and the reason.

    `artifact` is empty for a whole export, `serial` for a statement that concerns no device.
    """

    model: str
    target: str
    artifact: str
    serial: str
    state: State
    words: str
    """One or two sentences that give the reason for the state."""
    key: str = ""
    """The key of the session in the history; empty where there is none."""

    @property
    def cell(self) -> Cell:
        return self.model, self.target, self.artifact, self.serial


@dataclass(frozen=True)
class Change:
    """A difference from the night before, as a sentence."""

    model: str
    target: str
    artifact: str
    words: str
    worse: bool


@dataclass(frozen=True)
class NightResult:
    """The result of a night, as the page, JUnit, the summary and `--json` show it."""

    night: str
    host: str
    started_at: str
    ended_at: str
    before: str
    """The night that this one is compared with; empty for the first."""
    rows: tuple[NightRow, ...]
    changes: tuple[Change, ...]
    tools: Mapping[str, str]
    config: str
    """The path of `nightly.toml`."""
    notes: tuple[str, ...] = ()

    @property
    def state(self) -> State:
        """Return the worst state of all rows; `not_measured` without rows."""
        states = {row.state for row in self.rows} - {"skipped"}
        return next((state for state in WORST_FIRST if state in states), "not_measured")

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.state]

    def count(self, state: State) -> int:
        return sum(row.state == state for row in self.rows)


def night_records_as_json(result: NightResult) -> dict[str, Any]:
    """Return the value that `night.json` and `--json` hold."""
    from dataclasses import asdict

    return {
        "schema_version": 1,
        **asdict(result),
        "tools": dict(result.tools),
        "state": result.state,
        "exit_code": result.exit_code,
    }
