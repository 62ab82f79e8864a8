"""Print the results of the quantisation benchmark."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Row
from benchmarks.subjects import Subject

PACKAGES = ("torch", "torchvision", "torchao", "executorch", "onnx", "onnxruntime", "nncf")
INTEGER_INSTRUCTIONS = ("avx2", "avx512bw", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
"""Instructions without whose later ones ONNX Runtime adds int8 products in saturating 16 bits."""


def machine() -> dict[str, str]:
    """Describe the machine of the figures."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    lines = dict(line.split(":", 1) for line in reversed(text.splitlines()) if ":" in line)
    values = {key.strip(): value.strip() for key, value in lines.items()}
    flags = (values.get("flags") or values.get("Features") or "").split()
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": values.get("model name", platform.processor()),
        "instructions": " ".join(i for i in INTEGER_INSTRUCTIONS if i in flags),
        "cores": str(len(os.sched_getaffinity(0))),
        "load": f"{os.getloadavg()[0]:.1f}",
        **versions(),
    }


def versions() -> dict[str, str]:
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def print_machine(facts: dict[str, str], threads: int, console: Console) -> None:
    console.print(
        f"{facts['processor']}, {facts['cores']} cores ({facts['instructions']}), {facts['system']}, "
        f"load {facts['load']} at the start; Python {facts['python']}; "
        + ", ".join(f"{name} {facts[name]}" for name in PACKAGES)
        + f". Latencies with {threads} thread(s).",
        highlight=False,
    )


def print_model(subject: Subject, rows: Sequence[Row], console: Console) -> None:
    table = Table(title=f"{subject.name}: {subject.about}", box=box.SIMPLE_HEAD, title_justify="left")
    for heading in ("method", "status"):
        table.add_column(heading, no_wrap=True)
    for heading in ("SQNR dB", "top-1 %", "int8 %", "MB", "quantise s", "total s", "ms", "to our int8"):
        table.add_column(heading, justify="right", no_wrap=True)
    for runtime in dict.fromkeys(row.runtime for row in rows):
        for row in (r for r in rows if r.runtime == runtime):
            table.add_row(*_cells(row))
        table.add_section()
    console.print(table)
    for row in rows:
        if row.reason:
            console.print(f"  {row.method}: {row.reason}", style="dim", highlight=False, markup=False)


def _cells(row: Row) -> list[str]:
    timed = row.latency
    ratio = f"{timed.ratio:.2f} ({timed.quartiles[0]:.2f} to {timed.quartiles[1]:.2f})" if timed else ""
    return [
        row.method,
        row.status,
        _figure(row.sqnr_db, "{:.1f}"),
        _figure(row.agreement, "{:.1f}", 100),
        _figure(row.quantized, "{:.0f}", 100),
        _figure(row.size_bytes, "{:.2f}", 1e-6),
        _figure(row.quantise_s, "{:.1f}"),
        _figure(row.total_s, "{:.1f}"),
        _figure(timed.ms if timed else None, "{:.3f}"),
        ratio,
    ]


def markdown(rows: Sequence[Row]) -> str:
    """Return the quality, size and relative latency of everything that ran, as in the README."""
    lines = [
        "| model | runtime | method | SQNR dB | top-1 % | MB | quantise s | ms / our int8 |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        cells = _cells(row)
        figures = [*cells[2:4], *cells[5:7], cells[9]]
        lines.append("| " + " | ".join([row.model, row.runtime, row.method, *figures]) + " |")
    return "\n".join(lines) + "\n"


def _figure(value: float | None, form: str, factor: float = 1.0) -> str:
    if value is None:
        return "-"
    return form.format(value * factor) if math.isfinite(value) else "equal" if value > 0 else "none"


def print_settings(rows: Sequence[Row], console: Console) -> None:
    """Print each alternative's settings; ours have defaults."""
    for method, settings in {r.method: r.settings for r in rows if not r.method.startswith("ours")}.items():
        console.print(f"{method}: {settings}", highlight=False)
