"""Print a night: problems first, then everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.nightly import night_summary
from exporter.nightly.records import WORDS, NightResult, NightRow, State
from exporter.report.terminal import plain_terminal_text

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


def print_nightly(result: NightResult, console: Console) -> None:
    """Print one line per row with its reason below, then the changes and the summary."""
    from rich.padding import Padding

    for row in night_summary.worst_first_for_night_summary(result.rows):
        line = plain_terminal_text(f"{WORDS[row.state]:<12} ", STYLES[row.state])
        line.append_text(plain_terminal_text(night_summary.night_summary_row_name(row)))
        console.print(line)
        console.print(
            Padding(plain_terminal_text(row.words, "dim" if row.state in QUIET else ""), (0, 0, 0, 13))
        )
    for change in result.changes:
        where = night_summary.night_summary_row_name(
            NightRow(change.model, change.target, change.artifact, "", "fine", "")
        )
        console.print(plain_terminal_text(f"Changed: {where}: {change.words}", "red" if change.worse else ""))
    console.print(
        plain_terminal_text(
            f"{night_summary.night_summary_headline(result)}. {night_summary.night_summary_lead(result)}",
            "bold",
        )
    )
