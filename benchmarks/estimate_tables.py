"""Print how far estimates of published latencies are off. `benchmarks/estimate.py` is the program."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence

from benchmarks.estimate_intervals import SHORT_OPERATOR_MS
from benchmarks.estimate_judging import Judged

MOST_OF_FLOPS = 0.5
"""The share of the error of FLOPs alone that an estimate's may have."""


def _kinds(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    """Split rows into whole models by threads, operators, and short operators."""
    kinds: dict[str, list[Judged]] = {}
    for item in judged:
        row = item.row
        name = f"whole models, {row.threads} threads".replace("1 threads", "1 thread")
        if item.basis == "graph":
            name += ", by FLOPs and weights"
        if not row.whole:
            name = "operators, 1 thread" if row.latency_ms >= SHORT_OPERATOR_MS else "operators under 0.5 ms"
        kinds.setdefault(name, []).append(item)
    whole = [item for item in judged if item.row.whole and item.basis != "graph"]
    if len({item.row.threads for item in whole}) > 1:
        kinds["whole models, all"] = whole
    return kinds


def print_errors(groups: Mapping[str, Sequence[Judged]]) -> None:
    """Print a Markdown table: error of estimates and of both baselines, and the intervals' coverage.

    Bold is an error of more than half of that of FLOPs alone.
    """
    print("\n| group | rows | n | mean error | median | FLOPs only | host latency | no less | covered |")
    print("|---|---|---|---|---|---|---|---|---|")
    for group, judged in groups.items():
        for kind, items in _kinds(judged).items():
            errors = [item.error for item in items]
            mean, median = statistics.mean(errors), statistics.median(errors)
            flops = statistics.mean(item.error_of(item.flops_ms) for item in items)
            hosts = [item.error_of(item.host_ms) for item in items if item.host_ms]
            host = f"{statistics.mean(hosts):.0%}" if hosts else ""
            shown = f"{mean:.0%}" if mean <= MOST_OF_FLOPS * flops else f"**{mean:.0%}**"
            covered = coverage_text([item.covered for item in items])
            print(
                f"| {group} | {kind} | {len(items)} | {shown} | {median:.0%} | {flops:.0%} | {host} "
                f"| {_least_error(items)} | {covered} |"
            )
    print()


def coverage_text(held: Sequence[bool]) -> str:
    """Return how many rows their intervals hold, with the exact binomial interval of that share."""
    from scipy import stats

    share = stats.binomtest(sum(held), len(held)).proportion_ci(0.95, method="exact")
    return f"{sum(held)} of {len(held)}, {statistics.mean(held):.0%} ({share.low:.0%} to {share.high:.0%})"


def _cells(items: Sequence[Judged]) -> dict[tuple[str, int], list[float]]:
    """Return (model, threads) -> what was published."""
    cells: dict[tuple[str, int], list[float]] = {}
    for item in items:
        cells.setdefault((item.row.model, item.row.threads), []).append(item.row.latency_ms)
    return cells


def _best_figure(cell: Sequence[float]) -> float:
    """Return the figure with the least sum of relative errors: it is piecewise linear, so a row's is best."""
    return min(cell, key=lambda one: sum(abs(one / each - 1) for each in cell))


def _least_error(items: Sequence[Judged]) -> str:
    """Return the least mean error of predicting each cell by one figure; empty where its rows agree."""
    cells = _cells(items).values()
    if all(len(set(cell)) == 1 for cell in cells):
        return ""
    errors = [abs(_best_figure(cell) / each - 1) for cell in cells for each in cell]
    return f"{statistics.mean(errors):.0%}"


def print_least_errors(items: Sequence[Judged]) -> None:
    """Print a Markdown table, row by row: what no prediction of one figure a cell can go below."""
    print("\n| model | threads | published | best single figure | its errors |\n|---|---|---|---|---|")
    for (model, threads), cell in _cells(items).items():
        best = _best_figure(cell)
        errors = " and ".join(f"{best / each - 1:+.0%}" for each in cell)
        published = " and ".join(f"{each:g}" for each in cell)
        print(f"| {model} | {threads} | {published} ms | {best:g} ms | {errors} |")
    print(f"\nTheir mean: {_least_error(items)}.\n")


def print_residuals(groups: Mapping[str, Sequence[Judged]]) -> None:
    """Print every whole model of the counted runtimes: published, predicted and the error."""
    print("\n| model | precision | threads | published | estimated | error |\n|---|---|---|---|---|---|")
    for judged in groups.values():
        for item in judged:
            if item.row.whole and not item.row.flops:
                row, error = item.row, item.predicted_ms / item.row.latency_ms - 1
                print(
                    f"| {row.model} | {row.precision} | {row.threads} | {row.latency_ms:g} ms "
                    f"| {item.predicted_ms:.3g} ms | {error:+.0%} |"
                )


def print_rankings(groups: Mapping[str, Sequence[Judged]]) -> None:
    """Print a Markdown table: how often the faster of two is told, by estimates and by both baselines."""
    print("\n| compared | pairs | estimate | FLOPs only | host latency |\n|---|---|---|---|---|")
    every = [item for items in groups.values() for item in items if item.row.whole]
    for name, items in groups.items():
        for threads in sorted({item.row.threads for item in items}):
            same = [item for item in items if item.row.whole and item.row.threads == threads]
            pairs = [pair for pair in itertools.combinations(same, 2) if _differ(*pair)]
            if pairs:
                _print_ranking(f"models in {name}, {threads} threads", pairs)
    artifacts = [
        (one, other)
        for one, other in itertools.combinations(every, 2)
        if (one.row.runtime, one.row.precision) != (other.row.runtime, other.row.precision)
        and ARTIFACTS.get(one.row.model, one.row.model) == ARTIFACTS.get(other.row.model, other.row.model)
        and one.row.threads == other.row.threads
    ]
    for (model, threads), same_model in itertools.groupby(
        sorted(artifacts, key=_ranked_model), key=_ranked_model
    ):
        _print_ranking(f"artifacts of {model}, {threads} threads", list(same_model))


ARTIFACTS = {"mobilenetv2_w1": "MobileNetV2", "squeezenet_v1_1": "SqueezeNet-1.1", "resnet18": "ResNet18"}
"""A model's name in one table -> its name in the other."""


def _ranked_model(pair: tuple[Judged, Judged]) -> tuple[str, int]:
    return ARTIFACTS.get(pair[0].row.model, pair[0].row.model), pair[0].row.threads


def _differ(one: Judged, other: Judged) -> bool:
    return one.row.model != other.row.model and one.row.latency_ms != other.row.latency_ms


def _print_ranking(name: str, pairs: Sequence[tuple[Judged, Judged]]) -> None:
    def right(latency: Callable[[Judged], float | None]) -> str:
        known = [(a, b) for a, b in pairs if latency(a) and latency(b)]
        if not known:
            return ""
        told = [
            (a.row.latency_ms < b.row.latency_ms) == ((latency(a) or 0.0) < (latency(b) or 0.0))
            for a, b in known
        ]
        return f"{sum(told)} of {len(told)}"

    estimate, flops = right(lambda item: item.predicted_ms), right(lambda item: item.flops_ms)
    print(f"| {name} | {len(pairs)} | {estimate} | {flops} | {right(lambda item: item.host_raw_ms)} |")
