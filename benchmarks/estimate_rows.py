"""Published latencies to fit estimates to and to judge them by.

Rows are read from CSV files that the project does not carry:

sd865_published_latency.csv   columns source, soc, runtime, model, precision, backend, threads, latency_ms
qed-usc_torch_*_e2e.csv       of github.com/qed-usc/mobile-ml-benchmark (MIT): on a Pixel 4
qed-usc_tflite_*_e2e.csv      beside them, for the small cores and for what an anchor does
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import estimate_nets

STATED_AS_FOUR = 4
"""Threads of rows that state none: ResNet-50 in int8 at 190 GMAC/s exceeds two cores of an 865."""
PIXEL = "pixel4"
A77_TO_A76 = 1.06
"""How much faster an 865's prime core is than an 855's at fp32: geometric mean of Paddle-Lite's pairs."""


@dataclass(frozen=True)
class Row:
    """A published latency."""

    source: str
    runtime: str
    """"onnxruntime" or "torchscript"."""
    model: str
    precision: str
    threads: int
    latency_ms: float
    flops: float = 0
    """As published; 0 where the network itself tells."""
    weight_bytes: float = 0

    @property
    def whole(self) -> bool:
        """Tell a whole model from a single operator."""
        return not self.model.startswith("op:")


WHOLE = (
    Row("alsj213 2026-04", "onnxruntime", "MobileNetV2", "fp32", 1, 29.1),
    Row("alsj213 2026-06", "onnxruntime", "MobileNetV2", "fp32", 1, 29.3),
    Row("alsj213 2026-04", "onnxruntime", "MobileNetV2", "fp32", 4, 17.3),
    Row("alsj213 2026-06", "onnxruntime", "MobileNetV2", "fp32", 4, 21.6),
    Row("alsj213 2026-04", "onnxruntime", "ResNet50", "fp32", 4, 78.5),
    Row("alsj213 2026-06", "onnxruntime", "ResNet50", "fp32", 4, 142.6),
)
"""Whole models of github.com/alsj213/arm-inference-benchmark, as cited where its single operators are."""


def read_rows(paths: Sequence[Path], whole: Sequence[Row] = WHOLE) -> list[Row]:
    """Read the rows of CPU runtimes whose networks can be written or whose FLOPs are stated."""
    rows = list(whole)
    for path in (path for path in paths if "qed-usc_tflite" not in path.name):
        with path.open(newline="", encoding="utf-8") as stream:
            lines = list(csv.DictReader(stream))
        if not lines:
            continue
        rows += _pixel_rows(lines) if any("|" in name for name in lines[0]) else _cited_rows(lines)
    return rows


def _cited_rows(lines: Sequence[dict[str, str]]) -> Iterator[Row]:
    for line in lines:
        if line["runtime"] != "ONNX Runtime" or line["backend"] != "cpu" or "8250" not in line["soc"]:
            continue
        precision = {"fp32": "fp32", "w8a8": "int8"}.get(line["precision"])
        if precision and estimate_nets.buildable(line["model"]):
            threads = int(line["threads"]) if line["threads"].isdigit() else STATED_AS_FOUR
            yield Row(
                line["source"], "onnxruntime", line["model"], precision, threads, float(line["latency_ms"])
            )


def _pixel_rows(lines: Sequence[dict[str, str]]) -> Iterator[Row]:
    for line in lines:
        flops = line.get("flops") or line.get("FLOPS") or "0"
        for cores, threads in (("1large", 1), ("3med", 3)):
            text = line[f"{PIXEL}|{cores}|float|mean"]
            if text != "N/A":
                latency = float(text) / 1000 / A77_TO_A76
                yield Row(
                    "qed-usc",
                    "torchscript",
                    line["model"],
                    "fp32",
                    threads,
                    latency,
                    float(flops),
                    float(line["size"]),
                )


def pixel_latencies(path: Path, precision: str, phone: str = PIXEL) -> dict[str, dict[str, float]]:
    """Return model -> cores, as "1large" or "1small" -> the published milliseconds of one phone.

    Args:
        path: A file of github.com/qed-usc/mobile-ml-benchmark.
        precision: "fp32" or "int8".
        phone: As the file calls it.
    """
    kind = "float" if precision == "fp32" else "quant"
    with path.open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    cells: dict[str, dict[str, float]] = {}
    for line in lines:
        for name, text in line.items():
            owner, *rest = name.split("|")
            if owner == phone and rest[1:] == [kind, "mean"] and text not in {"", "N/A"}:
                cells.setdefault(line["model"], {})[rest[0]] = float(text) / 1000
    return cells


def pixel_latencies_of_runtime(
    paths: Sequence[Path], runtime: str, precision: str, phone: str = PIXEL
) -> dict[str, dict[str, float]]:
    """Return `pixel_latencies` of those files that are of a runtime, "torch" or "tflite"."""
    cells: dict[str, dict[str, float]] = {}
    for path in paths:
        if f"qed-usc_{runtime}_" in path.name:
            cells |= pixel_latencies(path, precision, phone)
    return cells


def published_speedup(paths: Sequence[Path], precision: str) -> float:
    """Return by what four threads divide one thread's time on Snapdragons 855 and 865, in every runtime.

    It is the slope of t4 = t1 / slope + constant: what starting threads costs is not in it. Without rows of
    both, it is 2.7.
    """
    import numpy as np
    from scipy import optimize

    cells: dict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
    for path in paths:
        with path.open(newline="", encoding="utf-8") as stream:
            lines = [line for line in csv.DictReader(stream) if line.get("backend") == "cpu"]
        for line in lines:
            chip = any(name in line["soc"] for name in ("8150", "8250"))
            if chip and line["precision"].startswith(precision) and not line["model"].startswith("op:"):
                key = (line["source"], line["soc"], line["runtime"], line["model"], line["precision"])
                cells[key][line["threads"]] = float(line["latency_ms"])
    pairs = np.array([(cell["1"], cell["4"]) for cell in cells.values() if {"1", "4"} <= set(cell)])
    if len(pairs) < 5:
        return UNKNOWN_SPEEDUP

    def misses(values: np.ndarray) -> np.ndarray:
        predicted = pairs[:, 0] / np.exp(values[0]) + values[1]
        return np.asarray(np.log(predicted / pairs[:, 1]))

    return float(np.exp(optimize.least_squares(misses, [1.0, 0.5], bounds=([0, 0], [1.5, 20])).x[0]))


UNKNOWN_SPEEDUP = 2.7
FOREIGN = {
    (
        "VIT",
        "int8",
    ): "41 billion multiply-adds a second are float32's speed on this chip (ResNet50 in int8 reaches "
    "190): the published file evidently multiplies in float, and the one that is written here does not",
}
"""(model, precision) -> why its published rows are of another file than the one that is counted."""


def contradictions(rows: Sequence[Row], most: float = 0.05) -> list[str]:
    """Name the cells whose rows differ by more than a share, a line each."""
    cells: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        cells[(row.runtime, row.model, row.precision, str(row.threads))].append(row)
    lines = []
    for cell, same in cells.items():
        low, high = min(r.latency_ms for r in same), max(r.latency_ms for r in same)
        if high > low * (1 + most):
            values = ", ".join(f"{r.latency_ms:g} ms ({r.source})" for r in same)
            lines.append(f"{' '.join(cell)} threads: {values}, {high / low - 1:.0%} apart")
    return lines
