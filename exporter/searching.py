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

    @property
    def passed(self) -> bool:
        return len(self.points) == len(self.built) and all(point.passed for point in self.points)


@dataclass(frozen=True, eq=False)
class Found:
    """What the search leaves: the chosen candidate's artifacts in OUT, and all points."""

    built: tuple[jobs.Built, ...] = ()
    checked: Mapping[str, CheckedArtifact] = field(default_factory=dict)
    latencies: Mapping[str, Latency] = field(default_factory=dict)
    points: tuple[MixedPoint, ...] = ()
    warnings: tuple[str, ...] = ()
    answers: answering.Answers = field(default_factory=answering.Answers)
    """To the labelled samples, where there are some; the chosen candidate's among them."""


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

    Ends when a candidate meets `min_sqnr_db`, the agreement limit and, with labelled samples, `max_drop` in
    every format, when the time limit is over, or at Ctrl-C; the best one so far is emitted.

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
            context.observer(Event("search", _so_far(points, tried), number, len(mixes)))
            if time.monotonic() - started > context.request.time_limit_s:
                break
            tried.append(_candidate(judge, variants, known, mix.kept, number))
            if tried[-1].passed:
                break
    except KeyboardInterrupt:
        if not tried:
            raise
    best = _best(context.request, tried)
    points += [replace(point, chosen=one is best) for one in tried for point in one.points]
    if best is None:
        warnings: tuple[str, ...] = ("The search found no mixed artifact.",)
        return Found(points=tuple(points), warnings=warnings, answers=known)
    _emit(context, best)
    warnings = () if best.passed else (_unmet(context.request, best, len(mixes) - len(tried)),)
    return Found(best.built, best.checked, best.latencies, tuple(points), warnings, best.answers)


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
    arguments = (context.folders.work, kept, folder)
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


def _best(request: Request, tried: Sequence[Candidate]) -> Candidate | None:
    """The one that passed, which ended the search; failing that, the nearest.

    What loses too much on labelled samples fails and cannot be shipped, so that counts before decibels.
    """
    whole = [one for one in tried if one.points]
    return max(
        whole,
        key=lambda one: (
            one.passed,
            -max(excess(request, point.drop) for point in one.points),
            min(point.sqnr_db for point in one.points),
        ),
        default=None,
    )


def _emit(context: Context, best: Candidate) -> None:
    for item in best.built:
        if item.file:
            shutil.copy2(best.folder / item.file, context.folders.out / item.file)
    lowering = jobs.lowering_file("mixed")
    shutil.copy2(best.folder / lowering, context.folders.out / lowering)


def _so_far(points: Sequence[MixedPoint], tried: Sequence[Candidate]) -> str:
    """The front in words: how many operators in float, dB, ms."""
    latest = [*points, *(point for one in tried for point in one.points)]
    words = [f"{len(p.kept)} in float {p.sqnr_db:.1f} dB {p.p50_ms:.3g} ms" for p in latest]
    return "; ".join(words) or "measuring what each activation costs"


def _unmet(request: Request, best: Candidate, left: int) -> str:
    """With a word on the time limit where it left some candidates untried."""
    wanted = f"{request.min_sqnr_db:g} dB"
    reached = f"reaches {min(point.sqnr_db for point in best.points):.1f} dB"
    if request.evaluation:
        wanted += f" with at most {request.max_drop:g} points of top-1 lost"
        lost = [point.drop for point in best.points if point.drop is not None]
        reached += f" and loses {max(lost):.2g} points" if lost else " and does not run on labelled samples"
    return (
        f"The search did not reach {wanted} in every format{' within its time' if left else ''}: the best "
        f"keeps {len(best.kept)} operators in float and {reached}.{' See --time-limit.' if left else ''}"
    )
