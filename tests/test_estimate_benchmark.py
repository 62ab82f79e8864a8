"""Tests of judging estimates by published latencies, on rows that are made up."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    estimate_anchors,
    estimate_chips,
    estimate_intervals,
    estimate_judging,
    estimate_rows,
    estimate_small_cores,
)
from benchmarks import estimate_tables as tables
from benchmarks.estimate_fit import Subject
from benchmarks.estimate_judging import Judged
from benchmarks.estimate_rows import Row
from exporter.estimate.graph_work import GraphWork
from exporter.estimate.latency_model import Work


def judged(
    model: str, published_ms: float, predicted_ms: float, threads: int = 4, flops_ms: float = 1e3
) -> Judged:
    row = Row("source", "onnxruntime", model, "fp32", threads, published_ms)
    return Judged(row, predicted_ms, predicted_ms / 1.5, predicted_ms * 1.5, flops_ms, None)


@pytest.mark.parametrize(("count", "conformal"), [(3, False), (8, False), (9, True), (40, True)])
def test_few_rows_give_a_wider_interval_and_the_same_promise(count: int, conformal: bool) -> None:
    """Nine misses are the fewest of which the largest holds 90 % of new cases; below, Student's is wider."""
    misses = [0.01 * (index + 1) for index in range(count)]
    spread = estimate_intervals.interval_of_misses(misses)
    assert (spread.coverage, spread.rows) == (0.9, count)
    assert (math.log(spread.factor) <= max(misses) + 1e-9) == conformal


@pytest.mark.parametrize("count", [2, 6, 8, 12, 60])
def test_intervals_hold_what_they_promise(count: int) -> None:
    """New cases from the same distribution are within in 90 %, or a little more, however few the rows."""
    draw = np.random.default_rng(0)
    held = []
    for _ in range(600):
        *misses, new = draw.normal(0, 0.2, count + 1)
        held.append(abs(new) <= math.log(estimate_intervals.interval_of_misses(misses).factor))
    assert 0.88 <= np.mean(held) <= 0.97


def test_no_single_figure_is_nearer_than_the_least_error(capsys: pytest.CaptureFixture[str]) -> None:
    """The bound follows from rows of one cell that contradict each other, and names each."""
    rows = [judged("net", 80, 100), judged("net", 140, 100), judged("other", 10, 10)]
    tables.print_least_errors(rows)
    printed = capsys.readouterr().out
    assert "| net | 4 | 80 and 140 ms | 80 ms | +0% and -43% |" in printed
    assert f"Their mean: {(1 - 80 / 140) / 3:.0%}" in printed
    for figure in np.linspace(50, 200, 301):
        mean = (abs(figure / 80 - 1) + abs(figure / 140 - 1)) / 3
        assert mean >= (1 - 80 / 140) / 3 - 1e-9


def test_coverage_comes_with_its_own_interval() -> None:
    """Ten of twelve say little: the exact binomial interval reaches from 52 to 98 %."""
    assert tables.coverage_text([True] * 10 + [False] * 2) == "10 of 12, 83% (52% to 98%)"


def test_an_error_above_half_of_that_of_flops_is_bold(capsys: pytest.CaptureFixture[str]) -> None:
    """The reader sees where the aim is missed, and where all threads are one group."""
    tables.print_errors(
        {"runtime fp32": [judged("a", 100, 101), judged("b", 100, 160, threads=1, flops_ms=40)]}
    )
    lines = capsys.readouterr().out.splitlines()
    assert any("4 threads | 1 | 1%" in line for line in lines)
    assert any("1 thread | 1 | **60%**" in line for line in lines)
    assert any("whole models, all | 2 |" in line for line in lines)


PHONES = {"pixel4|1large": 1.0, "pixel4|1small": 6.0, "s10|1large": 1.5}
"""How much longer each column takes."""


def published(folder: Path, runtime: str, factor: float) -> Path:
    """Write rows whose latencies follow from their work; small cores take 3 cycles for arithmetic, 9 else."""
    path = folder / f"qed-usc_{runtime}_cnn_e2e.csv"
    columns = [f"{name}|{kind}|mean" for name in PHONES for kind in ("float", "quant")]
    lines = [",".join(["model", "flops", "size", *columns])]
    for model, work in WORKS.items():
        assert work.graph
        fast = (work.graph.macs * 0.2 + work.graph.values * 2.0) / 2.842e6 * estimate_rows.A77_TO_A76 * factor
        small = (work.graph.macs * 0.2 * 3 + work.graph.values * 2.0 * 9) / 1.785e6 * factor
        cells = [small if "small" in column else fast * PHONES[column.rpartition("|")[0].rpartition("|")[0]]
                 for column in columns]  # fmt: skip
        lines.append(",".join([model, str(work.flops), "4", *(f"{ms * 1000:.1f}" for ms in cells)]))
    path.write_text("\n".join(lines) + "\n")
    return path


def work_of(macs: int, values: int) -> Work:
    return Work(None, 2 * macs, 4_000_000, 20, GraphWork(macs, 0, values, 0))


WORKS = {
    f"net{index}": work_of(100_000_000 * (1 + index % 7), 1_000_000 * (1 + index % 5)) for index in range(30)
}


def test_a_small_cores_factors_are_found_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Arithmetic and the rest have a factor each; int8 takes that of the runtime with dot products."""
    paths = [published(tmp_path, "torch", 1.0), published(tmp_path, "tflite", 0.5)]
    cores = estimate_small_cores.fitted_small_cores(paths, WORKS)
    assert set(cores) == set(estimate_small_cores.SOURCES)
    for name, core in cores.items():
        assert [core.arithmetic, core.others] == pytest.approx([3, 9], rel=0.01)
        least = estimate_intervals.ONE_SOURCE if "int8" in name else 1
        assert core.spread.factor == pytest.approx(least, abs=0.01)
    assert "| onnxruntime fp32 | 60 | 3.00 | 9.00 | 0% |" in capsys.readouterr().out


def test_one_measurement_takes_away_what_all_rows_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another runtime at half the time is off by 100 % without a measurement, and by nothing with one."""
    paths = [published(tmp_path, "torch", 1.0), published(tmp_path, "tflite", 0.5)]
    estimate_anchors.print_anchors(paths, WORKS)
    lines = {line.split("|")[1].strip(): line for line in capsys.readouterr().out.splitlines() if "|" in line}
    assert "| 30 | 100% | 0% |" in lines["another runtime: TensorFlow Lite"]


def test_a_row_is_judged_by_fits_and_intervals_that_never_saw_its_model() -> None:
    """Planting a wrong latency of one model changes the prediction of the others only."""
    rows = [
        Subject(Row("s", "torchscript", model, "fp32", 1, work.flops / 1e7 + 3), work)
        for model, work in WORKS.items()
    ]
    planted = [Subject(Row("s", "torchscript", "net0", "fp32", 1, 1e4), WORKS["net0"]), *rows[1:]]
    before, after = (
        {j.row.model: j for j in estimate_judging.judge_group(group, 2.7, {}, "model")}
        for group in (rows, planted)
    )
    assert before["net0"].predicted_ms == after["net0"].predicted_ms
    assert before["net0"].high_ms == after["net0"].high_ms
    assert before["net1"].predicted_ms != after["net1"].predicted_ms
    assert before["net0"].covered
    assert not after["net0"].covered


def test_two_chips_are_compared_on_the_networks_of_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of one chip alone, of other precisions and of other runtimes tell no ratio."""
    lines = ["runtime,soc,model,precision,threads,latency_ms"]
    for index in range(12):
        lines += [f"ncnn,SM8150-AC,net{index},fp16 storage,4,{30 + index}"]
        lines += [f"ncnn,SM8550-AB,net{index},fp16 storage,4,{(30 + index) / 1.5}"]
        lines += [f"ncnn,SM8550-AB,net{index},int8,4,1", f"MNN,SM8150-AC,net{index},fp16,4,1"]
    lines.append("ncnn,SM8150-AC,alone,fp16 storage,4,1")
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines) + "\n")
    estimate_chips.print_chips([path])
    assert "| 4 | 12 | 1.50 | 1.50 | 1.50 | 1.45 |" in capsys.readouterr().out
