"""The command `export-mobile history`: list, show, export, prune and accept stored sessions."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from exporter.cli import history_filter
from exporter.cli.app import Application, Debug, Json, app, app_console
from exporter.errors import UsageError

if TYPE_CHECKING:
    from android_harness.history.store import History

LISTED = 30


class ListFirst(TyperGroup):
    """Accept filters in place of a subcommand: `export-mobile history --model m` lists."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] != "--help" and args[0] not in self.commands):
            args = ["list", *args]
        return super().parse_args(ctx, args)


remembered = Application(
    cls=ListFirst,
    help="Work with stored sessions: list, show, export, prune, accept. With no subcommand, lists sessions.",
)

Location = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE",
        help="A file, or postgresql://user@host/name. When left out: EXPORT_MOBILE_HISTORY, else a file in "
        "the user's data folder.",
    ),
]
Key = Annotated[str, typer.Argument(metavar="KEY", help="Key of a session; its first letters are enough.")]


def open_existing_history(location: str | None) -> History:
    """Open an existing history. A mistyped place must not create a new one."""
    from android_harness import history

    return history.open_history(location, must_exist=True)


@remembered.command("list")
@history_filter.filtered_command
def list_history_command(
    wanted: history_filter.Wanted,
    history: Location = None,
    newest: Annotated[int, typer.Option(min=1, help="Number of sessions to list at most.")] = LISTED,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List sessions, newest first, and the nights when nothing could be measured."""
    from android_harness.history.records import history_record_as_json as plain
    from exporter.cli.console import history as tables

    wanted = replace(wanted, newest=newest)
    with open_existing_history(history) as memory:
        sessions, gaps = memory.sessions(wanted), memory.gaps(wanted)
    if as_json:
        rows = {"sessions": [plain(item) for item in sessions], "gaps": [plain(item) for item in gaps]}
        typer.echo(json.dumps(rows, indent=2))
    else:
        tables.print_history_sessions(sessions, gaps, newest, app_console())


@remembered.command("show")
def show_history_command(
    key: Key,
    history: Location = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show one session in full, its baseline, and where its series changed."""
    from android_harness.history.records import history_record_as_json as plain
    from android_harness.regressions import changes, quality, session_judging
    from exporter.cli.console import history as tables

    with open_existing_history(history) as memory:
        session = memory.find(key)
        judgement = session_judging.judge_session(session, memory.baseline(session))
        worse = quality.worse_quality(session, memory.earlier(session))
        steps = changes.changes_of_series(memory.trend(session.series_key), memory.get_all)
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
        tables.print_history_session(session, judgement, worse, steps, app_console())


@remembered.command("export")
@history_filter.filtered_command
def export_history_command(
    wanted: history_filter.Wanted,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The .csv or .parquet file to write.")],
    samples: Annotated[
        bool, typer.Option("--samples", help="Write one row per timed call instead of one per session.")
    ] = False,
    history: Location = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write sessions, or their raw samples, to a table for other programs."""
    from android_harness.history import history_export

    with open_existing_history(history) as memory:
        count = history_export.export_history(memory, file, wanted, samples=samples)
    if as_json:
        typer.echo(json.dumps({"file": str(file), "rows": count}))
    else:
        typer.echo(f"{count} rows in {file}.")


@remembered.command("prune")
def prune_history_command(
    keep_days: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Keep sessions of the last N days; with 0, age keeps no session."
        ),
    ] = None,
    keep_newest: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Keep the last N sessions of every series; with 0, their number keeps none.",
        ),
    ] = None,
    samples_only: Annotated[
        bool, typer.Option("--samples-only", help="Delete raw samples only; keep all figures.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete. Without it, the command only reports what would go.")
    ] = False,
    history: Location = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Delete old sessions, except baselines of newer ones. Without --yes, only reports what would go.

    A session stays if any of the rules keeps it. A series is one artifact of one model on one device.
    """
    from android_harness.history import pruning
    from android_harness.history.records import history_record_as_json as plain
    from exporter.cli.console import history as tables

    if keep_days is None and keep_newest is None:
        raise UsageError("No rule says what to keep.", "Give --keep-days, --keep-newest, or both.")
    policy = pruning.PruningPolicy(keep_days, keep_newest, samples_only)
    with open_existing_history(history) as memory:
        plan = (pruning.prune_history if yes else pruning.plan_pruning)(memory, policy)
    if as_json:
        typer.echo(json.dumps(plain(plan) | {"done": yes}, indent=2))
    else:
        typer.echo(tables.describe_pruned_history(plan, policy.samples_only, yes))


@remembered.command("accept")
def accept_history_command(
    key: Key, history: Location = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Accept a level as the new normal: the baseline of KEY's series starts at this session.

    Regressed sessions are excluded from baselines, so every later night is a regression too until you fix it
    or accept it.
    """
    from android_harness.history.records import history_record_as_json as plain

    with open_existing_history(history) as memory:
        accepted = memory.accept(memory.find(key).key)
    if as_json:
        typer.echo(json.dumps(plain(accepted), indent=2))
    else:
        who = f"{accepted.model}, {accepted.artifact} on {accepted.serial}"
        since = f"{accepted.started_at:%Y-%m-%d %H:%M} UTC"
        typer.echo(f"{who}: the baseline starts at the {accepted.p50_ms:.3g} ms of {since}.")


app.add_typer(remembered, name="history")
