"""Run jobs in the test's own process, without starting workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from exporter.config import targets
from exporter.config.request import Request
from exporter.formats import VARIANTS
from exporter.pipeline.context import Context, Observer
from exporter.pipeline.workers.jobs import Job, JobOutcome
from exporter.pipeline.workers.pool import WorkerPool
from exporter.staging import Staging


class Inline:
    """A stand-in for `WorkerPool` that records the functions it runs."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def warm(self, modules: Sequence[str]) -> None:
        """Do nothing."""

    def run(
        self,
        jobs: Sequence[Job],
        on_event: Callable[[str, Job], None] | None = None,
        on_outcome: Callable[[JobOutcome], None] | None = None,
    ) -> list[JobOutcome]:
        """Run jobs in order, dependent ones last; return the outcomes in the given order."""
        outcomes: dict[Job, JobOutcome] = {}
        for job in sorted(jobs, key=lambda job: job.after is not None):
            self.ran.append(job.function.__name__)
            before = outcomes[job.after].error if job.after else None
            outcomes[job] = JobOutcome(job, error=before) if before else _done(job)
            if on_outcome:
                on_outcome(outcomes[job])
        return [outcomes[job] for job in jobs]


def _done(job: Job) -> JobOutcome:
    try:
        return JobOutcome(job, job.function(*job.arguments))
    except Exception as error:
        return JobOutcome(job, error=error)


def context(folder: Path, names: Sequence[str], observer: Observer | None = None, **options: Any) -> Context:
    """Return a run of the named variants without a cache, with empty folders in `folder`."""
    folders = Staging(folder / "out", folder / "work", folder / "log")
    folders.out.mkdir()
    folders.work.mkdir()
    return Context(
        Request(**{"checkpoint": Path("net.ckpt"), "cache": False, **options}),
        targets.get_target("snapdragon865"),
        tuple(VARIANTS[name] for name in names),
        folders,
        cast("WorkerPool", Inline()),
        observer or (lambda _: None),
    )
