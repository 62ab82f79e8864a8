"""Print devices and what they measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from exporter.records import BudgetVerdict, DeviceEvidence, DeviceLatency, Report
from exporter.report import device_text, instability_flags, text
from exporter.report.terminal import plain_terminal_text
from exporter.verify import estimate_verdicts

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

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
    measured: Sequence[tuple[str, DeviceLatency]],
    skipped: Mapping[str, str],
    problems: Mapping[str, str],
    console: Console,
) -> None:
    """Print each device's latencies of each artifact, what was skipped, and the verdict in one line.

    Args:
        report: The updated report.
        measured: (artifact, its latency on a device) of this run.
        skipped: Artifact -> why it was not measured.
        problems: Device, or device and artifact -> the harness' message about its failure.
        console: Where to.
    """
    for serial in dict.fromkeys(item.serial for _, item in measured):
        _print_bench_device([(name, item) for name, item in measured if item.serial == serial], console)
    rows = {row.variant.name: row for row in report.artifacts}
    for name, item in measured:
        if name in rows and (
            words := estimate_verdicts.estimate_verdict_compared(item, rows[name].estimates)
        ):
            console.print(plain_terminal_text(f"{name}: {words}."))
    for name, why in problems.items():
        console.print(plain_terminal_text(f"{name}: {why}", "red"))
    for name, why in skipped.items():
        console.print(plain_terminal_text(f"Not measured: {name}: {why}", "dim"))
    console.print(plain_terminal_text(report.selection_reason))
    if measured and report.selected not in {name for name, _ in measured}:
        console.print(
            plain_terminal_text(
                f"{report.selected or 'Nothing'} is chosen, but was not measured now.", "yellow"
            )
        )
    console.print(plain_terminal_text(f"{text.budget_text(report)}.", STYLES[report.budget]))


def _print_bench_device(measured: Sequence[tuple[str, DeviceLatency]], console: Console) -> None:
    """Print one device: its identity, its table, and below it the doubts about the figures."""
    first = measured[0][1]
    console.print(plain_terminal_text(device_text.device_line_text([item for _, item in measured]), "bold"))
    if first.evidence in text.NO_PHONE:
        console.print(plain_terminal_text(text.NO_PHONE[first.evidence], EVIDENCE_STYLES[first.evidence]))
    if first.why:
        _print_bench_note(console, " ".join(instability_flags.group_instability_flag_reasons(first.why)))
    console.print(_bench_table(measured))
    for name, item in measured:
        for words in (item.problem, *item.exceeded, *instability_flags.group_instability_flags(item.flags)):
            if words:
                _print_bench_note(console, f"{name}: {words}")
    console.print()


def _print_bench_note(console: Console, words: str) -> None:
    from rich.padding import Padding

    console.print(Padding(plain_terminal_text(words, "yellow"), (0, 0, 0, 2), expand=False))


def _bench_table(measured: Sequence[tuple[str, DeviceLatency]]) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("\nartifact", no_wrap=True)
    for name in ("p50\nms", "p90\nms", "interval\nms", "p99\nms"):
        # A very fast model's interval is too wide for 80 columns; every other column stays whole.
        table.add_column(name, justify="right", no_wrap="interval" not in name)
    table.add_column("\nevidence", no_wrap=True)
    table.add_column("\nverdict", no_wrap=True)
    for artifact, item in measured:
        table.add_row(
            plain_terminal_text(f"{artifact}, as an app" if item.app_like else artifact),
            text.sig3_text(item.p50_ms),
            text.sig3_text(item.p90_ms),
            f"{text.sig3_text(item.p90_ci_ms[0])} to {text.sig3_text(item.p90_ci_ms[1])}",
            text.sig3_text(item.p99_ms),
            plain_terminal_text(text.EVIDENCE_WORDS[item.evidence], EVIDENCE_STYLES[item.evidence]),
            plain_terminal_text(text.VERDICT_WORDS[item.verdict], STYLES[item.verdict]),
        )
    return table


def print_devices_to_bench(devices: Iterable[DeviceReport], console: Console) -> None:
    """Print every device that adb sees; below each, the doubts about it and each gate that is not met."""
    for device in devices:
        who = device.identity
        facts = (who.model, who.chip or who.soc or "unknown SoC") if who else (device.entry.state,)
        line = plain_terminal_text(f"{device.entry.serial}: ", "bold")
        line.append(f"{', '.join(plain_terminal_text(word).plain for word in facts if word)}: ")
        line.append("ready" if device.ready else "not ready", "green" if device.ready else "red")
        console.print(line)
        for words in (*_print_doubts_before_bench(device), *_print_unmet_gates_of_bench(device)):
            _print_bench_note(console, words)


def _print_doubts_before_bench(device: DeviceReport) -> list[str]:
    doubts = device.identity.doubts if device.identity else ()
    return [f"SIMULATED: {' '.join(doubts)}"] if doubts else []


def _print_unmet_gates_of_bench(device: DeviceReport) -> list[str]:
    return [f"{g.name}: {g.seen}, expected {g.expected}. {g.fix}" for g in device.gates if not g.ok]
