"""Print whether artifacts load in an app."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.android.elf import PAGE_BYTES
from exporter.report.terminal import folded_terminal_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from exporter.android.records import Check, Library

WORDS = {"yes": ("yes", "green"), "no": ("no", "red"), "unknown": ("not certain", "yellow")}


def print_for_app(check: Check, console: Console) -> None:
    """Print a line per artifact, a line per given library, what is wrong, and what files cannot tell."""
    from rich.text import Text

    console.print(_print_for_app_answers(check))
    if any(container.libraries for container in check.containers):
        console.print()
        console.print(_print_for_app_libraries(check))
    for problem in check.problems:
        console.print(Text(problem, "red"))
    console.print(Text(f"Not known from files: {'; '.join(check.unknown)}.", "dim"))
    verdict = "Everything loads." if check.holds else "Not everything loads."
    console.print(Text(verdict, "bold green" if check.holds else "bold red"))


def _print_for_app_answers(check: Check) -> Table:
    from rich.text import Text

    stock = not check.containers
    table = folded_terminal_table("artifact", "in", "loads", *(["since"] if stock else []), "")
    for answer in check.answers:
        word, style = WORDS[answer.loads]
        reasons = "; ".join((*answer.problems, *answer.unknown))
        since = [Text(answer.since or "-")] if stock else []
        table.add_row(Text(answer.artifact), Text(answer.place), Text(word, style), *since, Text(reasons))
    return table


def _print_for_app_libraries(check: Check) -> Table:
    from rich.text import Text

    table = folded_terminal_table("library", "ABI", "pages", "API", "NDK", "runtime")
    for library in (item for container in check.containers for item in container.libraries):
        pages = f"{library.page_bytes // 1024} KB" if library.page_bytes else "?"
        table.add_row(
            Text(library.name),
            Text(library.abi or "?"),
            Text(pages, "" if library.page_bytes >= PAGE_BYTES else "red"),
            Text(str(library.min_sdk or "?")),
            Text(library.ndk or "?"),
            Text(_for_app_runtime(library)),
        )
    return table


def _for_app_runtime(library: Library) -> str:
    names = ["ExecuTorch"] if library.executorch else []
    names += [f"ONNX Runtime {library.version}".strip()] if library.onnx_runtime else []
    return ", ".join(names)
