"""Print sessions of the history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from exporter.report import instability_flags, text
from exporter.report.terminal import plain_terminal_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from android_harness.history.pruning import Pruned
    from android_harness.history.records import Gap, StoredSession
    from android_harness.regressions.records import Change, Judgement, Worsening

KEY_LETTERS = 8
"""How many letters of a key a list shows: enough for `show`."""
STYLES = {"confirmed": "bold red", "suspected": "bold yellow", "unstable": "yellow"}


def print_history_sessions(
    sessions: Sequence[StoredSession], gaps: Sequence[Gap], newest: int, console: Console
) -> None:
    """Print a row for each session and gap, newest first: the last `newest` of both together."""
    twins = _history_models_of_several_phones(sessions)
    several = len(({session.target for session in sessions} | {gap.target for gap in gaps}) - {""}) > 1
    rows = [(session.started_at, _history_session_row(session, twins, several)) for session in sessions]
    rows += [(gap.at, _history_gap_row(gap, several)) for gap in gaps]
    rows = sorted(rows, key=lambda row: row[0], reverse=True)[:newest]
    if not rows:
        console.print("The history has nothing that fits.")
        return
    table = _history_table()
    for _, cells in rows:
        table.add_row(*cells)
    console.print(table)
    if len(rows) == newest:
        console.print(plain_terminal_text(f"The last {newest}; --newest shows more.", "dim"))


def _history_models_of_several_phones(sessions: Sequence[StoredSession]) -> frozenset[str]:
    """Return the device models that several phones share; only their serials distinguish those."""
    phones = {(session.device_model, session.serial) for session in sessions}
    count = Counter(model for model, _ in phones)
    return frozenset(model for model in count if count[model] > 1)


def _history_table() -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for name in ("\nkey", "started\nUTC"):
        table.add_column(name, no_wrap=True)
    for name in ("\nmodel", "\nartifact", "\ndevice"):
        table.add_column(name, overflow="fold")
    for name in ("p50\nms", "p90\nms"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("\nnote", overflow="fold")
    return table


def _history_model_cell(row: StoredSession | Gap, several: bool) -> str:
    """Name the model, with the target where there are several."""
    return f"{row.model} for {row.target}" if several and row.target else row.model


def _history_session_row(row: StoredSession, twins: Collection[str], several: bool) -> tuple[Text, ...]:
    usual = row.evidence == "measured" and row.stable and not row.regressed
    device = f"{row.device_model} {row.serial}".strip() if row.device_model in twins else row.device_model
    return (
        plain_terminal_text(row.key[:KEY_LETTERS]),
        plain_terminal_text(f"{row.started_at:%y-%m-%d %H:%M}"),
        plain_terminal_text(_history_model_cell(row, several)),
        plain_terminal_text(row.artifact),
        plain_terminal_text(device or row.serial),
        plain_terminal_text(text.sig3_text(row.p50_ms)),
        plain_terminal_text(text.sig3_text(row.p90_ms)),
        plain_terminal_text(", ".join(_history_notes(row)), "" if usual else "yellow"),
    )


def _history_gap_row(row: Gap, several: bool) -> tuple[Text, ...]:
    moment = f"{row.at:%y-%m-%d %H:%M}"
    words = (
        plain_terminal_text(word)
        for word in (moment, _history_model_cell(row, several), row.artifact, "", "", "")
    )
    return (plain_terminal_text("gap", "yellow"), *words, plain_terminal_text(row.reason, "yellow"))


def _history_notes(row: StoredSession) -> Iterator[str]:
    if row.evidence != "measured":
        yield text.EVIDENCE_WORDS[row.evidence]
    if row.regressed:
        yield "SLOWER OR WORSE"
    if row.accepted:
        yield "accepted"
    if row.problem:
        yield "wrong outputs"
    yield from row.flag_names


def print_history_session(
    session: StoredSession,
    judgement: Judgement,
    worse: Sequence[Worsening],
    steps: Sequence[Change],
    console: Console,
) -> None:
    """Print one session in full, the doubts about it, and where its series changed."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in _print_history_session_facts(session):
        if words:
            table.add_row(name, plain_terminal_text(words))
    console.print(table)
    console.print()
    for words in (session.problem, *instability_flags.group_instability_flags(session.flags)):
        if words:
            console.print(plain_terminal_text(words, "yellow"))
    verdict = judgement.status.replace("_", " ")
    console.print(plain_terminal_text(f"{verdict}: {judgement.reason}", STYLES.get(judgement.status, "")))
    if session.regressed:
        console.print(
            plain_terminal_text("It is excluded from baselines until its level is accepted.", "yellow")
        )
    for worsening in worse:
        console.print(plain_terminal_text(f"worse: {worsening.reason}", "bold red"))
    for step in steps:
        console.print(plain_terminal_text(_print_history_step(step)))


def _print_history_session_facts(session: StoredSession) -> Iterator[tuple[str, str]]:
    yield "key", session.key
    yield "started", f"{session.started_at:%Y-%m-%d %H:%M:%S} UTC, in run {session.run}, on {session.host}"
    yield "model", f"{session.model} for {session.target}, checkpoint {session.source_sha256[:12]}"
    yield (
        "artifact",
        f"{session.artifact} ({session.format}, {session.precision}), {session.artifact_sha256[:12]}",
    )
    size = text.scaled_text(session.size_bytes, "B")
    yield (
        "quality",
        (
            f"{size}, SQNR {text.decibels_text(session.sqnr_db)}, "
            f"agreement {text.percent_text(session.top1_agreement)}, "
            f"accuracy {text.percent_text(session.accuracy)}, "
            f"largest error {text.sig3_text(session.max_error)}"
        ),
    )
    yield (
        "device",
        ", ".join(filter(None, (session.serial, session.device_model, session.chip or session.soc))),
    )
    yield "system", session.fingerprint
    yield "runtime", session.build
    affinity = f", cores {session.affinity}" if session.affinity else ""
    yield "run", f"{session.threads} threads{affinity}, {session.launches} launches, {session.samples} calls"
    yield "evidence", text.EVIDENCE_WORDS[session.evidence]
    yield (
        "p50, p90",
        (
            f"{text.milliseconds_text(session.p50_ms)}, {text.milliseconds_text(session.p90_ms)} "
            f"({text.sig3_text(session.p90_low_ms)} to {text.sig3_text(session.p90_high_ms)})"
        ),
    )
    yield (
        "p95, p99, max",
        ", ".join(map(text.milliseconds_text, (session.p95_ms, session.p99_ms, session.max_ms))),
    )
    yield "load, first", ", ".join(map(text.milliseconds_text, (session.load_ms, session.first_ms)))
    yield (
        "verdict",
        f"{text.VERDICT_WORDS[session.verdict]}, budget {text.milliseconds_text(session.budget_ms)}",
    )
    yield (
        "clocks",
        f"{session.clock_state}; " + ", ".join(f"{name} {session.clocks[name]:g}" for name in session.clocks),
    )
    yield "made by", ", ".join(f"{name} {session.toolchain[name]}" for name in sorted(session.toolchain))


def _print_history_step(step: Change) -> str:
    direction = "slower" if step.slower > 0 else "faster"
    causes = " ".join(cause.description for cause in step.causes)
    levels = f"from {text.sig3_text(step.before_ms)} to {text.sig3_text(step.after_ms)} ms"
    return f"{step.started_at:%Y-%m-%d}: {abs(step.slower):.1%} {direction}, {levels}. {causes}"


def describe_pruned_history(plan: Pruned, samples_only: bool, done: bool) -> str:
    """Say what prune deleted or would delete."""
    if not plan.sessions:
        protected = f" {plan.protected} are old, but are baselines of others." if plan.protected else ""
        return f"Nothing to delete among {plan.total} sessions.{protected}"
    scope = "the raw samples of " if samples_only else ""
    words = f"{'Deleted' if done else 'Would delete'} {scope}{plan.sessions} of {plan.total} sessions"
    words += f", {plan.oldest:%Y-%m-%d} to {plan.newest:%Y-%m-%d}"
    words += f" ({text.scaled_text(plan.packed_bytes, 'B')} of samples)."
    if plan.protected:
        words += f" {plan.protected} as old stay, as baselines of others."
    return words if done else f"{words} --yes does it."
