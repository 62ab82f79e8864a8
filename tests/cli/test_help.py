"""Tests of the help pages: their paragraphs wrap, and defaults of 0 are explained."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import exporter.cli  # noqa: F401 - registers the commands
from exporter.cli.app import app, app_help_paragraphs


def commands(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (names, command) of every command below a group."""
    for name, child in getattr(node, "commands", {}).items():
        yield (*path, name), child
        yield from commands(child, (*path, name))


COMMANDS = dict(commands(get_command(app)))


@pytest.mark.parametrize("width", [80, 100, 133])
@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_paragraphs_fill_their_lines(names: tuple[str, ...], width: int) -> None:
    """The first word of each line of a paragraph does not fit on the line before it."""
    result = CliRunner().invoke(app, [*names, "--help"], env={"COLUMNS": str(width)})
    assert result.exit_code == 0
    prose = result.output.partition("Usage:")[2].partition("\n")[2].partition("╭")[0]
    lines = [line.strip() for line in prose.splitlines()]
    assert any(lines)
    room = width - 3  # Typer indents the text, and pads it on the right
    broken = [(a, b) for a, b in pairwise(lines) if a and b and len(f"{a} {b.split()[0]}") <= room - 1]
    assert not broken


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_a_default_of_zero_is_explained(names: tuple[str, ...]) -> None:
    """The help of an option whose default is 0 says what 0 does."""
    numbers = [p for p in COMMANDS[names].params if type(p.default) in {int, float} and p.default == 0]
    assert [p.name for p in numbers if "0 " not in p.help] == []


def test_paragraphs_stay_apart() -> None:
    """Only the line breaks within a paragraph go."""
    assert app_help_paragraphs("one\ntwo\n\nthree") == "one two\n\nthree"
