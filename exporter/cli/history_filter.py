"""The options that filter the history. `filtered_command` adds them to a command."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, TypeAlias, get_args

import typer

from android_harness import records
from android_harness.history.records import Filter
from exporter.cli.composed_options import compose_command
from exporter.config import options

Model = Annotated[str | None, typer.Option(help="Only sessions of this model card.")]
Target = Annotated[str | None, typer.Option(help="Only sessions for this target.")]
Artifact = Annotated[str | None, typer.Option(metavar="NAME", help="Only sessions of this artifact.")]
Device = Annotated[
    str | None,
    typer.Option(metavar="SERIAL", help="Only sessions on this phone: its serial, or the serial's hash."),
]
Evidence = Annotated[
    str | None, typer.Option(help="Only this kind of evidence: measured, simulated or host.")
]
Run = Annotated[str | None, typer.Option(metavar="NIGHT", help="Only sessions of this night.")]
Since = Annotated[
    str | None, typer.Option(metavar="WHEN", help="Only sessions since then: 7d, 36h, or 2026-01-31 (UTC).")
]
Until = Annotated[str | None, typer.Option(metavar="WHEN", help="Only sessions before then.")]
Stable = Annotated[
    bool | None, typer.Option("--stable/--unstable", help="Only sessions that can (or cannot) be a baseline.")
]

Wanted: TypeAlias = Filter
"""The argument that a `filtered_command` command receives."""


def filter_from_options(
    model: Model = None,
    target: Target = None,
    artifact: Artifact = None,
    device: Device = None,
    evidence: Evidence = None,
    run: Run = None,
    since: Since = None,
    until: Until = None,
    stable: Stable = None,
) -> Filter:
    """Build the filter from the options.

    Raises:
        UsageError: The kind of evidence is unknown, or a time cannot be read.
    """
    kind = (
        options.parse_choice_option("--evidence", evidence, get_args(records.Provenance))
        if evidence
        else None
    )
    return Filter(
        model=model,
        target=target,
        artifact=artifact,
        device=device,
        evidence=kind,
        run=run,
        since=_filter_time("--since", since),
        until=_filter_time("--until", until),
        stable=stable,
    )


def _filter_time(option: str, words: str | None) -> datetime | None:
    return options.parse_time_option(option, words) if words else None


filtered_command = compose_command("wanted", filter_from_options)
"""Gives a command these options, and passes it the filter as `wanted`."""
