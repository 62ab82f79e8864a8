"""The stage behind `--search`: candidates become artifacts, are verified and timed, and the best is kept."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from exporter import cache, jobs, quantizing, stages
from exporter.records import Latency, MixedPoint, Variant
from exporter.stages import CheckedArtifact, Context, Event, Source
from exporter.workers import Job, Outcome

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


def search(
    context: Context,
    source: Source,
    built: Sequence[jobs.Built],
    checked: Mapping[str, CheckedArtifact],
    latencies: Mapping[str, Latency],
    measure: Measurer | None = None,
) -> Found:
    """Keep the fewest, cheapest operators in float so that the quality limit is met.

    Ends when a candidate meets `min_sqnr_db` and the agreement limit in every format, when the time limit is
    over, or at Ctrl-C; the best one so far is emitted.

    Args:
        context: Of the run.
        source: With the captured model.
        built: The int8 artifacts among others, as where the search starts.
        checked: What verification found of them.
        latencies: Of them, on this host.
        measure: What times candidates; this host's runtimes when None.
    """
    variants = [variant for variant in context.variants if variant.precision == "mixed"]
    started = time.monotonic()
    points = list(_whole_int8(context, built, checked, latencies))
    tried: list[Candidate] = []
    try:
        source = stages.quantized(context, source)
        orders = _orders(context)
        for number, kept in enumerate(orders):
            context.observer(Event("search", _so_far(points, tried), number, len(orders)))
            if time.monotonic() - started > context.request.time_limit_s:
                break
            tried.append(_candidate(context, source, variants, kept, number, measure))
            if tried[-1].passed:
                break
    except KeyboardInterrupt:
        if not tried:
            raise
    best = _best(tried, variants)
    points += [replace(point, chosen=one is best) for one in tried for point in one.points]
    if best is None:
        return Found(points=tuple(points), warnings=("The search found no mixed artifact.",))
    _emit(context, best)
    warnings = () if best.passed else (_unmet(context, best),)
    return Found(best.built, best.checked, best.latencies, tuple(points), warnings)


def _orders(context: Context) -> tuple[tuple[str, ...], ...]:
    job = Job(
        "what each activation costs",
        quantizing.mixed_candidates,
        (context.folders.work,),
        preload=stages.QUANTIZERS,
    )
    (outcome,) = context.workers.run([job])
    found: tuple[tuple[str, ...], ...] = outcome.result()
    return found


def _candidate(
    context: Context,
    source: Source,
    variants: Sequence[Variant],
    kept: tuple[str, ...],
    number: int,
    measure: Measurer | None,
) -> Candidate:
    folder = context.folders.work / f"mixed-{number}"
    folder.mkdir()
    shutil.copy2(context.evidence, folder)
    prepare = Job(
        f"mixed {number + 1}", quantizing.mix, (context.folders.work, kept, folder), preload=stages.QUANTIZERS
    )
    work = [
        Job(
            v.name,
            jobs.build,
            (folder, (v,), folder),
            preload=stages.preload_of(v),
            cost_s=v.cost_s,
            after=prepare,
        )
        for v in variants
    ]
    outcomes = context.workers.run([prepare, *work])[1:]
    built = tuple(item for outcome in outcomes for item in stages.built_by(outcome))
    expected = stages.expected(context, source)
    made = [(item.variant, item.file) for item in built if item.file]

    def run(_: str, work: Sequence[Job], on_outcome: Callable[[Outcome], None]) -> list[Outcome]:
        return context.workers.run(work, None, on_outcome)

    checked = stages.check_files(folder, made, expected, run, cache.Cache(None))
    timer = measure or (lambda path, variant: stages.host_latency(context, path, variant))
    latencies = {
        variant.name: latency
        for variant, file in made
        if checked[variant.name].verdict.comparison and (latency := timer(folder / file, variant)) is not None
    }
    points = _points(context, folder, built, checked, latencies, kept)
    return Candidate(kept, folder, built, checked, latencies, points)


def _whole_int8(
    context: Context,
    built: Sequence[jobs.Built],
    checked: Mapping[str, CheckedArtifact],
    latencies: Mapping[str, Latency],
) -> tuple[MixedPoint, ...]:
    int8 = [item for item in built if item.variant.precision == "int8" and item.variant.suffix != ".ort"]
    return _points(context, context.folders.out, int8, checked, latencies, ())


def _points(
    context: Context,
    folder: Path,
    built: Sequence[jobs.Built],
    checked: Mapping[str, CheckedArtifact],
    latencies: Mapping[str, Latency],
    kept: tuple[str, ...],
) -> tuple[MixedPoint, ...]:
    found = []
    for item in built:
        name = item.variant.name
        comparison = checked[name].verdict.comparison if item.file else None
        if comparison is None or name not in latencies:
            continue
        limits = context.request.limits
        agrees = comparison.agreement is None or comparison.agreement >= limits.int8_min_agreement
        good = comparison.sqnr_db >= context.request.min_sqnr_db and agrees
        found.append(
            MixedPoint(
                variant=name,
                kept=kept,
                sqnr_db=comparison.sqnr_db,
                agreement=comparison.agreement,
                p50_ms=latencies[name].p50_ms,
                size_bytes=(folder / str(item.file)).stat().st_size,
                passed=good and checked[name].verdict.status == "passed",
            )
        )
    return tuple(found)


def _best(tried: Sequence[Candidate], variants: Sequence[Variant]) -> Candidate | None:
    """The fastest that meets the limit, by the target's first runtime; failing that, the most exact."""
    whole = [one for one in tried if one.points]
    if passed := [one for one in whole if one.passed]:
        return min(passed, key=lambda one: one.points[0].p50_ms)
    return max(whole, key=lambda one: min(p.sqnr_db for p in one.points), default=None)


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


def _unmet(context: Context, best: Candidate) -> str:
    found = min(point.sqnr_db for point in best.points)
    return (
        f"The search did not reach {context.request.min_sqnr_db:g} dB in every format within its time: the "
        f"best keeps {len(best.kept)} operators in float and reaches {found:.1f} dB. See --time-limit."
    )
