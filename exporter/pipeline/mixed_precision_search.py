"""The search stage (`--search`): tries candidate after candidate and emits the best."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from exporter import files
from exporter.config.request import Request
from exporter.errors import LoweringError, WorkerError
from exporter.pipeline import (
    labelled_predictions,
    mixed_precision_candidates,
    search_evidence,
    stage_results,
    verify_stage,
)
from exporter.pipeline.context import Context, Event, Source
from exporter.pipeline.host_latency import File
from exporter.pipeline.mixed_precision_candidates import (
    CandidateJudge,
    Measurer,
    MixedCandidate,
    excess_of_mixed_precision_candidate,
)
from exporter.pipeline.stage_results import CheckedArtifactResult
from exporter.quantize.operator_ranking import RankedMix
from exporter.records import Latency, MixedPoint, Variant
from exporter.verify import pareto

MARGIN_DB = 0.5
"""A candidate that is expected to miss the quality limit by more is not made."""


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The result of a search: for each variant the chosen candidate's artifact in OUT; and all points."""

    built: tuple[stage_results.BuildResult, ...] = ()
    checked: Mapping[str, CheckedArtifactResult] = field(default_factory=dict)
    points: tuple[MixedPoint, ...] = ()
    warnings: tuple[str, ...] = ()
    answers: labelled_predictions.ArtifactPredictions = field(
        default_factory=labelled_predictions.ArtifactPredictions
    )
    """Predictions for the labelled samples, where there are any; the chosen artifacts' are among them."""


def search_mixed_precision(
    context: Context,
    source: Source,
    built: Sequence[stage_results.BuildResult],
    checked: Mapping[str, CheckedArtifactResult],
    latencies: Mapping[str, Latency],
    labels: stage_results.LabelsResult | None = None,
    measure: Measurer | None = None,
) -> SearchResult:
    """Keep the fewest, cheapest operators in float so that the quality limits are met.

    Candidates become artifacts of every runtime whose int8 does not meet `min_sqnr_db`, the agreement limit
    and, with labelled samples, `max_drop`. A runtime has enough when one met them and the next is no faster.
    Ends early when the time limit is over or at Ctrl-C; the best one so far of each runtime is emitted.

    Args:
        context: The run.
        source: The checkpoint.
        built: The artifacts so far; the search starts from the int8 ones.
        checked: Their verdicts.
        latencies: Their latencies on this host.
        labels: The labelled samples; None when there are none.
        measure: Times int8 and the candidates; this host's runtimes when None.
    """
    mixed = [variant for variant in context.variants if variant.precision == "mixed"]
    judge = CandidateJudge(context, source, labels, measure)
    existing, int8 = _int8_before_precision_search(judge, built, checked, latencies)
    judge = replace(judge, bases=_bases_of_precision_search(context, built, latencies))
    enough = {point.variant.removesuffix("int8") for point in int8 if point.passed}
    wanted = [variant for variant in mixed if variant.name.removesuffix("mixed") not in enough]
    tried, why = _precision_search_candidates(judge, wanted, existing, int8)
    tried = _time_precision_search_finalists_together(judge, tried, wanted)
    best = {
        v.name: candidate
        for v in wanted
        if (candidate := _best_of_precision_search(context.request, tried, v.name)) is not None
    }
    warnings = (
        *(
            _needless_precision_search(context.request, variant.name)
            for variant in mixed
            if variant not in wanted
        ),
        *(
            _unmet_by_precision_search(context.request, v.name, best.get(v.name), why)
            for v in wanted
            if v.name not in best or not best[v.name].passed(v.name)
        ),
    )
    for name, candidate in best.items():
        _emit_of_precision_search(context, candidate, name)
    checked_again = _judge_in_precision_search(judge, best)
    tried_points = [
        replace(p, chosen=best.get(p.variant) is candidate) for candidate in tried for p in candidate.points
    ]
    return SearchResult(
        tuple(candidate.artifact(name) for name, candidate in best.items()),
        checked_again,
        (*int8, *tried_points),
        warnings,
        labelled_predictions.merge_labelled_predictions(
            existing, {name: candidate.answers for name, candidate in best.items()}
        ),
    )


def _int8_before_precision_search(
    judge: CandidateJudge,
    built: Sequence[stage_results.BuildResult],
    checked: Mapping[str, CheckedArtifactResult],
    latencies: Mapping[str, Latency],
) -> tuple[labelled_predictions.ArtifactPredictions, tuple[MixedPoint, ...]]:
    """Return where the search starts: predictions for the labelled samples, and the points of int8."""
    out = judge.context.folders.out
    whole = [item for item in built if item.variant.precision == "int8" and item.variant.suffix != ".ort"]
    existing = judge.answers(out, whole, checked, labelled_predictions.ArtifactPredictions())
    if judge.measure is not None:
        latencies = judge.latencies(out, whole, checked)
    ran = stage_results.stage_results_run_here(whole, checked)
    by_choice = {**checked, **search_evidence.check_int8_on_search_evidence(judge.context, judge.source, ran)}
    return existing, judge.points(out, whole, by_choice, latencies, existing, ())


def _precision_search_candidates(
    judge: CandidateJudge,
    variants: Sequence[Variant],
    existing: labelled_predictions.ArtifactPredictions,
    int8: Sequence[MixedPoint],
) -> tuple[list[MixedCandidate], str]:
    """Try candidate by candidate; return them, and why the search ended early or has none, else ""."""
    context, started = judge.context, time.monotonic()
    tried: list[MixedCandidate] = []
    if not variants:
        return tried, ""
    try:
        mixes = promising_for_precision_search(
            mixed_precision_candidates.mixes_for_mixed_precision_candidates(context, judge.source),
            int8,
            context.request.min_sqnr_db,
        )
        for number, mix in enumerate(mixes):
            missing = [v for v in variants if not _has_precision_search_enough(tried, v.name)]
            if not missing:
                break
            if time.monotonic() - started >= context.request.time_limit_s:
                return tried, "its time was over (--time-limit)"
            context.observer(
                Event(
                    "search",
                    _precision_search_so_far((*int8, *_points_of_precision_search(tried))),
                    number,
                    len(mixes),
                )
            )
            tried.append(
                mixed_precision_candidates.make_mixed_precision_candidate(
                    judge, missing, existing, mix.float_ops, number
                )
            )
    except (LoweringError, WorkerError) as error:
        return tried, str(error).rstrip(".")
    except KeyboardInterrupt:
        return tried, "it was interrupted"
    return tried, "" if mixes else "the network has too few operators in int8"


def _points_of_precision_search(tried: Sequence[MixedCandidate]) -> list[MixedPoint]:
    return [point for candidate in tried for point in candidate.points]


def _has_precision_search_enough(tried: Sequence[MixedCandidate], name: str) -> bool:
    """Tell whether one is good enough, and the next with more in float was not faster."""
    own = [candidate for candidate in tried if any(item.variant.name == name for item in candidate.built)]
    fastest = _fastest_of_precision_search(own, name)
    return fastest is not None and fastest is not own[-1]


def _fastest_of_precision_search(tried: Sequence[MixedCandidate], name: str) -> MixedCandidate | None:
    """Return the fastest of those whose artifact of that name is good enough."""
    timed = [
        (point.p50_ms, candidate) for candidate in tried if (point := candidate.point(name)) and point.passed
    ]
    return min(timed, key=lambda pair: pair[0])[1] if timed else None


def _bases_of_precision_search(
    context: Context, built: Sequence[stage_results.BuildResult], latencies: Mapping[str, Latency]
) -> dict[str, tuple[File, Latency]]:
    return {
        item.variant.format: (
            (context.folders.out / str(item.file), item.variant),
            latencies[item.variant.name],
        )
        for item in built
        if item.variant.precision == "int8"
        and item.variant.suffix != ".ort"
        and item.variant.name in latencies
    }


def _time_precision_search_finalists_together(
    judge: CandidateJudge, tried: Sequence[MixedCandidate], variants: Sequence[Variant]
) -> list[MixedCandidate]:
    """Time the finalists of each runtime, those that are good enough, once more and in turn.

    Each was timed beside int8 when it was made, under that minute's load.
    """
    candidates_now = list(tried)
    for variant in variants if judge.measure is None else ():
        finalists = [
            place for place, candidate in enumerate(candidates_now) if candidate.passed(variant.name)
        ]
        if len(finalists) < 2:
            continue
        files = [candidates_now[place].file(variant.name) for place in finalists]
        for place, latency in zip(finalists, judge.beside_int8(files), strict=True):
            if latency is not None:
                candidates_now[place] = candidates_now[place].timed(variant.name, latency)
    return candidates_now


def promising_for_precision_search(
    mixes: Sequence[RankedMix], int8: Sequence[MixedPoint], min_sqnr_db: float
) -> tuple[RankedMix, ...]:
    """Leave out mixes before the first that may reach the limit; the last one stays if none may.

    Args:
        mixes: The fewest operators in float first.
        int8: Points of all in int8; nothing is left out without one.
        min_sqnr_db: The limit.
    """
    start = min((point.sqnr_db for point in int8), default=math.inf)
    few = [mix for mix in mixes if start + mix.gain_db >= min_sqnr_db - MARGIN_DB]
    return tuple(few or mixes[-1:])


def _best_of_precision_search(
    request: Request, tried: Sequence[MixedCandidate], name: str
) -> MixedCandidate | None:
    """Return the fastest whose artifact of that name is good enough; failing that, the nearest.

    What loses too much on labelled samples fails and cannot be shipped, so that counts before decibels.
    """
    if (fastest := _fastest_of_precision_search(tried, name)) is not None:
        return fastest
    near = [(point, candidate) for candidate in tried if (point := candidate.point(name)) is not None]
    _, best = max(
        near,
        key=lambda pair: (-excess_of_mixed_precision_candidate(request, pair[0].drop), pair[0].sqnr_db),
        default=(None, None),
    )
    return best


def _emit_of_precision_search(context: Context, best: MixedCandidate, name: str) -> None:
    out = context.folders.out
    shutil.copy2(best.folder / str(best.artifact(name).file), out)
    shutil.copy2(
        best.folder / mixed_precision_candidates.lowering_file_of_mixed_precision_candidate(name),
        out / files.lowering_file("mixed", name),
    )


def _judge_in_precision_search(
    judge: CandidateJudge, best: Mapping[str, MixedCandidate]
) -> Mapping[str, CheckedArtifactResult]:
    """Judge the chosen artifacts on scenes that did not choose them; by name."""
    context = judge.context
    artifacts = [candidate.artifact(name) for name, candidate in best.items()]
    return verify_stage.verify_files_in_stage(
        context.folders.out,
        [(item.variant, str(item.file)) for item in artifacts],
        verify_stage.expected_by_verify_stage(context, judge.source),
        context.run_silently,
        context.cache,
    )


def _precision_search_so_far(points: Sequence[MixedPoint]) -> str:
    """Describe the front in words, runtime by runtime: how many operators in float, dB, ms."""
    fronts = {name: pareto.pareto_front(own) for name, own in pareto.pareto_series(points).items()}
    words = {
        name: ", ".join(f"{len(p.float_ops)} in float {p.sqnr_db:.1f} dB {p.p50_ms:.3g} ms" for p in front)
        for name, front in fronts.items()
    }
    return "; ".join(f"{name}: {line}" for name, line in words.items()) or "nothing was measured yet"


def _wanted_by_precision_search(request: Request) -> str:
    words = f"{request.min_sqnr_db:g} dB and the agreement limit"
    return words + (f" with at most {request.max_drop:g} points of top-1 lost" if request.evaluation else "")


def _needless_precision_search(request: Request, name: str) -> str:
    return (
        f"{name.removesuffix('mixed')}int8 reaches {_wanted_by_precision_search(request)} as it is: "
        f"nothing needs to stay in float, so there is no {name}. A higher --min-sqnr asks for more."
    )


def _unmet_by_precision_search(request: Request, name: str, best: MixedCandidate | None, why: str) -> str:
    """Describe what was reached, and why not more."""
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
        f"The search did not reach {_wanted_by_precision_search(request)} for {name}: "
        f"the best keeps {len(point.float_ops)} operators in float and {reached}."
        f"{f' It ended early: {why}.' if why else ''}"
    )
