"""Print what each term of the graphs' costs does, where there are hundreds of rows.

`benchmarks/estimate.py` is the program. The terms of ONNX Runtime's costs are chosen here, on rows of
TensorFlow Lite on a Pixel 4, and judged on its own.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest import mock

from benchmarks import estimate_fit, estimate_intervals, estimate_rows
from benchmarks.estimate_fit import ARITHMETIC, FORMS, Column, Subject
from benchmarks.estimate_rows import A77_TO_A76, Row
from exporter.estimate.latency_model import Work

DEPTHWISE: Column = {"depthwise_macs": 1}
VALUES: Column = {"values": 1}
BEFORE = (ARITHMETIC, DEPTHWISE, VALUES)
TERMS: Mapping[str, Sequence[Column]] = {
    "multiply-accumulates, depthwise ones, values (before)": BEFORE,
    "the same, but depthwise ones by their values": (ARITHMETIC, {"depthwise_values": 1}, VALUES),
    "the first, and patches": (*BEFORE, {"patches": 1}),
    "the first, and values of convolutions": (*BEFORE, {"conv_values": 1}),
    "the first, and functions": (*BEFORE, {"functions": 1}),
    "ONNX Runtime's form": FORMS["onnxruntime"],
    "TensorFlow Lite's form": FORMS["tflite"],
    "PyTorch Mobile's form": FORMS["torchscript"],
}
"""What is tried -> its columns."""
RUNTIMES = (("torch", "fp32"), ("tflite", "fp32"), ("tflite", "int8"))
"""Published runtimes on the Pixel 4's fastest core."""


def print_tried_forms(paths: Sequence[Path], works: Mapping[str, Work]) -> None:
    """Print a Markdown table: mean errors of networks on a Pixel 4, by fits that never saw them.

    Args:
        paths: The CSV files.
        works: Model -> what its network does, with its graph.
    """
    rows = {kind: _form_subjects(paths, works, *kind) for kind in RUNTIMES}
    print("\n| costs of a graph | " + " | ".join(f"{a} {b}" for a, b in rows) + " |\n|---|---|---|---|")
    for name, form in TERMS.items():
        errors = [_form_error(subjects, form) for subjects in rows.values()]
        print(f"| {name} | {' | '.join(f'{error:.1%}' for error in errors)} |")
    print()


def _form_subjects(
    paths: Sequence[Path], works: Mapping[str, Work], runtime: str, precision: str
) -> list[Subject]:
    cells = estimate_rows.pixel_latencies_of_runtime(paths, runtime, precision)
    return [
        Subject(Row("qed-usc", "tflite", model, precision, 1, cell["1large"] / A77_TO_A76), works[model])
        for model, cell in cells.items()
        if "1large" in cell and model in works and works[model].graph
    ]


def _form_error(subjects: Sequence[Subject], form: Sequence[Column]) -> float:
    """Return the mean error of rows whose models were left out, with the costs of a form."""
    with mock.patch.dict(estimate_fit.FORMS, {"tflite": form}):
        misses = [m for m in estimate_intervals.left_out_misses(subjects, 1.0) if m.basis == "operators"]
    return statistics.mean(abs(math.exp(-miss.log) - 1) for miss in misses)
