"""The stage behind `--search`: candidates become artifacts, are verified and timed, and the best is kept."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from exporter import answering, cache, int8_stage, jobs, predict, quantizing, stages
from exporter.context import Context, Event, Source, preload_of
from exporter.quantize.search import Mix
from exporter.records import Latency, MixedPoint, Variant, Verdict
from exporter.request import Request
from exporter.stages import CheckedArtifact
from exporter.workers import Job, Outcome

MARGIN_DB = 0.5
"""A candidate that is expected to miss the quality limit by more is not made."""

Measurer = Callable[[Path, Variant], Latency | None]
"""Times a file in the runtime that the search is for; None where it cannot."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to keep operators in float, as artifacts of every mixed variant."""

    kept: tuple[str, ...]
    folder: Path
    built: tuple[jobs.Built, ...]
    checked: Mapping[str, CheckedArtifact]
    latencies: Mapping[str, Latency]
    points: tuple[MixedPoint, ...]
    answers: answering.Answers = field(default_factory=answering.Answers)
    """Of its artifacts, of int8's and float32's."""

    def point(self, name: str) -> MixedPoint | None:
        """Of the artifact of that name, if it was made, ran, and was timed."""
        return next((point for point in self.points if point.variant == name), None)

    def passed(self, name: str) -> bool:
        point = self.point(name)
        return point is not None and point.passed


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


@dataclass(frozen=True, eq=False)
class _Judge:
    """What holds for every candidate."""

    context: Context
    source: Source
    labels: predict.Labels | None
    measure: Measurer | None

    def answers(
        self,
        folder: Path,
        built: Sequence[jobs.Built],
        checked: Mapping[str, CheckedArtifact],
        known: answering.Answers,
    ) -> answering.Answers:
        """`known` and what the artifacts in `folder` answer; nothing without labelled samples."""
        if self.labels is None:
            return known
        ran = answering.runnable(built, checked)
        return answering.answer(self.context, self.source, folder, ran, self.run, known)

    def points(
        self,
        folder: Path,
        built: Sequence[jobs.Built],
        checked: Mapping[str, CheckedArtifact],
        latencies: Mapping[str, Latency],
        answers: answering.Answers,
        kept: tuple[str, ...],
    ) -> tuple[MixedPoint, ...]:
        """Of every artifact that ran and was timed."""
        drops = answering.drops(self.labels, answers) if self.labels else {}
        found = []
        for item in answering.runnable(built, checked):
            name = item.variant.name
            verdict, drop = checked[name].verdict, drops.get(name)
            if verdict.comparison is None or name not in latencies:
                continue
            found.append(
                MixedPoint(
                    variant=name,
                    kept=kept,
                    sqnr_db=verdict.comparison.sqnr_db,
                    agreement=verdict.comparison.agreement,
                    p50_ms=latencies[name].p50_ms,
                    size_bytes=(folder / str(item.file)).stat().st_size,
                    passed=good_enough(self.context.request, verdict, drop),
                    drop=drop,
                )
            )
        return tuple(found)

    def time(self, path: Path, variant: Variant) -> Latency | None:
        if self.measure:
            return self.measure(path, variant)
        return stages.host_latency(self.context, path, variant)

    def run(self, _: str, work: Sequence[Job], on_outcome: Callable[[Outcome], None]) -> list[Outcome]:
        """Without a word to the observer, who is told of candidates."""
        return self.context.workers.run(work, None, on_outcome)


def good_enough(request: Request, verdict: Verdict, drop: float | None) -> bool:
    """Whether an artifact reaches every limit that the search was given.

    Args:
        request: With the limits; its labelled samples bound what may be lost.
        verdict: The artifact's.
        drop: Points of top-1 that it lost on the labelled samples; None where it gave no answers.
    """
    found = verdict.comparison
    if verdict.status != "passed" or found is None:
        return False
    agrees = found.agreement is None or found.agreement >= request.limits.int8_min_agreement
    return found.sqnr_db >= request.min_sqnr_db and agrees and excess(request, drop) <= 0


def excess(request: Request, drop: float | None) -> float:
    """Points of top-1 lost beyond what may be lost; 0 without labelled samples."""
    if request.evaluation is None:
        return 0.0
    return math.inf if drop is None else max(0.0, drop - request.max_drop)


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
        source: With the captured model.
        built: The int8 artifacts among others, as where the search starts.
        checked: What verification found of them.
        latencies: Of them, on this host.
        labels: Of the labelled samples; None when there are none.
        measure: What times candidates; this host's runtimes when None.
    """
    variants = [variant for variant in context.variants if variant.precision == "mixed"]
    started = time.monotonic()
    source = stages.captured(context, source)
    judge = _Judge(context, source, labels, measure)
    whole = [item for item in built if item.variant.precision == "int8" and item.variant.suffix != ".ort"]
    known = judge.answers(context.folders.out, whole, checked, answering.Answers())
    points = list(judge.points(context.folders.out, whole, checked, latencies, known, ()))
    tried: list[Candidate] = []
    mixes: tuple[Mix, ...] = ()
    try:
        int8_stage.ensure(context)
        mixes = promising(_mixes(context), points, context.request.min_sqnr_db)
        for number, mix in enumerate(mixes):
            missing = [v for v in variants if not any(one.passed(v.name) for one in tried)]
            if not missing or time.monotonic() - started > context.request.time_limit_s:
                break
            context.observer(Event("search", _so_far(points, tried), number, len(mixes)))
            tried.append(_candidate(judge, missing, known, mix.kept, number))
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


def _mixes(context: Context) -> tuple[Mix, ...]:
    job = Job(
        "what each activation costs",
        quantizing.mixed_candidates,
        (context.folders.work,),
        preload=int8_stage.QUANTIZERS,
    )
    (outcome,) = context.workers.run([job])
    found: tuple[Mix, ...] = outcome.result()
    return found


def _candidate(
    judge: _Judge,
    variants: Sequence[Variant],
    known: answering.Answers,
    kept: tuple[str, ...],
    number: int,
) -> Candidate:
    context = judge.context
    folder = context.folders.work / f"mixed-{number}"
    folder.mkdir()
    shutil.copy2(context.evidence, folder)
    built = _built(context, variants, kept, folder)
    expected = stages.expected(context, judge.source)
    made = [(item.variant, item.file) for item in built if item.file]
    checked = stages.check_files(folder, made, expected, judge.run, cache.Cache(None))
    latencies = {
        variant.name: latency
        for variant, file in made
        if checked[variant.name].verdict.comparison
        and (latency := judge.time(folder / file, variant)) is not None
    }
    answers = judge.answers(folder, built, checked, known)
    points = judge.points(folder, built, checked, latencies, answers, kept)
    return Candidate(kept, folder, built, checked, latencies, points, answers)


def _built(
    context: Context, variants: Sequence[Variant], kept: tuple[str, ...], folder: Path
) -> tuple[jobs.Built, ...]:
    arguments = (context.folders.work, kept, tuple(v.name for v in variants), folder)
    prepare = Job(folder.name, quantizing.mix, arguments, preload=int8_stage.QUANTIZERS)
    work = [
        Job(
            v.name,
            jobs.build,
            (folder, (v,), folder),
            preload=preload_of(v),
            cost_s=v.cost_s,
            after=prepare,
        )
        for v in variants
    ]
    outcomes = context.workers.run([prepare, *work])[1:]
    return tuple(item for outcome in outcomes for item in stages.built_by(outcome))


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
