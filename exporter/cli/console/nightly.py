"""Print a night: problems first, then everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.nightly import summary
from exporter.nightly.records import WORDS, Result, Row, State
from exporter.report.terminal import plain

if TYPE_CHECKING:
    from rich.console import Console

STYLES: dict[State, str] = {
    "regression": "bold red",
    "over_budget": "bold red",
    "failed": "bold magenta",
    "no_phone": "bold yellow",
    "inconclusive": "yellow",
    "not_measured": "yellow",
    "fine": "green",
    "skipped": "dim",
}
QUIET: frozenset[State] = frozenset({"fine", "skipped"})


def show(result: Result, console: Console) -> None:
    """Print one line per row with its reason below, then the changes and the summary."""
    from rich.padding import Padding

    for row in summary.worst(result.rows):
        line = plain(f"{WORDS[row.state]:<12} ", STYLES[row.state])
        line.append_text(plain(summary.name(row)))
        console.print(line)
        console.print(Padding(plain(row.words, "dim" if row.state in QUIET else ""), (0, 0, 0, 13)))
    for change in result.changes:
        where = summary.name(Row(change.model, change.target, change.artifact, "", "fine", ""))
        console.print(plain(f"Changed: {where}: {change.words}", "red" if change.worse else ""))
    console.print(plain(f"{summary.headline(result)}. {summary.lead(result)}", "bold"))
