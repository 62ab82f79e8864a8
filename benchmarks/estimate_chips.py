"""Compare published latencies of two chips with their widths. `benchmarks/estimate.py` is the program."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path

from exporter.config.targets import get_target
from exporter.estimate.chips import CORES

OLD, NEW = "SM8150-AC", "SM8550"
"""A Snapdragon 855+ and an 8 Gen 2, both in ncnn's table."""
OLD_CORES = (("Cortex-A77", 2956), ("Cortex-A77", 2419), ("Cortex-A77", 2419), ("Cortex-A77", 2419))
"""The 855+'s four fastest cores: Cortex-A76s, which have a Cortex-A77's widths."""


def print_chips(paths: Sequence[Path]) -> None:
    """Print a Markdown table: how much faster the newer chip is, as published and by widths and clocks.

    Args:
        paths: The CSV files with columns source, soc, model, precision and threads.
    """
    clusters = get_target("snapdragon8gen2").clusters
    new = [(cluster.core, cluster.max_mhz or 0) for cluster in clusters for _ in range(cluster.count)]
    print("\n| threads | networks | published, median | a tenth below | a tenth above | by widths |")
    print("|---|---|---|---|---|---|")
    for threads in (1, 4):
        ratios = _published_ratios(paths, threads)
        if len(ratios) < 10:
            continue
        by_widths = _vectors(new[:threads]) / _vectors(OLD_CORES[:threads])
        low, *_, high = statistics.quantiles(ratios, n=10)
        middle = statistics.median(ratios)
        print(f"| {threads} | {len(ratios)} | {middle:.2f} | {low:.2f} | {high:.2f} | {by_widths:.2f} |")
    print()


def _vectors(cores: Sequence[tuple[str, int]]) -> float:
    """Return the vector operations of cores in a microsecond."""
    return sum(CORES[core].vectors * mhz for core, mhz in cores)


def _published_ratios(paths: Sequence[Path], threads: int) -> list[float]:
    """Return the older chip's latency over the newer one's, for each network of ncnn in float16."""
    cells: dict[str, dict[str, float]] = {}
    for path in paths:
        with path.open(newline="", encoding="utf-8") as stream:
            lines = [line for line in csv.DictReader(stream) if line.get("runtime") == "ncnn"]
        for line in lines:
            chip = next((name for name in (OLD, NEW) if name in line["soc"]), None)
            if chip and line["threads"] == str(threads) and line["precision"].startswith("fp16"):
                cells.setdefault(line["model"], {})[chip] = float(line["latency_ms"])
    return [cell[OLD] / cell[NEW] for cell in cells.values() if {OLD, NEW} <= set(cell)]
