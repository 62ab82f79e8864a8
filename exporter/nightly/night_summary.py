"""Summarise a night as a headline, as a paragraph, and as Markdown for CI systems."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.nightly.records import WORDS, WORST_FIRST, NightResult, NightRow, State

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


def night_summary_headline(result: NightResult) -> str:
    """Return the worst state and its count: "Slower or worse: 2"."""
    count = result.count(result.state)
    words = HEADLINES[result.state]
    return words if result.state in {"fine", "no_phone", "not_measured"} else f"{words}: {count}"


def night_summary_lead(result: NightResult) -> str:
    """Say in one paragraph what was measured and what needs attention."""
    measured = [row for row in result.rows if row.key]
    models, devices = {row.model for row in measured}, {row.serial for row in measured}
    first = (
        f"{_night_summary_count(len(measured), 'artifact')} of "
        f"{_night_summary_count(len(models), 'model')} measured on "
        f"{_night_summary_count(len(devices), 'device')}"
        if measured
        else "Nothing was measured"
    )
    counts = [f"{result.count(state)} {WORDS[state]}" for state in WORST_FIRST if result.count(state)]
    sentences = [
        _night_summary_rows(result, state) for state in ("regression", "over_budget", "failed", "no_phone")
    ]
    return " ".join(
        part for part in (f"{first}: {', '.join(counts) or 'nothing to say'}.", *sentences) if part
    )


def _night_summary_rows(result: NightResult, state: State) -> str:
    rows = [row for row in result.rows if row.state == state]
    if not rows:
        return ""
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return f"{WORDS[state].capitalize()}: {', '.join(map(night_summary_row_name, rows[:NAMED]))}{more}."


def night_summary_row_name(row: NightRow) -> str:
    """Name a row in a few words: "onnx-fp32 of mobilenet_v2 for snapdragon865 on R5CR"."""
    parts = (
        row.artifact or ("" if row.serial or not row.model else "the export"),
        f"{'of ' if row.artifact or not row.serial else ''}{row.model}" if row.model else "",
        f"for {row.target}" if row.target else "",
        f"{'on ' if row.model else ''}{row.serial}" if row.serial else "",
    )
    return " ".join(part for part in parts if part)


def _night_summary_count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def markdown_night_summary(result: NightResult) -> str:
    """Return one paragraph of Markdown. Names and messages are escaped, as they come from outside."""
    where = f"night {result.night}, exit {result.exit_code}"
    headline, lead = map(
        _plain_night_summary_text, (night_summary_headline(result), night_summary_lead(result))
    )
    return f"**{headline}** ({where}). {lead}\n"


def _plain_night_summary_text(words: str) -> str:
    return " ".join(words.translate(ESCAPED).split())


def worst_first_for_night_summary(rows: Sequence[NightRow]) -> list[NightRow]:
    """Sort rows by state, the worst first."""
    return sorted(rows, key=lambda row: (WORST_FIRST.index(row.state), row.cell))
