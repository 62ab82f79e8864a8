"""The stage behind `--search`: one candidate after the other is tried, and the best is kept."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from exporter import files
from exporter.config.request import Request
from exporter.errors import LoweringError, WorkerError
from exporter.pipeline import candidates, predictions, results
from exporter.pipeline.candidates import Candidate, Judge, Measurer, excess
from exporter.pipeline.context import Context, Event, Source
from exporter.pipeline.measure import host_latency
from exporter.pipeline.results import CheckedArtifact
from exporter.quantize.search import Mix
from exporter.records import Latency, MixedPoint, Variant
from exporter.verify import pareto

MARGIN_DB = 0.5
"""A candidate that is expected to miss the quality limit by more is not made."""


@dataclass(frozen=True, eq=False)
class Found:
    """What the search leaves: for each variant the chosen candidate's artifact in OUT; and all points."""

    built: tuple[results.Built, ...] = ()
    checked: Mapping[str, CheckedArtifact] = field(default_factory=dict)
    latencies: Mapping[str, Latency] = field(default_factory=dict)
    points: tuple[MixedPoint, ...] = ()
    warnings: tuple[str, ...] = ()
    answers: predictions.Answers = field(default_factory=predictions.Answers)
    """To the labelled samples, where there are some; the chosen artifacts' among them."""


def search(
    context: Context,
    source: Source,
    built: Sequence[results.Built],
    checked: Mapping[str, CheckedArtifact],
    latencies: Mapping[str, Latency],
    labels: results.Labels | None = None,
    measure: Measurer | None = None,
) -> Found:
    """Keep the fewest, cheapest operators in float so that the quality limits are met.

    Candidates become artifacts of every runtime whose int8 does not meet `min_sqnr_db`, the agreement limit
    and, with labelled samples, `max_drop`. A runtime has enough when one met them and the next is no faster.
    Ends early when the time limit is over or at Ctrl-C; the best one so far of each runtime is emitted.

    Args:
        context: Of the run.
        source: The checkpoint.
        built: The int8 artifacts among others, as where the search starts.
        checked: What verification found of them.
        latencies: Of them, on this host.
        labels: Of the labelled samples; None when there are none.
        measure: What times int8 and the candidates; this host's runtimes when None.
    """
    mixed = [variant for variant in context.variants if variant.precision == "mixed"]
    judge = Judge(context, source, labels, measure)
    known, int8 = _of_int8(judge, built, checked, latencies)
    enough = {point.variant.removesuffix("int8") for point in int8 if point.passed}
    wanted = [variant for variant in mixed if variant.name.removesuffix("mixed") not in enough]
    tried, why = _tried(judge, wanted, known, int8)
    best = {v.name: one for v in wanted if (one := _best(context.request, tried, v.name)) is not None}
    warnings = (
        *(_needless(context.request, variant.name) for variant in mixed if variant not in wanted),
        *(
            _unmet(context.request, v.name, best.get(v.name), why)
            for v in wanted
            if v.name not in best or not best[v.name].passed(v.name)
        ),
    )
    for name, one in best.items():
        _emit(context, one, name)
    tried_points = [replace(p, chosen=best.get(p.variant) is one) for one in tried for p in one.points]
    return Found(
        tuple(one.artifact(name) for name, one in best.items()),
        {name: one.checked[name] for name, one in best.items()},
        _on_this_host(judge, best),
        (*int8, *tried_points),
        warnings,
        predictions.merged(known, {name: one.answers for name, one in best.items()}),
    )


def _of_int8(
    judge: Judge,
    built: Sequence[results.Built],
    checked: Mapping[str, CheckedArtifact],
    latencies: Mapping[str, Latency],
) -> tuple[predictions.Answers, tuple[MixedPoint, ...]]:
    """Where the search starts: answers to the labelled samples, and the points of what is all in int8."""
    out = judge.context.folders.out
    whole = [item for item in built if item.variant.precision == "int8" and item.variant.suffix != ".ort"]
    known = judge.answers(out, whole, checked, predictions.Answers())
    if judge.measure is not None:
        latencies = judge.latencies(out, whole, checked)
    return known, judge.points(out, whole, checked, latencies, known, ())


def _tried(
    judge: Judge, variants: Sequence[Variant], known: predictions.Answers, int8: Sequence[MixedPoint]
) -> tuple[list[Candidate], str]:
    """Candidate by candidate; and why it ended early, or has none, else an empty string."""
    context, started = judge.context, time.monotonic()
    tried: list[Candidate] = []
    if not variants:
        return tried, ""
    try:
        mixes = promising(candidates.mixes(context, judge.source), int8, context.request.min_sqnr_db)
        for number, mix in enumerate(mixes):
            missing = [v for v in variants if not _has_enough(tried, v.name)]
            if not missing:
                break
            if time.monotonic() - started >= context.request.time_limit_s:
                return tried, "its time was over (--time-limit)"
            context.observer(Event("search", _so_far((*int8, *_points(tried))), number, len(mixes)))
            tried.append(candidates.make(judge, missing, known, mix.kept, number))
    except (LoweringError, WorkerError) as error:
        return tried, str(error).rstrip(".")
    except KeyboardInterrupt:
        return tried, "it was interrupted"
    return tried, "" if mixes else "the network has too few operators in int8"


def _points(tried: Sequence[Candidate]) -> list[MixedPoint]:
    return [point for one in tried for point in one.points]


def _has_enough(tried: Sequence[Candidate], name: str) -> bool:
    """One is good enough, and one more in float was not faster."""
    made = [one for one in tried if any(item.variant.name == name for item in one.built)]
    fastest = _fastest(made, name)
    return fastest is not None and fastest is not made[-1]


def _fastest(tried: Sequence[Candidate], name: str) -> Candidate | None:
    """Of those whose artifact of that name is good enough."""
    timed = [(point.p50_ms, one) for one in tried if (point := one.point(name)) and point.passed]
    return min(timed, key=lambda pair: pair[0])[1] if timed else None


def _on_this_host(judge: Judge, best: Mapping[str, Candidate]) -> dict[str, Latency]:
    """What is emitted is timed here too, whoever timed the candidates."""
    if judge.measure is None:
        return {name: one.latencies[name] for name, one in best.items()}
    found: dict[str, Latency] = {}
    for name, one in best.items():
        item = one.artifact(name)
        latency = host_latency(judge.context, one.folder / str(item.file), item.variant)
        found |= {name: latency} if latency is not None else {}
    return found


def promising(mixes: Sequence[Mix], int8: Sequence[MixedPoint], min_sqnr_db: float) -> tuple[Mix, ...]:
    """Without those before the first that may reach the limit; the last one if none may.

    Args:
        mixes: The fewest operators in float first.
        int8: Points of all in int8; nothing is left out without one.
        min_sqnr_db: The limit.
    """
    start = min((point.sqnr_db for point in int8), default=math.inf)
    few = [mix for mix in mixes if start + mix.gain_db >= min_sqnr_db - MARGIN_DB]
    return tuple(few or mixes[-1:])


def _best(request: Request, tried: Sequence[Candidate], name: str) -> Candidate | None:
    """The fastest whose artifact of that name is good enough; failing that, the nearest.

    What loses too much on labelled samples fails and cannot be shipped, so that counts before decibels.
    """
    if (fastest := _fastest(tried, name)) is not None:
        return fastest
    near = [(point, one) for one in tried if (point := one.point(name)) is not None]
    _, best = max(
        near, key=lambda pair: (-excess(request, pair[0].drop), pair[0].sqnr_db), default=(None, None)
    )
    return best


def _emit(context: Context, best: Candidate, name: str) -> None:
    for file in (str(best.artifact(name).file), files.lowering_file("mixed", name)):
        shutil.copy2(best.folder / file, context.folders.out / file)


def _so_far(points: Sequence[MixedPoint]) -> str:
    """The front in words, runtime by runtime: how many operators in float, dB, ms."""
    fronts = {name: pareto.on_front(own) for name, own in pareto.series(points).items()}
    words = {
        name: ", ".join(f"{len(p.kept)} in float {p.sqnr_db:.1f} dB {p.p50_ms:.3g} ms" for p in front)
        for name, front in fronts.items()
    }
    return "; ".join(f"{name}: {said}" for name, said in words.items()) or "nothing was measured yet"


def _wanted(request: Request) -> str:
    words = f"{request.min_sqnr_db:g} dB and the agreement limit"
    return words + (f" with at most {request.max_drop:g} points of top-1 lost" if request.evaluation else "")


def _needless(request: Request, name: str) -> str:
    return (
        f"{name.removesuffix('mixed')}int8 reaches {_wanted(request)} as it is: nothing needs to stay in "
        f"float, so there is no {name}. A higher --min-sqnr asks for more."
    )


def _unmet(request: Request, name: str, best: Candidate | None, why: str) -> str:
    """What was reached, and why there was not more."""
    point = best.point(name) if best else None
    if point is None:
        return f"The search found no {name} artifact: {why or 'none could be made and timed'}."
    reached = f"reaches {point.sqnr_db:.1f} dB"
    if point.agreement is not None:
        reached += f", {point.agreement:.1%} agreement"
    if request.evaluation:
        lost = point.drop is not None
        reached += f" and loses {point.drop:.2g} points" if lost else " and does not run on labelled samples"
    return (
        f"The search did not reach {_wanted(request)} for {name}: the best keeps {len(point.kept)} operators "
        f"in float and {reached}.{f' It ended early: {why}.' if why else ''}"
    )
