"""The records of jobs: what a worker runs, what it may do, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exporter.pipeline.workers.server import ServerRequest
from exporter.sandbox import Confinement


@dataclass(frozen=True, eq=False)
class Job:
    """One function call in a worker. `function` must be importable; arguments and result must pickle."""

    label: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    preload: tuple[str, ...] = ()
    """Modules the server imports before forking, so that the next job finds them imported."""
    cost_s: float = 1.0
    """Rough seconds; longer jobs start first."""
    after: Job | None = None
    """Starts when that one has ended; an error of that one is this one's too."""
    read_only: bool = False
    """Runs an artifact: its process writes nothing, whatever the pool's other jobs may do."""
    scratch: bool = False
    """A read-only job may write to a folder of its own and start programs, until it tightens its sandbox."""
    seconds: float | None = None
    """Bound on its wall time, in place of the confinement's."""
    reads: tuple[Path, ...] = ()
    """Files and folders that it may read beside what the pool's other jobs may."""


@dataclass(frozen=True)
class JobRights:
    """What the jobs of one pool may do."""

    confinement: Confinement | None = None
    """None lets them do whatever the user may."""
    own_code: bool = False
    """Whether the user vouches for code that the jobs run, of the checkpoint or of the current folder.

    Only jobs that run artifacts are confined then, and the others may import from the current folder.
    """

    def with_more_memory(self, more_bytes: int) -> JobRights:
        """Return rights to so much more memory."""
        if self.confinement is None:
            return self
        raised = replace(self.confinement, memory_bytes=self.confinement.memory_bytes + more_bytes)
        return replace(self, confinement=raised)

    def request(self, log: Path, job: Job, scratch: Path) -> ServerRequest:
        """Return the message that starts a job with these rights."""
        confinement = self.confinement
        if confinement is not None and job.read_only:
            confinement = replace(
                confinement,
                reads=(*confinement.reads, *confinement.writes),
                writes=(scratch,) if job.scratch else (),
                forks=job.scratch,
                programs=job.scratch,
            )
        elif self.own_code:
            confinement = None
        if confinement is not None and job.reads:
            confinement = replace(confinement, reads=(*confinement.reads, *job.reads))
        if confinement is not None and job.seconds is not None:
            confinement = replace(confinement, seconds=job.seconds)
        return ServerRequest(
            log,
            job.preload,
            job.function,
            job.arguments,
            own_modules=self.own_code and not job.read_only,
            confinement=confinement,
        )


@dataclass(frozen=True, eq=False)
class JobOutcome:
    job: Job
    value: Any = None
    error: Exception | None = None

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value
