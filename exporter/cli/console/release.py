"""Print the results of `release` and `diff`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.report import text
from exporter.report.terminal import folded_terminal_table, plain_terminal_text

if TYPE_CHECKING:
    from rich.console import Console

    from exporter.release.bundle import Release
    from exporter.release.diff import ArtifactDiff, Diff, Line

STYLES = {
    "better": "green",
    "worse": "red",
    "same": "dim",
    "changed": "yellow",
    "new": "cyan",
    "gone": "magenta",
}
OPERATORS_SHOWN = 12


def print_release(published: Release, console: Console) -> None:
    """Print the files in DIR, what is not measured or verified, and whether it was signed and built twice."""
    console.print(plain_terminal_text(f"{published.title} in {published.directory}", "bold"))
    for name, digest in published.files.items():
        if not name.endswith((".md5", ".sha1", ".sha256", ".sha512")):
            console.print(plain_terminal_text(f"  {digest[:12]}…  {name}"), soft_wrap=True)
    for sentence in (*published.overridden, *published.not_measured, *published.not_verified):
        console.print(plain_terminal_text(sentence, "yellow"))
    for sentence in published.remarks:
        console.print(plain_terminal_text(sentence))
    console.print(
        plain_terminal_text("Signed." if published.signed else "Not signed: give --key to sign it.")
    )
    if published.checked:
        console.print(
            plain_terminal_text(
                "Built again in another process with another clock: the bytes are identical.", "green"
            )
        )


def print_release_diff(difference: Diff, console: Console) -> None:
    """Print the two names, then the differences, artifact by artifact."""
    console.print(plain_terminal_text(f"A  {difference.before}\nB  {difference.after}"))
    _release_diff_table("", [line for line in difference.facts if line.word != "same"], console)
    for artifact in difference.artifacts:
        _print_release_diff_of_artifact(artifact, console)
    if not any(line.word != "same" for line in difference.facts) and all(
        a.word == "same" for a in difference.artifacts
    ):
        console.print(plain_terminal_text("No difference in model, tools and artifacts."))


def _print_release_diff_of_artifact(artifact: ArtifactDiff, console: Console) -> None:
    shown = [line for line in artifact.lines if line.word != "same"]
    word = {"same": "the same file", "changed": "another file"}.get(artifact.word, artifact.word)
    console.print()
    console.print(plain_terminal_text(f"{artifact.name}: {word}", "bold"))
    _release_diff_table(artifact.name, shown, console)
    counts = [f"{name} {a} → {b}" for name, (a, b) in artifact.operators.items()]
    if counts:
        more = f", and {len(counts) - OPERATORS_SHOWN} more" if len(counts) > OPERATORS_SHOWN else ""
        console.print(plain_terminal_text(f"  operators: {', '.join(counts[:OPERATORS_SHOWN])}{more}"))


def _release_diff_table(name: str, lines: list[Line], console: Console) -> None:
    if not lines:
        return
    table = folded_terminal_table("", "A", "B", "")
    for line in lines:
        table.add_row(
            plain_terminal_text(f"  {line.what}"),
            plain_terminal_text(_release_figure_cell(line.what, line.before)),
            plain_terminal_text(_release_figure_cell(line.what, line.after)),
            plain_terminal_text(_release_change_cell(line), STYLES[line.word]),
        )
    console.print(table)


def _release_figure_cell(figure: str, value: float | str | None) -> str:
    if value is None:
        return text.NONE
    if isinstance(value, str):
        return f"{value[:12]}…" if figure == "checkpoint" else value
    if figure == "size_bytes":
        return text.scaled_text(value, "B")
    if figure.endswith(("_agreement", "_fraction", "_top1")):
        return text.percent_text(value)
    return f"{value:,}" if isinstance(value, int) else text.sig3_text(value)


def _release_change_cell(line: Line) -> str:
    """Return the word and, for a figure, by how much it changed: worse, +12 %."""
    before, after = line.before, line.after
    if isinstance(before, str) or isinstance(after, str) or not before or after is None:
        return line.word
    return f"{line.word}, {100 * (after / before - 1):+.3g} %"
