"""Print how far estimates of published latencies are off. `benchmarks/estimate.py` is the program."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import estimate_fit
from benchmarks.estimate_rows import Row

SHORT_OPERATOR_MS = 0.5
"""Single operators below are judged apart: their published latencies are mostly noise."""


@dataclass(frozen=True)
class Judged:
    """A row with what it was predicted as by fits that had not seen it."""

    row: Row
    predicted_ms: float
    flops_ms: float
    host_ms: float | None
    """The host's latency times the factor that fits the other rows best; None where it was not timed."""
    host_raw_ms: float | None = None
    basis: str = "counts"
    """What it was predicted from: one of `estimate_fit.BASES`."""

    @property
    def miss(self) -> float:
        return math.log(self.row.latency_ms / self.predicted_ms)


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
    return kinds


def print_errors(groups: Mapping[str, Sequence[Judged]], by_model: Mapping[str, Sequence[Judged]]) -> None:
    """Print a Markdown table: error of estimates and of both baselines, and the intervals' coverage."""
    print("\n| group | rows | n | mean error | median | FLOPs only | host latency | no less | covered |")
    print("|---|---|---|---|---|---|---|---|---|")
    for group, judged in groups.items():
        for kind, items in _kinds(judged).items():
            errors = [_error(item.predicted_ms, item) for item in items]
            mean, median = statistics.mean(errors), statistics.median(errors)
            flops = statistics.mean(_error(item.flops_ms, item) for item in items)
            hosts = [_error(item.host_ms, item) for item in items if item.host_ms]
            host = f"{statistics.mean(hosts):.0%}" if hosts else ""
            covered = _coverage(items, by_model[group]) if items[0].row.whole else ""
            print(
                f"| {group} | {kind} | {len(items)} | {mean:.0%} | {median:.0%} | {flops:.0%} | {host} "
                f"| {_least_error(items)} | {covered} |"
            )
    print()


def _least_error(items: Sequence[Judged]) -> str:
    """Return the least mean error of predicting each cell by one figure; empty where its rows agree."""
    cells: dict[str, list[float]] = {}
    for item in items:
        cells.setdefault(item.row.model, []).append(item.row.latency_ms)
    if all(len(set(cell)) == 1 for cell in cells.values()):
        return ""
    # The error of one figure is piecewise linear in it, so that one of the latencies is best.
    sums = [min(sum(abs(one / each - 1) for each in cell) for one in cell) for cell in cells.values()]
    return f"{sum(sums) / len(items):.0%}"


def _error(predicted_ms: float, item: Judged) -> float:
    return abs(predicted_ms / item.row.latency_ms - 1)


def _coverage(items: Sequence[Judged], calibration: Sequence[Judged]) -> str:
    """Return how many rows are within intervals that follow from the other models' misses."""
    held = []
    for item in items:
        alike = [j for j in calibration if j.row.whole and j.basis == item.basis]
        others = [j.miss for j in alike if j.row.model != item.row.model]
        if others:
            held.append(abs(item.miss) <= math.log(estimate_fit.conformal_factor(others).factor) + 1e-9)
    return f"{sum(held)} of {len(held)}, {statistics.mean(held):.0%}" if held else ""


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
