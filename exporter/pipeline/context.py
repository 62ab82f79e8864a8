"""The context of a run that every stage needs, and the checkpoint that the stages pass on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter import files
from exporter.config.request import Request
from exporter.config.targets import Target
from exporter.files import EVIDENCE
from exporter.pipeline import cache, stage_results
from exporter.pipeline.workers.jobs import Job, JobOutcome
from exporter.pipeline.workers.pool import WorkerPool
from exporter.records import Variant
from exporter.staging import Staging

TORCH = ("exporter.pipeline.workers.preload",)


@dataclass(frozen=True)
class Event:
    """The progress of a run."""

    stage: str
    detail: str
    done: int
    total: int


Observer = Callable[[Event], None]
Run = Callable[[str, Sequence[Job], Callable[[JobOutcome], None]], list[JobOutcome]]
"""Runs a stage's jobs and reports each outcome at once, as `Context.run`."""


def run_with_context_observer(
    pool: WorkerPool,
    observer: Observer,
    stage: str,
    work: Sequence[Job],
    on_outcome: Callable[[JobOutcome], None] | None = None,
) -> list[JobOutcome]:
    """Run a stage's jobs in a pool, and report each one's start and end to the observer."""
    done = 0

    def on_event(kind: str, job: Job) -> None:
        nonlocal done
        done += kind == "end"
        observer(Event(stage, job.label, done, len(work)))

    return pool.run(work, on_event, on_outcome)


@dataclass(frozen=True, eq=False)
class Context:
    """The parts of a run that every stage needs."""

    request: Request
    target: Target
    variants: tuple[Variant, ...]
    folders: Staging
    workers: WorkerPool
    observer: Observer

    @property
    def cache(self) -> cache.Cache:
        return cache.Cache(cache.default_cache_root() if self.request.cache else None)

    @functools.cached_property
    def calibration_digest(self) -> str:
        """The hash of the calibration data, empty without any. Cached: the data may be large."""
        calibration = self.request.calibration
        return files.digest_file_or_folder(calibration) if calibration else ""

    @property
    def evidence(self) -> Path:
        return self.folders.out / EVIDENCE

    def run(
        self, stage: str, work: Sequence[Job], on_outcome: Callable[[JobOutcome], None] | None = None
    ) -> list[JobOutcome]:
        """Run jobs and report each one's start and end."""
        return run_with_context_observer(self.workers, self.observer, stage, work, on_outcome)

    def run_silently(
        self, _: str, work: Sequence[Job], on_outcome: Callable[[JobOutcome], None]
    ) -> list[JobOutcome]:
        """Run jobs without progress events: the caller reports progress itself."""
        return self.workers.run(work, None, on_outcome)


@dataclass(frozen=True)
class Source:
    """The checkpoint, read: its facts and what identifies it in the cache."""

    facts: stage_results.ReadResult
    key: str
    """A hash of everything the facts depend on; empty when they depend on code that cannot be hashed."""
    quantization: stage_results.QuantizationResult | None = None
    """The costs of its int8 program."""


def preload_of_context(variant: Variant) -> tuple[str, ...]:
    from exporter.formats import FORMATS

    return (*TORCH, *FORMATS[variant.format].PRELOAD)
