"""The page of the table of families, and its part of the front page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.families.rows import Figure, Row

INTRODUCTION = """# Families of networks

Each network below went from its authors' own file or folder through one command.
`python -m benchmarks.families` did it and wrote this page; nothing here is written by hand. Every export
made ExecuTorch and ONNX files in float32 and int8: `--formats executorch,onnx --precisions fp32,int8` goes
with each command. `photos/` is the demo's; `signs/` are these with words on them, `faces/` scikit-image's
faces, `lines.npz` and `words.npz` rendered words, `texts.txt` Python's reference, `pairs/` photos with their
titles, `mels.npz` sentences of espeak-ng, and `passages/` texts that the language model knows by heart.
Where a command names none, inputs are synthetic. Trained weights come from packages; those that this program
trained for seconds know a small task (textures, a few texts by heart, photos by their titles); random ones
show that a network of this kind is built and verified, and nothing about what int8 costs a trained one. A row
is as old as its export, whose day it says; one without a day is from earlier code, and may say what is no
longer true.
"""
BEGIN, END = "<!-- begin families -->", "<!-- end families -->"
"""What the front page has around its part of the table."""
FRONT = ("minilm", "mtcnn", "yolo11n-seg", "whisper", "llama")
"""The networks on the front page."""


def markdown_of_families(rows: Sequence[Row], titles: Sequence[str] = (), earlier: str = "") -> str:
    """Return the table: a line per network, and below it every reason.

    Args:
        rows: The networks with a result.
        titles: Those of all networks, in the order of the page; without them, that of the rows.
        earlier: The page as it is: what it says of a network without a result stays.
    """
    lines = {**_lines_of_page(earlier), **{row.title: _table_line(row) for row in rows}}
    sections = {**_sections_of_page(earlier), **{row.title: _section(row) for row in rows}}
    order = [title for title in titles or [row.title for row in rows] if title in sections]
    table = [INTRODUCTION, "| network | weights | passed | did not |", "|---|---|--:|--:|"]
    table += [lines[title] for title in order]
    return "\n".join(table) + "\n" + "".join(f"\n### {title}\n{sections[title]}" for title in order)


def _lines_of_page(page: str) -> dict[str, str]:
    return {line.split(" | ")[0][2:]: line for line in page.splitlines() if line.startswith("| ")}


def _sections_of_page(page: str) -> dict[str, str]:
    """Return what the page says below each network's title."""
    _, *parts = re.split(r"^### (.*)\n", page, flags=re.MULTILINE)
    return {title: text.rstrip("\n") + "\n" for title, text in zip(parts[::2], parts[1::2], strict=True)}


def _table_line(row: Row) -> str:
    return (
        f"| {row.title} | {row.weights} ({row.source}) | {len(row.passed) or '-'} | "
        f"{len(row.others) + len(row.apart) or ('refused' if row.refusal else '-')} |"
    )


def _section(row: Row) -> str:
    lines = ["", "```text", row.command, "```", ""]
    if row.passed:
        lines.append(f"Passed: {', '.join(_with_figures(row))} ({row.seconds:.0f} s{_day(row)}).")
    if row.together:
        lines.append(f"Together: {', '.join(row.together)}.")
    by_reason: dict[str, list[str]] = {}
    for artifact, reason in [*row.others, *((f"together, {name}", why) for name, why in row.apart)]:
        by_reason.setdefault(_plain(reason), []).append(artifact)
    if by_reason:
        lines.append("")
    lines += [f"- {', '.join(artifacts)}. {reason}" for reason, artifacts in by_reason.items()]
    if row.refusal:
        lines.append(f"Refused: {_plain(row.refusal)}")
    return "\n".join(lines) + "\n"


def _with_figures(row: Row) -> list[str]:
    decibels = {figure.name: figure.sqnr_db for figure in row.figures}
    return [
        name if (sqnr_db := decibels.get(name)) is None else f"{name} {sqnr_db:.3g} dB" for name in row.passed
    ]


def _day(row: Row) -> str:
    return f", {row.date}" if row.date else ""


def _plain(text: str) -> str:
    return " ".join(text.replace("|", "/").replace("<", "&lt;").split())


def write_front_page(path: Path, rows: Sequence[Row], titles: Mapping[str, str]) -> None:
    """Replace the part of a page between `BEGIN` and `END` by the rows of `FRONT`.

    Args:
        path: The page. What it says of a network without a result stays.
        rows: The networks with a result.
        titles: Network's key -> its title.
    """
    before, _, rest = path.read_text().partition(BEGIN)
    part, _, after = rest.partition(END)
    fresh = {row.title: _front_line(row) for row in rows if row.figures}
    of_title = {re.sub(r" \([^()]*\)$", "", name): line for name, line in _lines_of_page(part).items()}
    lines = {**of_title, **fresh}
    table = ["| network | command | float32 | int8 |", "|---|---|---|---|"]
    table += [lines[titles[name]] for name in FRONT if titles[name] in lines]
    path.write_text("\n".join([before + BEGIN, *table, END + after]))


def _front_line(row: Row) -> str:
    cells = [_front_cell(row, precision) for precision in ("fp32", "int8")]
    command = row.command.partition(" --samples")[0]
    return f"| {row.title} ({row.weights}) | `{command}` | {cells[0]} | {cells[1]} |"


def _front_cell(row: Row, precision: str) -> str:
    """Say what became of a network's artifacts of one precision, one after the other for several parts."""
    figures = [figure for figure in row.figures if figure.precision == precision]
    by_status: dict[str, list[Figure]] = {}
    for figure in figures:
        by_status.setdefault(figure.status, []).append(figure)
    words = [_front_words(status, some) for status, some in by_status.items()]
    joint = [text for text in (*row.together, *(f"{n}: {why}" for n, why in row.apart)) if precision in text]
    if joint:
        words.append(f"together: {_plain(joint[0])}")
    return "; ".join(words) or "-"


def _front_words(status: str, figures: Sequence[Figure]) -> str:
    decibels = [figure.sqnr_db for figure in figures if figure.sqnr_db is not None]
    sizes = [figure.size_bytes for figure in figures if figure.size_bytes is not None]
    measures = [figure.measure for figure in figures if figure.measure]
    words = [f"{len(figures)} {status}"]
    words += [f"{min(decibels):.3g} dB or more"] if decibels else []
    words += [min(measures)] if measures else []
    words += [f"{min(sizes) / 1e6:.3g} MB"] if sizes else []
    return ", ".join(words)
