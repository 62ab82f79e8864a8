"""`export-mobile history`: what was measured before, where it lies, and what may be forgotten."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from exporter.cli import filters
from exporter.cli.app import Debug, Json, app, console
from exporter.errors import UsageError

if TYPE_CHECKING:
    from android_harness.history.store import History

LISTED = 30


class ListFirst(TyperGroup):
    """Lets the filters come first: `export-mobile history --model m` lists."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] != "--help" and args[0] not in self.commands):
            args = ["list", *args]
        return super().parse_args(ctx, args)


remembered = typer.Typer(
    cls=ListFirst,
    help="What was measured before: list, show, export, prune, accept. Lists when nothing is said.",
)

Location = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE",
        help="A file, or postgresql://user@host/name. EXPORT_MOBILE_HISTORY, or the user's data folder, "
        "when left out.",
    ),
]
Key = Annotated[str, typer.Argument(metavar="KEY", help="Of a session; its beginning is enough.")]


def opened(location: str | None) -> History:
    """The history, which must be there: whoever reads wants no new one at a mistyped place."""
    from android_harness import history

    return history.open_history(location, must_exist=True)


@remembered.command("list")
@filters.filtered
def list_sessions(
    wanted: filters.Wanted,
    history: Location = None,
    newest: Annotated[int, typer.Option(min=1, help="At most so many.")] = LISTED,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List sessions, newest first, and the nights in between when nothing could be measured."""
    from android_harness.history.records import as_json as plain
    from exporter.cli.console import history as tables

    wanted = replace(wanted, newest=newest)
    with opened(history) as memory:
        sessions, gaps = memory.sessions(wanted), memory.gaps(wanted)
    if as_json:
        rows = {"sessions": [plain(item) for item in sessions], "gaps": [plain(item) for item in gaps]}
        typer.echo(json.dumps(rows, indent=2))
    else:
        tables.print_sessions(sessions, gaps, newest, console())


@remembered.command()
def show(
    key: Key,
    history: Location = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show all of one session, what it is held against and where its series changed."""
    from android_harness.history.records import as_json as plain
    from android_harness.regressions import changes, judging, quality
    from exporter.cli.console import history as tables

    with opened(history) as memory:
        session = memory.find(key)
        judgement = judging.judge(session, memory.baseline(session))
        worse = quality.worse(session, memory.earlier(session))
        steps = changes.changes(memory.trend(session.series_key), memory.get_all)
        samples = memory.samples(session.key)
    if as_json:
        shown = plain(session) | {
            "judgement": asdict(judgement),
            "worse": [asdict(item) for item in worse],
            "changes": [plain(item) for item in steps],
            "durations_ns": [item.durations_ns for item in samples.launches] if samples else None,
        }
        typer.echo(json.dumps(shown, indent=2))
    else:
        tables.print_session(session, judgement, worse, steps, console())


@remembered.command("export")
@filters.filtered
def export_sessions(
    wanted: filters.Wanted,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .csv or .parquet; its suffix decides.")],
    samples: Annotated[
        bool, typer.Option("--samples", help="A row for every timed call instead of every session.")
    ] = False,
    history: Location = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write sessions, or their raw samples, for other programs."""
    from android_harness.history import exports

    with opened(history) as memory:
        count = exports.export(memory, file, wanted, samples=samples)
    if as_json:
        typer.echo(json.dumps({"file": str(file), "rows": count}))
    else:
        typer.echo(f"{count} rows in {file}.")


@remembered.command()
def prune(
    keep_days: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Keep what is not older than N days.")
    ] = None,
    keep_newest: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Keep the last N of every line.")
    ] = None,
    samples_only: Annotated[
        bool, typer.Option("--samples-only", help="Forget raw samples, keep all figures.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would go.")] = False,
    history: Location = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Forget old sessions; never those that new ones are still held against. Only says what without --yes.

    What any of the rules keeps stays. A line is one artifact of one model on one device.
    """
    from android_harness.history import pruning
    from android_harness.history.records import as_json as plain
    from exporter.cli.console import history as tables

    if keep_days is None and keep_newest is None:
        raise UsageError("Nothing says what to keep.", "Give --keep-days, --keep-newest, or both.")
    policy = pruning.Policy(keep_days, keep_newest, samples_only)
    with opened(history) as memory:
        plan = (pruning.prune if yes else pruning.plan)(memory, policy)
    if as_json:
        typer.echo(json.dumps(plain(plan) | {"done": yes}, indent=2))
    else:
        typer.echo(tables.pruned(plan, policy.samples_only, yes))


@remembered.command()
def accept(key: Key, history: Location = None, as_json: Json = False, debug: Debug = False) -> None:
    """Accept a level as the new normal: the baseline of KEY's line begins with it.

    A confirmed regression is no baseline, so every night after it is one, too, until it is repaired or
    accepted.
    """
    from android_harness.history.records import as_json as plain

    with opened(history) as memory:
        accepted = memory.accept(memory.find(key).key)
    if as_json:
        typer.echo(json.dumps(plain(accepted), indent=2))
    else:
        who = f"{accepted.model}, {accepted.artifact} on {accepted.serial}"
        since = f"{accepted.started_at:%Y-%m-%d %H:%M} UTC"
        typer.echo(f"{who}: the baseline begins with the {accepted.p50_ms:.3g} ms of {since}.")


app.add_typer(remembered, name="history")
