"""What the command line prints of the history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from exporter.report import flags, text
from exporter.report.terminal import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from android_harness.history.pruning import Pruned
    from android_harness.history.records import Gap, StoredSession
    from android_harness.regressions.records import Change, Judgement, Worsening

KEY_LETTERS = 8
"""Of a key in a list: enough for `show`."""
STYLES = {"confirmed": "bold red", "suspected": "bold yellow", "unstable": "yellow"}


def print_sessions(
    sessions: Sequence[StoredSession], gaps: Sequence[Gap], newest: int, console: Console
) -> None:
    """A row for each session and each gap, newest first: the last `newest` of both together."""
    twins = _twins(sessions)
    several = len(({one.target for one in sessions} | {gap.target for gap in gaps}) - {""}) > 1
    rows = [(one.started_at, _session(one, twins, several)) for one in sessions]
    rows += [(one.at, _gap(one, several)) for one in gaps]
    rows = sorted(rows, key=lambda row: row[0], reverse=True)[:newest]
    if not rows:
        console.print("The history has nothing that fits.")
        return
    table = _table()
    for _, cells in rows:
        table.add_row(*cells)
    console.print(table)
    if len(rows) == newest:
        console.print(plain(f"The last {newest}; --newest shows more.", "dim"))


def _twins(sessions: Sequence[StoredSession]) -> frozenset[str]:
    """Device models that several phones here have: only their serials tell them apart."""
    phones = {(one.device_model, one.serial) for one in sessions}
    count = Counter(model for model, _ in phones)
    return frozenset(model for model in count if count[model] > 1)


def _table() -> Table:
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


def _model(row: StoredSession | Gap, several: bool) -> str:
    """With the target where there are several of them."""
    return f"{row.model} for {row.target}" if several and row.target else row.model


def _session(row: StoredSession, twins: Collection[str], several: bool) -> tuple[Text, ...]:
    usual = row.evidence == "measured" and row.stable and not row.regressed
    device = f"{row.device_model} {row.serial}".strip() if row.device_model in twins else row.device_model
    return (
        plain(row.key[:KEY_LETTERS]),
        plain(f"{row.started_at:%y-%m-%d %H:%M}"),
        plain(_model(row, several)),
        plain(row.artifact),
        plain(device or row.serial),
        plain(text.sig3(row.p50_ms)),
        plain(text.sig3(row.p90_ms)),
        plain(", ".join(_notes(row)), "" if usual else "yellow"),
    )


def _gap(row: Gap, several: bool) -> tuple[Text, ...]:
    moment = f"{row.at:%y-%m-%d %H:%M}"
    words = (plain(word) for word in (moment, _model(row, several), row.artifact, "", "", ""))
    return (plain("gap", "yellow"), *words, plain(row.reason, "yellow"))


def _notes(row: StoredSession) -> Iterator[str]:
    if row.evidence != "measured":
        yield text.EVIDENCE_WORDS[row.evidence]
    if row.regressed:
        yield "SLOWER OR WORSE"
    if row.accepted:
        yield "accepted"
    if row.problem:
        yield "wrong outputs"
    yield from dict.fromkeys(flag.partition(":")[0] for flag in row.flags)


def print_session(
    session: StoredSession,
    judgement: Judgement,
    worse: Sequence[Worsening],
    steps: Sequence[Change],
    console: Console,
) -> None:
    """All of one session, what is to be said against it, and where its series changed."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in _facts(session):
        if words:
            table.add_row(name, plain(words))
    console.print(table)
    console.print()
    for words in (session.problem, *flags.grouped(session.flags)):
        if words:
            console.print(plain(words, "yellow"))
    verdict = judgement.status.replace("_", " ")
    console.print(plain(f"{verdict}: {judgement.reason}", STYLES.get(judgement.status, "")))
    if session.regressed:
        console.print(plain("Others are not held against it until its level is accepted.", "yellow"))
    for one in worse:
        console.print(plain(f"worse: {one.reason}", "bold red"))
    for step in steps:
        console.print(plain(_step(step)))


def _facts(one: StoredSession) -> Iterator[tuple[str, str]]:
    yield "key", one.key
    yield "started", f"{one.started_at:%Y-%m-%d %H:%M:%S} UTC, in run {one.run}, on {one.host}"
    yield "model", f"{one.model} for {one.target}, checkpoint {one.source_sha256[:12]}"
    yield "artifact", f"{one.artifact} ({one.format}, {one.precision}), {one.artifact_sha256[:12]}"
    size = text.scaled(one.size_bytes, "B")
    yield (
        "quality",
        (
            f"{size}, SQNR {text.decibels(one.sqnr_db)}, agreement {text.percent(one.top1_agreement)}, "
            f"accuracy {text.percent(one.accuracy)}, largest error {text.sig3(one.max_error)}"
        ),
    )
    yield "device", ", ".join(filter(None, (one.serial, one.device_model, one.chip or one.soc)))
    yield "system", one.fingerprint
    yield "runtime", one.build
    affinity = f", cores {one.affinity}" if one.affinity else ""
    yield "run", f"{one.threads} threads{affinity}, {one.launches} launches, {one.samples} calls"
    yield "evidence", text.EVIDENCE_WORDS[one.evidence]
    yield (
        "p50, p90",
        (
            f"{text.milliseconds(one.p50_ms)}, {text.milliseconds(one.p90_ms)} "
            f"({text.sig3(one.p90_low_ms)} to {text.sig3(one.p90_high_ms)})"
        ),
    )
    yield "p95, p99, max", ", ".join(map(text.milliseconds, (one.p95_ms, one.p99_ms, one.max_ms)))
    yield "load, first", ", ".join(map(text.milliseconds, (one.load_ms, one.first_ms)))
    yield "verdict", f"{text.VERDICT_WORDS[one.verdict]}, budget {text.milliseconds(one.budget_ms)}"
    yield "clocks", f"{one.clock_state}; " + ", ".join(f"{name} {one.clocks[name]:g}" for name in one.clocks)
    yield "made by", ", ".join(f"{name} {one.toolchain[name]}" for name in sorted(one.toolchain))


def _step(step: Change) -> str:
    direction = "slower" if step.slower > 0 else "faster"
    causes = " ".join(cause.description for cause in step.causes)
    levels = f"from {text.sig3(step.before_ms)} to {text.sig3(step.after_ms)} ms"
    return f"{step.started_at:%Y-%m-%d}: {abs(step.slower):.1%} {direction}, {levels}. {causes}"


def pruned(found: Pruned, samples_only: bool, done: bool) -> str:
    """What prune took or would take, in words."""
    if not found.sessions:
        kept = f" {found.protected} are old, but others are held against them." if found.protected else ""
        return f"Nothing to forget among {found.total} sessions.{kept}"
    what = "the raw samples of " if samples_only else ""
    words = f"{'Forgot' if done else 'Would forget'} {what}{found.sessions} of {found.total} sessions"
    words += f", {found.oldest:%Y-%m-%d} to {found.newest:%Y-%m-%d}"
    words += f" ({text.scaled(found.packed_bytes, 'B')} of samples)."
    if found.protected:
        words += f" {found.protected} as old stay: others are held against them."
    return words if done else f"{words} --yes does it."
