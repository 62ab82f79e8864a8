"""Judge the estimates of latencies by published ones, and fit their parameters.

python -m benchmarks.estimate ROWS.csv ... [--counts FILE] [--fit]

Every row is predicted by a fit that never saw its model, then by one that never saw its source. Beside stand
the predictions of FLOPs alone and of this host's latency, each with the one factor that fits the other rows
best. Counting takes about a minute for a MobileNetV2 and is kept in --counts, with how long each network took
printed. Networks of the Pixel 4 are built from pytorchcv and timm. --fit writes
exporter/estimate/parameters.json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import (
    estimate_costs,
    estimate_fit,
    estimate_nets,
    estimate_pixel_nets,
    estimate_rows,
    estimate_tables,
)
from benchmarks.estimate_fit import Subject
from benchmarks.estimate_rows import Row
from benchmarks.estimate_tables import SHORT_OPERATOR_MS, Judged
from exporter.emulated import arm_tools, cores
from exporter.estimate import instruction_counts, latency_model, parameters
from exporter.estimate import qemu_plugin as counting
from exporter.estimate.graph_work import GraphWork
from exporter.estimate.instruction_counts import Counts
from exporter.estimate.latency_model import Work
from exporter.estimate.parameters import Fit, Parameters, Spread
from exporter.pipeline.cache import default_cache_root

CAVEATS = {
    "executorch": "No latency of ExecuTorch on a Snapdragon 865 is published: its costs are those of ONNX "
    "Runtime, and the interval carries the 41 % by which runtimes differ.",
    "torchscript": "Nothing is counted for PyTorch Mobile: FLOPs and weights of 169 networks on a Pixel 4 "
    "are fitted.",
    "int8": "The published int8 latencies state no threads and are taken as of four; one thread follows from "
    "the published speedups.",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="+", type=Path, help="CSV files of published latencies")
    parser.add_argument(
        "--counts", type=Path, default=Path("estimate-counts.json"), help="where counts are kept"
    )
    parser.add_argument(
        "--counted", action="store_true", help="count nothing; leave out what was not counted"
    )
    parser.add_argument("--fit", action="store_true", help="write exporter/estimate/parameters.json")
    parser.add_argument(
        "--held-out", action="store_true", help="fit nothing: judge the package's parameters by these rows"
    )
    options = parser.parse_args()
    if options.held_out:
        judge_held_out(options.rows, options.counts, options.counted)
        return
    rows = estimate_rows.read_rows(options.rows)
    works, hosts = gathered_works(rows, options.counts, options.counted)
    subjects = [Subject(row, works[key]) for row in rows if (key := _key(row)) in works]
    print(f"{len(subjects)} of {len(rows)} rows have a network and counts.\n")
    groups = {
        name: [s for s in subjects if _group(s.row) == name]
        for name in dict.fromkeys(_group(s.row) for s in subjects)
    }
    cited = [path for path in options.rows if "qed-usc" not in path.name]
    speedups = {name: _published_speedup(cited, name, groups[name]) for name in groups}
    groups = {
        name: [s for s in group if s.row.threads in latency_model.THREADS and not _foreign(s.row)]
        for name, group in groups.items()
    }
    judged = {}
    for split, label in (("model", "one model"), ("source", "one source")):
        print(f"Leaving out {label} at a time:")
        judged[split] = {name: judge_group(groups[name], speedups[name], hosts, split) for name in groups}
        estimate_tables.print_errors(judged[split], judged["model"])
    print("Leaving out one model at a time, without QEMU:")
    uncounted = {
        name: judge_group([s for s in group if s.work.graph], speedups[name], hosts, "model", "operators")
        for name, group in groups.items()
    }
    estimate_tables.print_errors(uncounted, uncounted)
    print("Costs that were tried, by the mean error of rows whose model was left out (float32, one thread):")
    counted = groups["onnxruntime fp32"]
    kept = json.loads(options.counts.read_text())
    missed = {s.row.model: graph for s in counted if (graph := kept[_key(s.row)].get("graph"))}
    estimate_costs.print_tried_costs(counted, missed)
    print("Rows that contradict each other:")
    for line in estimate_rows.contradictions(rows):
        print(f"  {line}")
    print("\nWhole models, predicted without their own rows:")
    estimate_tables.print_residuals(judged["model"])
    print("\nRows of other files than the counted ones, in no fit:")
    for subject in (s for s in subjects if _foreign(s.row)):
        fit = estimate_fit.fit_runtime(groups[_group(subject.row)], speedups[_group(subject.row)])
        estimate = estimate_fit.predicted_ms(subject, fit)
        print(
            f"  {_key(subject.row)}: published {subject.row.latency_ms:g} ms, estimated {estimate:.3g} ms: ",
            end="",
        )
        print(_foreign(subject.row))
    print("\nRankings of whole models that are not of one latency, predicted without their own rows:")
    estimate_tables.print_rankings(judged["model"])
    if options.fit:
        write_parameters(groups, speedups, judged["model"])


def judge_held_out(paths: Sequence[Path], kept: Path, counted: bool) -> None:
    """Print rows beside the estimates, with their intervals, of the package's own parameters."""
    rows = estimate_rows.read_rows(paths, ())
    works, _ = gathered_works(rows, kept, counted)
    shipped, errors, held = parameters.load_parameters(), list[float](), 0
    print("| row | threads | published | estimated | error |\n|---|---|---|---|---|")
    for row in rows:
        fit = shipped.fits.get(_group(row))
        if _key(row) not in works or not fit or row.threads not in latency_model.THREADS:
            continue
        estimate = latency_model.estimate_by_latency_model(
            works[_key(row)], estimate_fit.REFERENCE, shipped, fit,
            "int8" if row.precision == "int8" else "fp32", row.threads,
        )  # fmt: skip
        errors.append(abs(estimate.p50_ms / row.latency_ms - 1))
        held += estimate.low_ms <= row.latency_ms <= estimate.high_ms
        print(
            f"| {row.runtime} {row.model} {row.precision} | {row.threads} | {row.latency_ms:.4g} ms ", end=""
        )
        print(f"| {estimate.p50_ms:.3g} ms, {estimate.low_ms:.3g} to {estimate.high_ms:.3g} ", end="")
        print(f"| {estimate.p50_ms / row.latency_ms - 1:+.0%} |")
    if errors:
        print(
            f"\n{len(errors)} rows: mean error {statistics.mean(errors):.0%}, {held} within their intervals."
        )


def _key(row: Row) -> str:
    return f"{row.model.removeprefix('op:')}|{row.precision}|{row.runtime}"


def _group(row: Row) -> str:
    return f"{row.runtime} {row.precision}"


def _foreign(row: Row) -> str:
    """Return why a row is of another file than the one that is counted; empty where it is not."""
    return estimate_rows.FOREIGN.get((row.model, row.precision), "")


def _published_speedup(paths: Sequence[Path], name: str, group: Sequence[Subject]) -> float:
    """Return the speedup of four threads that the rows' runtime, or all runtimes, reach."""
    by_model: dict[str, dict[int, float]] = {}
    for s in group:
        by_model.setdefault(s.row.model, {})[s.row.threads] = s.row.latency_ms
    threes = [cell[1] / cell[3] for cell in by_model.values() if {1, 3} <= set(cell)]
    if threes:
        fastest, big = 2.842, 2.419  # three threads ran on the three big cores; four have the fastest one too
        return statistics.median(threes) * (fastest + 3 * big) / (3 * big)
    return estimate_rows.published_speedup(paths, "int8" if "int8" in name else "fp32")


def gathered_works(
    rows: Sequence[Row], kept: Path, counted: bool = False
) -> tuple[dict[str, Work], dict[str, float]]:
    """Count what has not been counted yet, and time it on this host; return both by row's key."""
    known = json.loads(kept.read_text()) if kept.exists() else {}
    works, hosts = {}, {}
    for row in {_key(row): row for row in rows}.values():
        key = _key(row)
        if "graph" not in known.get(key, {}) and not counted:
            begin = time.monotonic()
            known[key] = _described(row, known.get(key))
            kept.write_text(json.dumps(known, indent=1))
            print(f"{key}: written, counted and described in {time.monotonic() - begin:.0f} s", flush=True)
        item = known.get(key, {})
        graph = _graph_of_kept(item.get("graph"))
        if row.flops:
            works[key] = Work(None, int(row.flops), int(row.weight_bytes), 0, graph)
        elif item:
            counts = Counts(**item["counts"])
            works[key] = Work(counts, item["flops"], item["weight_bytes"], item["kernels"], graph)
            hosts[key] = item["host_ms"]
    return works, hosts


def _graph_of_kept(item: Mapping[str, int] | None) -> GraphWork | None:
    if not item:
        return None
    return GraphWork(item["macs"], item["depthwise_macs"], item["values"], item["missed_last"])


def _described(row: Row, item: dict[str, Any] | None) -> dict[str, Any]:
    """Return a row's network with its graph; count it unless it was."""
    if row.flops:
        return {"graph": estimate_pixel_nets.describe_pixel_network(row.model, row.flops)}
    if not item:
        return _counted(row)
    with tempfile.TemporaryDirectory() as name:
        path, _ = estimate_nets.write_network(row.model, "fp32", Path(name))
        return {**item, **estimate_nets.describe_network(path, row.precision == "int8")}


def _counted(row: Row) -> dict[str, Any]:
    cache = default_cache_root()
    ready = arm_tools.prepare_arm_tools(cache)
    plugin = counting.make_qemu_plugin(ready.folder)
    target = estimate_fit.REFERENCE
    root = arm_tools.root_of_arm_tools(target, ready)
    with tempfile.TemporaryDirectory() as name:
        path, shape = estimate_nets.write_network(row.model, row.precision, Path(name))
        sample = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        counts = instruction_counts.count_instructions(
            ready, plugin, root, cores.emulated_core(target), "onnxruntime", path, (sample,), Path(name)
        )
        return {
            "counts": asdict(counts),
            **estimate_nets.describe_network(
                path.with_name(path.name.replace("-int8", "-fp32")), row.precision == "int8"
            ),
            "host_ms": estimate_nets.time_network(path, sample),
        }


def judge_group(
    group: Sequence[Subject], speedup: float, hosts: Mapping[str, float], split: str, basis: str = "counts"
) -> list[Judged]:
    """Predict every row of one runtime and precision by fits without its model, or without its source."""

    def part(subject: Subject) -> str:
        return subject.row.model if split == "model" else subject.row.source.split()[0]

    judged = []
    for value in dict.fromkeys(part(s) for s in group):
        rest = [s for s in group if part(s) != value]
        if len(rest) < 3:
            continue
        fit = estimate_fit.fit_runtime(rest, speedup)
        flops = _one_factor(rest, lambda s: float(s.work.flops))
        host = _one_factor(rest, lambda s: hosts.get(_key(s.row), 0.0))
        for s in group:
            if part(s) == value:
                host_ms = hosts.get(_key(s.row))
                judged.append(
                    Judged(
                        s.row,
                        estimate_fit.predicted_ms(s, fit, basis),
                        flops(s.row.threads) * max(s.work.flops, 1),
                        host(s.row.threads) * host_ms if host_ms else None,
                        host_ms,
                        estimate_fit.best_basis(s.work),
                    )
                )
    return judged


def _one_factor(rest: Sequence[Subject], size: Callable[[Subject], float]) -> Callable[[int], float]:
    """Return, for a number of threads, the factor from a size to a latency that fits the other rows best."""

    def factor(threads: int) -> float:
        same = [s for s in rest if s.row.threads == threads] or rest
        ratios = [math.log(s.row.latency_ms / size(s)) for s in same if size(s) > 0]
        return math.exp(statistics.median(ratios)) if ratios else 0.0

    return factor


def write_parameters(
    groups: Mapping[str, Sequence[Subject]],
    speedups: Mapping[str, float],
    judged: Mapping[str, Sequence[Judged]],
) -> None:
    """Fit all rows and write the parameters with their intervals."""
    fits = {}
    for name, group in groups.items():
        runtime, precision = name.split()
        caveat = CAVEATS.get(runtime, "") or CAVEATS.get(precision, "")
        fit = estimate_fit.fit_runtime(group, speedups[name], caveat)
        counted = [j.miss for j in judged[name] if j.row.whole and j.basis == "counts"]
        operators, graph = (_graph_spread(group, speedups[name], basis) for basis in ("operators", "graph"))
        spread = estimate_fit.conformal_factor(counted) if counted else operators
        least = 1.0 if len({s.row.source for s in group if s.row.whole}) > 1 else estimate_fit.ONE_SOURCE
        spreads = [replace(item, factor=max(item.factor, least)) for item in (spread, operators, graph)]
        by_threads = [_by_threads(item, group) for item in spreads]
        fits[name] = replace(
            fit, spread=by_threads[0], operators_spread=by_threads[1], graph_spread=by_threads[2]
        )
        if runtime == "onnxruntime":
            fits[f"executorch {precision}"] = _of_another_runtime(fits[name])
    fitted = Parameters(estimate_fit.CORE, estimate_fit.MHZ, fits, PROVENANCE)
    parameters.FILE.write_text(json.dumps(_rounded(asdict(fitted)), indent=2) + "\n")
    print(f"\nWrote {parameters.FILE}.")


PROVENANCE = (
    "Single operators and whole models of ONNX Runtime in float32 on an unpinned Redmi K30S Ultra ("
    "Snapdragon 865): github.com/alsj213/arm-inference-benchmark.",
    "int8 models of ONNX Runtime 1.23 on Qualcomm AI Hub's QCS8250 proxy (perf.yaml of its repositories).",
    "Networks of PyTorch Mobile on a Pixel 4 (Snapdragon 855): github.com/qed-usc/mobile-ml-benchmark, MIT "
    "licence.",
    "Speedups of four threads: ncnn's and PaddleClas' published tables for Snapdragons 855 and 865.",
)


def _graph_spread(group: Sequence[Subject], speedup: float, basis: str) -> Spread:
    """Return the interval of estimates that count nothing, from rows predicted without their own model."""
    misses = []
    group = [s for s in group if s.work.graph or basis == "graph"]
    for value in dict.fromkeys(s.row.model for s in group):
        rest = [s for s in group if s.row.model != value]
        fit = estimate_fit.fit_runtime(rest, speedup)
        for s in group:
            if (
                s.row.model == value
                and s.work.flops
                and (s.row.whole or s.row.latency_ms >= SHORT_OPERATOR_MS)
            ):
                misses.append(math.log(s.row.latency_ms / estimate_fit.predicted_ms(s, fit, basis)))
    return estimate_fit.conformal_factor(misses)


def _by_threads(spread: Spread, group: Sequence[Subject]) -> dict[str, Spread]:
    """Return the interval by threads; one without rows is wider by as much as published speedups differ."""
    seen = {s.row.threads if s.row.threads != 3 else 4 for s in group if s.row.whole}
    return {
        str(threads): spread if threads in seen else estimate_fit.wider(spread, SPEEDUPS_DIFFER)
        for threads in (1, 4)
    }


SPEEDUPS_DIFFER = 1.25
"""How much wider the interval is for a number of threads without rows. A judgement, not a fit."""


def _of_another_runtime(fit: Fit) -> Fit:
    def wide(spreads: Mapping[str, Spread]) -> dict[str, Spread]:
        return {key: estimate_fit.wider(s, estimate_fit.CROSS_RUNTIME) for key, s in spreads.items()}

    return replace(
        fit,
        spread=wide(fit.spread),
        operators_spread=wide(fit.operators_spread),
        graph_spread=wide(fit.graph_spread),
        caveat=CAVEATS["executorch"],
    )


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
