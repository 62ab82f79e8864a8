"""What `release` and `diff` say in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.report import text
from exporter.report.terminal import plain

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


def print_release(made: Release, console: Console) -> None:
    """What lies in DIR, what it is not, and whether it was signed and built twice."""
    console.print(plain(f"{made.title} in {made.directory}", "bold"))
    for name, digest in made.files.items():
        if not name.endswith((".md5", ".sha1", ".sha256", ".sha512")):
            console.print(plain(f"  {digest[:12]}…  {name}"), soft_wrap=True)
    for sentence in (*made.not_measured, *made.not_verified):
        console.print(plain(sentence, "yellow"))
    for sentence in made.remarks:
        console.print(plain(sentence))
    console.print(plain("Signed." if made.signed else "Not signed: give --key to sign it."))
    if made.checked:
        console.print(plain("Built twice, in another process with another clock: the same bytes.", "green"))


def print_diff(found: Diff, console: Console) -> None:
    """What the two are, then artifact by artifact; what is the same on both sides is left out."""
    console.print(plain(f"A  {found.before}\nB  {found.after}"))
    _table("", [line for line in found.facts if line.word != "same"], console)
    for artifact in found.artifacts:
        _artifact(artifact, console)
    if not any(line.word != "same" for line in found.facts) and all(
        a.word == "same" for a in found.artifacts
    ):
        console.print(plain("No difference in model, tools and artifacts."))


def _artifact(artifact: ArtifactDiff, console: Console) -> None:
    shown = [line for line in artifact.lines if line.word != "same"]
    word = {"same": "the same file", "changed": "another file"}.get(artifact.word, artifact.word)
    console.print()
    console.print(plain(f"{artifact.name}: {word}", "bold"))
    _table(artifact.name, shown, console)
    counts = [f"{name} {a} → {b}" for name, (a, b) in artifact.operators.items()]
    if counts:
        more = f", and {len(counts) - OPERATORS_SHOWN} more" if len(counts) > OPERATORS_SHOWN else ""
        console.print(plain(f"  operators: {', '.join(counts[:OPERATORS_SHOWN])}{more}"))


def _table(name: str, lines: list[Line], console: Console) -> None:
    from rich.table import Table

    if not lines:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading in ("", "A", "B", ""):
        table.add_column(heading, overflow="fold")
    for line in lines:
        table.add_row(
            plain(f"  {line.what}"),
            plain(_shown(line.what, line.before)),
            plain(_shown(line.what, line.after)),
            plain(_change(line), STYLES[line.word]),
        )
    console.print(table)


def _shown(what: str, value: float | str | None) -> str:
    if value is None:
        return text.NONE
    if isinstance(value, str):
        return f"{value[:12]}…" if what == "checkpoint" else value
    if what == "size_bytes":
        return text.scaled(value, "B")
    if what.endswith(("_agreement", "_fraction", "_top1")):
        return text.percent(value)
    return f"{value:,}" if isinstance(value, int) else text.sig3(value)


def _change(line: Line) -> str:
    """The word, and for figures by how much: worse, +12 %."""
    before, after = line.before, line.after
    if isinstance(before, str) or isinstance(after, str) or not before or after is None:
        return line.word
    return f"{line.word}, {100 * (after / before - 1):+.3g} %"
