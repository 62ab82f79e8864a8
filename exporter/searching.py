"""The stage behind `--search`: one candidate after the other is tried, and the best is kept."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from exporter import answering, candidates, jobs, predict
from exporter.candidates import Candidate, Judge, Measurer, excess
from exporter.context import Context, Event, Source
from exporter.quantize.search import Mix
from exporter.records import Latency, MixedPoint
from exporter.request import Request
from exporter.stages import CheckedArtifact

MARGIN_DB = 0.5
"""A candidate that is expected to miss the quality limit by more is not made."""


@dataclass(frozen=True, eq=False)
class Found:
    """What the search leaves: for each variant the chosen candidate's artifact in OUT; and all points."""

    built: tuple[jobs.Built, ...] = ()
    checked: Mapping[str, CheckedArtifact] = field(default_factory=dict)
    latencies: Mapping[str, Latency] = field(default_factory=dict)
    points: tuple[MixedPoint, ...] = ()
    warnings: tuple[str, ...] = ()
    answers: answering.Answers = field(default_factory=answering.Answers)
    """To the labelled samples, where there are some; the chosen artifacts' among them."""


def search(
    context: Context,
    source: Source,
    built: Sequence[jobs.Built],
    checked: Mapping[str, CheckedArtifact],
    latencies: Mapping[str, Latency],
    labels: predict.Labels | None = None,
    measure: Measurer | None = None,
) -> Found:
    """Keep the fewest, cheapest operators in float so that the quality limits are met.

    Candidates become artifacts of every runtime that has none yet which meets `min_sqnr_db`, the agreement
    limit and, with labelled samples, `max_drop`. Ends when each has one, when the time limit is over, or at
    Ctrl-C; the best one so far of each is emitted.

    Args:
        context: Of the run.
        source: The checkpoint.
        built: The int8 artifacts among others, as where the search starts.
        checked: What verification found of them.
        latencies: Of them, on this host.
        labels: Of the labelled samples; None when there are none.
        measure: What times candidates; this host's runtimes when None.
    """
    variants = [variant for variant in context.variants if variant.precision == "mixed"]
    started = time.monotonic()
    judge = Judge(context, source, labels, measure)
    whole = [item for item in built if item.variant.precision == "int8" and item.variant.suffix != ".ort"]
    known = judge.answers(context.folders.out, whole, checked, answering.Answers())
    points = list(judge.points(context.folders.out, whole, checked, latencies, known, ()))
    tried: list[Candidate] = []
    mixes: tuple[Mix, ...] = ()
    try:
        mixes = promising(candidates.mixes(context, source), points, context.request.min_sqnr_db)
        for number, mix in enumerate(mixes):
            missing = [v for v in variants if not any(one.passed(v.name) for one in tried)]
            if not missing or time.monotonic() - started > context.request.time_limit_s:
                break
            context.observer(Event("search", _so_far(points, tried), number, len(mixes)))
            tried.append(candidates.make(judge, missing, known, mix.kept, number))
    except KeyboardInterrupt:
        if not tried:
            raise
    best = {v.name: one for v in variants if (one := _best(context.request, tried, v.name)) is not None}
    points += [replace(p, chosen=best.get(p.variant) is one) for one in tried for p in one.points]
    warnings = tuple(
        _unmet(context.request, v.name, best.get(v.name), len(mixes) - len(tried))
        for v in variants
        if v.name not in best or not best[v.name].passed(v.name)
    )
    for name, one in best.items():
        _emit(context, one, name)
    return Found(
        tuple(item for name, one in best.items() for item in one.built if item.variant.name == name),
        {name: one.checked[name] for name, one in best.items()},
        {name: one.latencies[name] for name, one in best.items()},
        tuple(points),
        warnings,
        answering.merged(known, {name: one.answers for name, one in best.items()}),
    )


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
    """Whose artifact of that name passed, after which no other was made; failing that, the nearest.

    What loses too much on labelled samples fails and cannot be shipped, so that counts before decibels.
    """
    found = [(point, one) for one in tried if (point := one.point(name)) is not None]
    _, best = max(
        found,
        key=lambda pair: (pair[0].passed, -excess(request, pair[0].drop), pair[0].sqnr_db),
        default=(None, None),
    )
    return best


def _emit(context: Context, best: Candidate, name: str) -> None:
    for item in best.built:
        if item.variant.name == name and item.file:
            shutil.copy2(best.folder / item.file, context.folders.out / item.file)
    lowering = jobs.lowering_file("mixed", name)
    shutil.copy2(best.folder / lowering, context.folders.out / lowering)


def _so_far(points: Sequence[MixedPoint], tried: Sequence[Candidate]) -> str:
    """The front in words: how many operators in float, dB, ms."""
    latest = [*points, *(point for one in tried for point in one.points)]
    words = [f"{len(p.kept)} in float {p.sqnr_db:.1f} dB {p.p50_ms:.3g} ms" for p in latest]
    return "; ".join(words) or "measuring what each activation costs"


def _unmet(request: Request, name: str, best: Candidate | None, left: int) -> str:
    """With a word on the time limit where it left some candidates untried."""
    point = best.point(name) if best else None
    if point is None:
        return f"The search found no {name} artifact."
    wanted = f"{request.min_sqnr_db:g} dB and the agreement limit"
    reached = f"reaches {point.sqnr_db:.1f} dB"
    if point.agreement is not None:
        reached += f", {point.agreement:.1%} agreement"
    if request.evaluation:
        wanted += f" with at most {request.max_drop:g} points of top-1 lost"
        lost = point.drop is not None
        reached += f" and loses {point.drop:.2g} points" if lost else " and does not run on labelled samples"
    return (
        f"The search did not reach {wanted} for {name}{' within its time' if left else ''}: the best "
        f"keeps {len(point.kept)} operators in float and {reached}.{' See --time-limit.' if left else ''}"
    )
