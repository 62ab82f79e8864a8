"""What the command line prints about devices and what they measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from exporter.records import BudgetVerdict, DeviceEvidence, DeviceLatency, Report
from exporter.report import text
from exporter.report.terminal import plain

if TYPE_CHECKING:
    from rich.console import Console

    from android_harness.records import DeviceReport

STYLES: dict[BudgetVerdict, str] = {
    "pass": "bold green",
    "fail": "bold red",
    "inconclusive": "bold yellow",
    "not_measured": "bold yellow",
}
EVIDENCE_STYLES: dict[DeviceEvidence, str] = {
    "measured": "green",
    "simulated": "bold black on yellow",
    "host": "bold black on yellow",
}


def print_bench(
    report: Report,
    found: Sequence[tuple[str, DeviceLatency]],
    skipped: Mapping[str, str],
    problems: Mapping[str, str],
    console: Console,
) -> None:
    """What each device said about each artifact, what was left out, and the verdict in one line.

    Args:
        report: As it is now.
        found: (artifact, what a device said about it) of this run.
        skipped: Artifact -> why it was not measured.
        problems: What failed, by device or device and artifact -> in the harness' own words.
        console: Where to.
    """
    kinds = sorted({item.evidence for _, item in found} - {"measured"})
    for kind in kinds:
        console.print(plain(text.NO_PHONE[kind], EVIDENCE_STYLES[kind]))
    if found:
        _table(found, console)
    for name, item in found:
        for words in (item.problem, *item.flags, *item.why):
            if words:
                console.print(plain(f"  {name} on {item.serial}: {words}", "yellow"))
    for name, why in problems.items():
        console.print(plain(f"{name}: {why}", "red"))
    for name, why in skipped.items():
        console.print(plain(f"Not measured: {name}: {why}", "dim"))
    console.print()
    console.print(plain(report.selection_reason))
    console.print(plain(f"{text.budget(report)}.", STYLES[report.budget]))


def _table(found: Sequence[tuple[str, DeviceLatency]], console: Console) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("artifact", overflow="fold")
    table.add_column("device", overflow="fold")
    for name in ("p50 ms", "p90 ms", "p90 interval", "p99 ms"):
        table.add_column(name, justify="right")
    table.add_column("evidence", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for artifact, item in found:
        table.add_row(
            plain(artifact),
            plain(text.device(item)),
            text.sig3(item.p50_ms),
            text.sig3(item.p90_ms),
            f"{text.sig3(item.p90_ci_ms[0])}-{text.sig3(item.p90_ci_ms[1])}",
            text.sig3(item.p99_ms),
            plain(text.EVIDENCE_WORDS[item.evidence], EVIDENCE_STYLES[item.evidence]),
            plain(text.VERDICT_WORDS[item.verdict], STYLES[item.verdict]),
        )
    console.print(table)


def print_devices(found: Iterable[DeviceReport], console: Console) -> None:
    """Every device adb knows; beneath, each gate that is not met and what to do about it."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading in ("serial", "state", "SoC", "ready"):
        table.add_column(heading, overflow="fold")
    table.add_column("", overflow="fold", ratio=1)
    for device in found:
        who = device.identity
        chip = (who.chip or who.soc or "unknown") if who else text.NONE
        table.add_row(
            plain(device.seen.serial, "bold"),
            plain(device.seen.state),
            plain(chip),
            plain("yes" if device.ready else "no", "green" if device.ready else "red"),
            plain("\n".join((*_doubts(device), *_unmet(device)))),
        )
    console.print(table)


def _doubts(device: DeviceReport) -> list[str]:
    doubts = device.identity.doubts if device.identity else ()
    return [f"SIMULATED: {'; '.join(doubts)}"] if doubts else []


def _unmet(device: DeviceReport) -> list[str]:
    return [f"{g.name}: {g.seen}, expected {g.expected}. {g.fix}" for g in device.gates if not g.ok]
