"""Summarise a night as a headline, as a paragraph, and as Markdown for CI systems."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.nightly.records import WORDS, WORST_FIRST, Result, Row, State

NAMED = 3
"""How many rows a paragraph names; the rest are counted."""
ESCAPED = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>#|!"})
HEADLINES: dict[State, str] = {
    "regression": "Slower or worse",
    "over_budget": "Over budget",
    "failed": "Something failed",
    "no_phone": "No phone",
    "inconclusive": "Inconclusive",
    "not_measured": "Not measured on a phone",
    "fine": "All fine",
}


def headline(result: Result) -> str:
    """Return the worst state and its count: "Slower or worse: 2"."""
    count = result.count(result.state)
    words = HEADLINES[result.state]
    return words if result.state in {"fine", "no_phone", "not_measured"} else f"{words}: {count}"


def lead(result: Result) -> str:
    """Say in one paragraph what was measured and what needs attention."""
    measured = [row for row in result.rows if row.key]
    models, devices = {row.model for row in measured}, {row.serial for row in measured}
    first = (
        f"{_counted(len(measured), 'artifact')} of {_counted(len(models), 'model')} measured on "
        f"{_counted(len(devices), 'device')}"
        if measured
        else "Nothing was measured"
    )
    counts = [f"{result.count(state)} {WORDS[state]}" for state in WORST_FIRST if result.count(state)]
    sentences = [_rows_in(result, state) for state in ("regression", "over_budget", "failed", "no_phone")]
    return " ".join(
        part for part in (f"{first}: {', '.join(counts) or 'nothing to say'}.", *sentences) if part
    )


def _rows_in(result: Result, state: State) -> str:
    rows = [row for row in result.rows if row.state == state]
    if not rows:
        return ""
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return f"{WORDS[state].capitalize()}: {', '.join(map(name, rows[:NAMED]))}{more}."


def name(row: Row) -> str:
    """Name a row in a few words: "onnx-fp32 of mobilenet_v2 for snapdragon865 on R5CR"."""
    parts = (
        row.artifact or ("" if row.serial or not row.model else "the export"),
        f"{'of ' if row.artifact or not row.serial else ''}{row.model}" if row.model else "",
        f"for {row.target}" if row.target else "",
        f"{'on ' if row.model else ''}{row.serial}" if row.serial else "",
    )
    return " ".join(part for part in parts if part)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def markdown(result: Result) -> str:
    """Return one paragraph of Markdown. Names and messages are escaped, as they come from outside."""
    where = f"night {result.night}, exit {result.exit_code}"
    return f"**{_plain(headline(result))}** ({where}). {_plain(lead(result))}\n"


def _plain(words: str) -> str:
    return " ".join(words.translate(ESCAPED).split())


def worst(rows: Sequence[Row]) -> list[Row]:
    """Sort rows by state, the worst first."""
    return sorted(rows, key=lambda row: (WORST_FIRST.index(row.state), row.cell))
