"""The options that narrow the history, said once: `filtered` gives them to a command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, TypeAlias, get_args

import typer

from android_harness import records
from android_harness.history.records import Filter
from exporter.config import options

Model = Annotated[str | None, typer.Option(help="Only this model card's.")]
Target = Annotated[str | None, typer.Option(help="Only of this target.")]
Artifact = Annotated[str | None, typer.Option(metavar="NAME", help="Only this artifact's.")]
Device = Annotated[str | None, typer.Option(metavar="SERIAL", help="Only this phone's; its hash does, too.")]
Evidence = Annotated[str | None, typer.Option(help="Only measured, simulated or host.")]
Run = Annotated[str | None, typer.Option(metavar="NIGHT", help="Only of this night.")]
Since = Annotated[
    str | None, typer.Option(metavar="WHEN", help="Not older than 7d, 36h, or 2026-01-31 (UTC).")
]
Until = Annotated[str | None, typer.Option(metavar="WHEN", help="Older than that.")]
Stable = Annotated[
    bool | None, typer.Option("--stable/--unstable", help="Only what is (not) fit to be a baseline.")
]

Wanted: TypeAlias = Filter
"""The argument of a command that is `filtered`."""


def a_filter(
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
    """What the options say.

    Raises:
        UsageError: A kind of evidence or a time that there is not.
    """
    kind = options.one_of("--evidence", evidence, get_args(records.Provenance)) if evidence else None
    return Filter(
        model=model,
        target=target,
        artifact=artifact,
        device=device,
        evidence=kind,
        run=run,
        since=_when("--since", since),
        until=_when("--until", until),
        stable=stable,
    )


def _when(option: str, words: str | None) -> datetime | None:
    return options.moment(option, words) if words else None


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the parameters of `a_filter`, and what they make as its argument `wanted`.

    Typer reads a function's signature, so the signature is what is changed.
    """
    ours = inspect.signature(a_filter, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True).parameters
    both = [*ours.values(), *(parameter for name, parameter in own.items() if name != "wanted")]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        wanted = a_filter(**{name: given.pop(name) for name in ours})
        command(wanted=wanted, **given)

    named = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in both]
    run.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
    return run
