"""Tests of the help pages: paragraphs wrap, names of options are whole, defaults of 0 are explained."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import exporter.cli  # noqa: F401 - registers the commands
from exporter.cli.app import app, app_help_paragraphs
from exporter.cli.help_page import SECTIONS, WIDEST


def commands(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (names, command) of every command below a group."""
    for name, child in getattr(node, "commands", {}).items():
        yield (*path, name), child
        yield from commands(child, (*path, name))


COMMANDS = dict(commands(get_command(app)))
LEAVES = [names for names, command in COMMANDS.items() if not hasattr(command, "commands")]


def help_page(names: tuple[str, ...], width: int) -> str:
    """Return a command's help page at this width of the terminal."""
    result = CliRunner().invoke(app, [*names, "--help"], env={"COLUMNS": str(width)})
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("width", [80, 100, 133])
@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_paragraphs_fill_their_lines(names: tuple[str, ...], width: int) -> None:
    """The first word of each line of a paragraph does not fit on the line before it."""
    prose = help_page(names, width).partition("Usage:")[2].partition("\n")[2]
    prose = re.split(r"╭|^[A-Z][a-z ]+:$", prose, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line.strip() for line in prose.splitlines()]
    assert any(lines)
    room = min(width, WIDEST) - 4  # the text is indented, and padded on the right
    broken = [(a, b) for a, b in pairwise(lines) if a and b and len(f"{a} {b.split()[0]}") <= room]
    assert not broken


@pytest.mark.parametrize("names", LEAVES, ids=" ".join)
def test_names_of_options_are_whole(names: tuple[str, ...]) -> None:
    """In 80 columns each command shows every option by its whole name, and no line is wider."""
    page = help_page(names, 80)
    assert max(map(len, page.splitlines())) <= 80
    words = page.replace(",", " ").split()
    for option in COMMANDS[names].params:
        if option.param_type_name == "option" and not option.hidden:
            assert set(option.opts) <= set(words)


def test_every_option_of_export_has_a_section() -> None:
    """Only what concerns the run itself is left to the further options, and no option is in two sections."""
    names = {option.name for option in COMMANDS["export",].params if option.param_type_name == "option"}
    listed = [name for section in SECTIONS.values() for name in section]
    assert len(listed) == len(set(listed))
    assert set(listed) <= names
    run = {"no_cache", "jobs", "memory", "as_json", "debug", "help", "calibration_curve"}
    assert names - set(listed) <= run


def test_few_options_are_one_list() -> None:
    """A command with a dozen options has no sections."""
    page = help_page(("inspect",), 80)
    assert "\nOptions:" in page
    assert "Network:" not in page


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_a_default_of_zero_is_explained(names: tuple[str, ...]) -> None:
    """The help of an option whose default is 0 says what 0 does."""
    numbers = [p for p in COMMANDS[names].params if type(p.default) in {int, float} and p.default == 0]
    assert [p.name for p in numbers if "0 " not in p.help] == []


def test_paragraphs_stay_apart() -> None:
    """Only the line breaks within a paragraph go."""
    assert app_help_paragraphs("one\ntwo\n\nthree") == "one two\n\nthree"
