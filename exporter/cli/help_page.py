"""Lays out help pages: an option's whole name and its value, and beside or below them what it means.

Typer's own panels have a column for each of these: at 80 characters they cut long names and leave 18
characters for the text.
"""

from __future__ import annotations

import shutil
from typing import Any

from typer.core import TyperCommand

SECTIONS: dict[str, tuple[str, ...]] = {
    "Result": ("target", "out", "formats", "precisions", "require", "force"),
    "Network": (
        "arch", "arch_arg", "part", "base", "expect", "ignore_key", "weights_from_arch", "trust",
        "torchscript", "state",
    ),
    "Inputs": (
        "input_shape", "input_value", "dynamic", "preprocess", "mean", "std", "embed_preprocessing", "pixels",
        "photo_sizes", "image_input",
    ),
    "Calibration and mixed precision": (
        "calibration", "samples", "calibration_sweep", "search", "min_sqnr", "time_limit",
    ),
    "Verification": (
        "evaluation", "max_drop", "task", "limits", "allow_inconclusive", "allow_synthetic", "no_verify",
    ),
    "Latency": ("budget", "estimate", "threads", "bench", "device"),
}  # fmt: skip
"""Section -> its options, of commands that have so many that nobody reads them as one list."""
MANY_OPTIONS = 25
NARROWEST, WIDEST = 60, 100
"""Characters in a line, however wide the terminal is."""
VALUES = {"<str>": "TEXT", "<path>": "PATH", "<int range>": "NUMBER", "<float range>": "NUMBER"}
"""The value of an option as Typer names it -> as a reader knows it."""


class HelpPageCommand(TyperCommand):
    """A command whose options stand in sections where they are many."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.width = max(NARROWEST, min(shutil.get_terminal_size().columns, WIDEST))
        super(TyperCommand, self).format_help(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        records: dict[str, tuple[str, str]] = {}
        arguments: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                record = _help_record_with_plain_value(record)
                if parameter.param_type_name == "argument":
                    arguments.append(record)
                else:
                    records[parameter.name] = record
        sections = {"Arguments": arguments}
        if len(records) > MANY_OPTIONS:
            for title, names in SECTIONS.items():
                sections[title] = [records.pop(name) for name in names if name in records]
        sections["Further options" if len(sections) > 1 else "Options"] = [*records.values()]
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _help_record_with_plain_value(record: tuple[str, str]) -> tuple[str, str]:
    names, text = record
    for typer_name, plain in VALUES.items():
        names = names.replace(typer_name, plain)
    return names, text
