"""Print the report as a table that is readable at 80 columns and without colour."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from exporter.records import Artifact, Emulation, Report, Status
from exporter.report import accuracy_text, quantization_cost, text
from exporter.verify import sweep_decision

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

STYLES: dict[Status, str] = {
    "passed": "green",
    "failed": "red",
    "inconclusive": "yellow",
    "not_run": "yellow",
    "error": "magenta",
}
NUMBERS = ("max\nerror", "SQNR\ndB", "top-1\n%", "int8\n%", "\nMB", "host ms\np50/p90")
RIGHT = "acc.\n%"
"""Share of labelled samples whose label came first. The column exists only when there are labels."""


ARM = "arm64\n(emul.)"
"""What the artifact's outputs on emulated Arm are. The column exists only where some were emulated."""
LEFT_OUT = ("\nas", "int8\n%", "max\nerror")
"""The columns that give way in a narrow terminal, the first one first: the artifact's name, its SQNR and the
page say the same."""
UNLIMITED = 10_000
"""A width in characters that no table reaches."""


def print_terminal_report(report: Report, console: Console) -> None:
    """Print the artifacts, the choice with its reason, what did not pass and why, and the warnings."""
    _print_terminal_line(
        console, f"{report.source_file}, {report.architecture}, for {report.target_name}", "bold"
    )
    console.print(_widest_terminal_table(report, console))
    console.print()
    _terminal_choice(report, console)
    if accuracy := accuracy_text.report_accuracy_text(report):
        _print_terminal_line(console, accuracy)
    if report.calibration_sweep:
        _print_terminal_line(console, sweep_decision.sweep_decision_sentence(report.calibration_sweep))
    _print_terminal_line(console, f"{text.budget_text(report)}. Latencies are this host's, not a phone's.")
    if line := text.estimate_text(report):
        _print_terminal_line(console, line)
    if interpreted := text.executor_text(report.artifacts):
        _print_terminal_line(console, interpreted)
    if hint := quantization_cost.quantization_cost_hint(report):
        _print_terminal_line(console, hint)
    _print_terminal_reasons(report, console)
    for warning in report.warnings:
        _print_terminal_line(console, f"Warning: {warning}", "yellow")


def _widest_terminal_table(report: Report, console: Console) -> Table:
    """Return the table with as many of its columns as the terminal has room for on one line each."""
    from rich.measure import Measurement

    options = console.options.update(width=UNLIMITED)
    for count in range(len(LEFT_OUT)):
        table = _terminal_table(report, LEFT_OUT[:count])
        if Measurement.get(console, options, table).maximum <= console.width:
            return table
    return _terminal_table(report, LEFT_OUT)


def _terminal_table(report: Report, left_out: Sequence[str]) -> Table:
    from rich.table import Table

    # One space between columns: two would not fit nine of them into 80.
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    on_arm = any(artifact.arm64 for artifact in report.artifacts)
    words = ("\nartifact", "\nas", "\nstatus")
    names = (*words, *NUMBERS, *_terminal_labelled_column(report), *((ARM,) if on_arm else ()))
    shown = [name not in left_out for name in names]
    for name in itertools.compress(names, shown):
        number = name not in words
        fold = name == "\nartifact"
        table.add_column(
            name,
            justify="right" if number else "left",
            overflow="fold" if fold else "ellipsis",
            no_wrap=name == "\nstatus",
        )
    for artifact in report.artifacts:
        chosen = artifact.variant.name == report.selected
        cells = (
            *_terminal_cells(artifact),
            *((_terminal_right_aligned(artifact),) if _terminal_labelled_column(report) else ()),
            *((terminal_on_arm(artifact.arm64),) if on_arm else ()),
        )
        table.add_row(*itertools.compress(cells, shown), style="bold" if chosen else None)
    return table


def terminal_on_arm(result: Emulation | None) -> Text:
    """Return the status on emulated Arm as a cell."""
    from rich.text import Text

    return Text(text.STATUS_WORDS[result.status], STYLES[result.status]) if result else Text(text.NONE)


def _terminal_labelled_column(report: Report) -> tuple[str, ...]:
    """Return the name of the column for labelled samples: a share, or the task's deciding measure."""
    if report.task_evaluation:
        name = report.task_evaluation.reference.scores[0].name
        return ("\n" + name if "@" not in name else name.replace("@", "\n@", 1),)
    return (RIGHT,) if report.evaluation else ()


def _terminal_right_aligned(artifact: Artifact) -> Text:
    from rich.text import Text

    if artifact.task_accuracy:
        return Text(text.sig3_text(artifact.task_accuracy.scores[0].value))
    measured = artifact.accuracy
    return Text(text.NONE if measured is None else f"{100 * measured.right / measured.count:.1f}")


def _terminal_cells(artifact: Artifact) -> tuple[Text, ...]:
    from rich.text import Text

    comparison = artifact.verdict.comparison if artifact.verdict else None
    latency, size = artifact.latency, artifact.size_bytes
    share = text.quantized_share_text(artifact)
    return (
        plain_terminal_text(artifact.variant.name),
        Text(artifact.variant.precision),
        Text(text.status_text(artifact.status, artifact.executor, short=True), STYLES[artifact.status]),
        Text(text.sig3_text(comparison.max_error if comparison else None)),
        Text(text.sig3_text(comparison.sqnr_db if comparison else None)),
        Text(_terminal_hundredths(comparison.agreement if comparison else None)),
        Text(_terminal_hundredths(share)),
        Text(text.sig3_text(None if size is None else size / 1e6)),
        Text(f"{text.sig3_text(latency.p50_ms)}/{text.sig3_text(latency.p90_ms)}" if latency else text.NONE),
    )


def _terminal_hundredths(share: float | None) -> str:
    return text.sig3_text(None if share is None else 100 * share)


def _terminal_choice(report: Report, console: Console) -> None:
    chosen = text.choice_text(report)
    if chosen is None:
        _print_terminal_line(console, f"Nothing to ship. {report.selection_reason}", "bold red")
    else:
        _print_terminal_line(console, f"Ship {chosen.file}. {report.selection_reason}", "bold")
        worst = chosen.verdict and text.worst_channel_text(chosen.verdict.worst_channel)
        if worst:
            _print_terminal_line(console, f"Its worst channel is {worst}.")
        over_scenes = text.over_scenes_text(chosen.verdict.comparison) if chosen.verdict else ""
        if over_scenes and chosen.variant.precision != "fp32":
            _print_terminal_line(console, f"Its {over_scenes}.")
        if chosen.verdict and chosen.verdict.task:
            _print_terminal_line(console, f"Its task: {text.task_text(chosen.verdict.task)}.")


def _print_terminal_reasons(report: Report, console: Console) -> None:
    """Print every artifact that did not pass, with its reason, indented below one heading."""
    from rich.padding import Padding

    others = [a for a in report.artifacts if a.status != "passed"]
    if others:
        _print_terminal_line(console, "\nNot passed:")
    for artifact in others:
        line = plain_terminal_text(f"{artifact.variant.name}: ", STYLES[artifact.status])
        line.append_text(plain_terminal_text(text.reason_text(artifact)))
        console.print(Padding(line, (0, 0, 0, 2), expand=False))


def _print_terminal_line(console: Console, words: str, style: str = "") -> None:
    console.print(plain_terminal_text(words, style))


def folded_terminal_table(*headings: str) -> Table:
    """Return an empty table whose cells wrap."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def plain_terminal_text(words: str, style: str = "") -> Text:
    """Return literal text: no markup ("[1, 3]" stays), no control characters (names may hold escapes)."""
    from rich.text import Text

    return Text(
        "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in words), style
    )
