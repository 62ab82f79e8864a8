"""Cached steps: a stage lists its results; the cache delivers what it has, and jobs make the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.pipeline.cache import Cache
from exporter.pipeline.context import Run
from exporter.pipeline.workers.jobs import Job, JobOutcome


def _same_cached_step_value(value: Any) -> Any:
    return value


def _raise_in_cached_step(error: Exception) -> Any:
    raise error


@dataclass(frozen=True, eq=False)
class Step:
    """One result of a stage: where the cache keeps it, and the job that makes it where the cache has none."""

    kind: str
    """The cache's folder for such results."""
    key: str
    """The cache's key; an empty key is never cached."""
    result: Any
    """The result's type, in any form that pydantic reads: a record, `tuple[str, ...]`."""
    job: Callable[[Sequence[Step]], Job]
    """Makes the job for the steps of one group that the cache does not have."""
    group: str = ""
    """Steps of the same group share one job; a step without a group has a job of its own."""
    item: Any = None
    """What the step is about, for `job`."""
    folder: Path = Path()
    """Where the result's files are written by the job, and where the cache copies them."""
    files: Callable[[Any], Sequence[str]] = lambda _: ()
    """The names of the result's files."""
    value: Callable[[Any], Any] = _same_cached_step_value
    """The step's result, taken from what its job returns."""
    failed: Callable[[Exception], Any] = _raise_in_cached_step
    """The step's result when its job raises or dies. Such results are never cached."""
    keep: Callable[[Any], bool] = lambda _: True
    """Whether the cache keeps a result."""


def cached_steps(
    run: Run, cache: Cache, stage: str, steps: Sequence[Step], prepare: Callable[[], None] = lambda: None
) -> list[Any]:
    """Return the result of every step, from the cache or from jobs.

    A result is cached as soon as its job ends: a run that is killed later does not make it again.

    Args:
        run: Runs the jobs, as `Context.run`.
        cache: Where results are looked up and kept.
        stage: The stage's name, for progress.
        steps: What the stage makes.
        prepare: Called once before any job runs, and not at all when the cache has everything.

    Raises:
        Exception: What a step's job raised, unless the step says what a failure results in.
    """
    results = {step: cache.get(step.kind, step.key, step.result, step.folder) for step in steps}
    makers = _jobs_of_cached_steps([step for step in steps if results[step] is None])
    if makers:
        prepare()

    def on_outcome(outcome: JobOutcome) -> None:
        for step in makers.get(outcome.job, ()) if outcome.error is None else ():
            results[step] = step.value(outcome.value)
            if step.keep(results[step]):
                files = {name: step.folder / name for name in step.files(results[step])}
                cache.put(step.kind, step.key, results[step], files, step.result)

    before = dict.fromkeys(job.after for job in makers if job.after is not None and job.after not in makers)
    for outcome in run(stage, [*makers, *before], on_outcome) if makers else ():
        if outcome.error is not None:
            results |= {step: step.failed(outcome.error) for step in makers.get(outcome.job, ())}
    return [results[step] for step in steps]


def _jobs_of_cached_steps(missing: Sequence[Step]) -> dict[Job, list[Step]]:
    """Job -> the steps whose results it makes."""
    groups: dict[object, list[Step]] = {}
    for step in missing:
        groups.setdefault(step.group or step, []).append(step)
    return {group[0].job(group): group for group in groups.values()}
