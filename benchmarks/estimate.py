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
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks import (
    estimate_anchors,
    estimate_chips,
    estimate_costs,
    estimate_fit,
    estimate_forms,
    estimate_gathering,
    estimate_intervals,
    estimate_judging,
    estimate_rows,
    estimate_small_cores,
    estimate_tables,
)
from benchmarks.estimate_fit import Subject
from benchmarks.estimate_judging import row_key
from benchmarks.estimate_rows import Row
from exporter.estimate import latency_model, parameters
from exporter.estimate.parameters import Parameters, SmallCore

CAVEATS = {
    "executorch": "No latency of ExecuTorch on a Snapdragon 865 is published: its costs are those of ONNX "
    "Runtime, and the interval carries the factor of 1.68 by which nine of ten networks differ between "
    "runtimes at most.",
    "torchscript": "Nothing is counted for PyTorch Mobile: the operators of 169 networks on a Pixel 4 "
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
    works, hosts = estimate_gathering.gathered_works(rows, options.counts, options.counted)
    subjects = [Subject(row, works[key]) for row in rows if (key := row_key(row)) in works]
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
        judged[split] = {
            name: estimate_judging.judge_group(groups[name], speedups[name], hosts, split) for name in groups
        }
        estimate_tables.print_errors(judged[split])
    print("Leaving out one model at a time, without QEMU:")
    uncounted = {
        name: estimate_judging.judge_group(
            [s for s in group if s.work.graph], speedups[name], hosts, "model", "operators"
        )
        for name, group in groups.items()
    }
    estimate_tables.print_errors(uncounted)
    print("Costs that were tried, by the mean error of rows whose model was left out (float32, one thread):")
    counted = groups["onnxruntime fp32"]
    kept = json.loads(options.counts.read_text())
    missed = {s.row.model: graph for s in counted if (graph := kept[row_key(s.row)].get("graph"))}
    estimate_costs.print_tried_costs(counted, missed)
    print("Rows that contradict each other:")
    for line in estimate_rows.contradictions(rows):
        print(f"  {line}")
    print("What these allow at best, one figure a model and number of threads, chosen with the rows known:")
    estimate_tables.print_least_errors([j for j in judged["model"]["onnxruntime fp32"] if j.row.whole])
    print("Four threads in float32, by the speedup of multiply-adds and loads that is taken for it:")
    estimate_costs.print_tried_speedups(counted)
    print("The same with the faster of contradicting rows alone in the fit, as interference only slows:")
    estimate_costs.print_faster_rows(counted, speedups["onnxruntime fp32"])
    print("\nWhole models, predicted without their own rows:")
    estimate_tables.print_residuals(judged["model"])
    print("\nRows of other files than the counted ones, in no fit:")
    for subject in (s for s in subjects if _foreign(s.row)):
        fit = estimate_fit.fit_runtime(groups[_group(subject.row)], speedups[_group(subject.row)])
        figures = f"published {subject.row.latency_ms:g} ms, estimated "
        figures += f"{estimate_fit.predicted_ms(subject, fit):.3g} ms"
        print(f"  {row_key(subject.row)}: {figures}: {_foreign(subject.row)}")
    print("\nRankings of whole models that are not of one latency, predicted without their own rows:")
    estimate_tables.print_rankings(judged["model"])
    described = {s.row.model: s.work for s in subjects if s.row.flops}
    print("Costs of graphs that were tried, on a Pixel 4's fastest core, networks being left out:")
    estimate_forms.print_tried_forms(options.rows, described)
    print("On the small cores, predicted without their own model:")
    small = estimate_small_cores.fitted_small_cores(options.rows, described)
    print("How much faster a Snapdragon 8 Gen 2 is than an 855+ (ncnn):")
    estimate_chips.print_chips(options.rows)
    print("What a phone's own measurements do (--learn), on rows that the fit has not seen:")
    estimate_anchors.print_anchors(options.rows, described)
    if options.fit:
        write_parameters(groups, speedups, small)


def judge_held_out(paths: Sequence[Path], kept: Path, counted: bool) -> None:
    """Print rows beside the estimates, with their intervals, of the package's own parameters."""
    rows = estimate_rows.read_rows(paths, ())
    works, _ = estimate_gathering.gathered_works(rows, kept, counted)
    shipped, errors, held = parameters.load_parameters(), list[float](), 0
    print("| row | threads | published | estimated | error |\n|---|---|---|---|---|")
    for row in rows:
        fit = shipped.fits.get(_group(row))
        if row_key(row) not in works or not fit or row.threads not in latency_model.THREADS:
            continue
        estimate = latency_model.estimate_by_latency_model(
            works[row_key(row)], estimate_fit.REFERENCE, shipped, fit,
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


def write_parameters(
    groups: Mapping[str, Sequence[Subject]],
    speedups: Mapping[str, float],
    small: Mapping[str, SmallCore],
) -> None:
    """Fit all rows and write the parameters with their intervals."""
    fits = {}
    for name, group in groups.items():
        runtime, precision = name.split()
        caveat = CAVEATS.get(runtime, "") or CAVEATS.get(precision, "")
        fits[name] = estimate_intervals.fit_with_intervals(group, speedups[name], caveat)
        if runtime == "onnxruntime":
            fits[f"executorch {precision}"] = estimate_intervals.intervals_of_another_runtime(
                fits[name], CAVEATS["executorch"]
            )
    cores = {name: {estimate_small_cores.CORE: core} for name, core in small.items()}
    fits = {name: replace(fit, small=cores.get(name, {})) for name, fit in fits.items()}
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


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
